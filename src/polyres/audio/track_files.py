"""Find the files of tracks and stems on disk without reading them."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, ClassVar

from polyres.audio.file_names import safe_name, shown
from polyres.core.errors import InputError, OutputError
from polyres.core.json_text import json_file
from polyres.core.whole_files import write_whole

SOURCES = ("drums", "bass", "other", "vocals")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3", ".m4a", ".opus", ".wma")
MIXTURE_NAMES = ("mixture", "mix")
SUBSETS = ("test", "train")


@dataclass(frozen=True)
class Part:
    """One file that sounds in a stem."""

    path: Path
    # None for a file of one stream; else the audio stream of a stem file (`.stem.mp4`) from 0, whose samples are
    # rounded to 16 bits as FFmpeg's command does.
    stream: int | None = None
    # None for recorded sound; else the file is a tracker module, of which these instruments sound
    instruments: tuple[int, ...] | None = None

    def __str__(self) -> str:
        """Return the path, with the stream if there is one."""
        return shown(self.path) if self.stream is None else f"{shown(self.path)} (stream {self.stream})"


Parts = tuple[Part, ...]


@dataclass(frozen=True)
class TrackFiles:
    """One track: its stems by source, each the sum of one or more files; sources it lacks are absent."""

    name: str  # name of the song, not always unique
    folder: Path  # its folder, or its file where one file holds all stems
    stems: Mapping[str, Parts]
    mixture: Part | None = None  # the file of the mixture, None where there is none
    problems: tuple[str, ...] = ()  # one line for each file that should be there and is not, or cannot be understood
    artist: str = ""  # who made it, where that is known


class Layout:
    """How one kind of data set lies on disk."""

    splits: ClassVar[tuple[str, ...]] = ("all",)  # splits that can be asked for
    is_complete: ClassVar[bool] = False  # whether every track must have every source
    wanted: ClassVar[str] = ""  # what a folder of this layout holds, for error messages

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the tracks.

        Args:
            root: existing folder of the data set.
            split: one of `splits`.

        Returns:
            Tracks in a fixed order; empty where the folder is of another layout.
        """
        return []


def stem_paths(folder: Path, sources: Sequence[str] = SOURCES) -> dict[str, Path]:
    """Find the stem files of one track folder; with several formats of one stem the first of the list above counts."""
    found = {}
    for source in sources:
        path = first_file(folder, source)
        if path is not None:
            found[source] = path
    return found


def first_file(folder: Path, stem: str) -> Path | None:
    """Return the audio file of this name in a folder whatever its format, or None."""
    paths = (folder / f"{stem}{suffix}" for suffix in AUDIO_SUFFIXES)
    return next((path for path in paths if os.path.isfile(path)), None)


def mixture_of(folder: Path) -> Part | None:
    """Return the file of the mixture in a track folder, or None."""
    paths = (first_file(folder, name) for name in MIXTURE_NAMES)
    return next((Part(path) for path in paths if path is not None), None)


def track_folder(root: Path, track: str) -> Path:
    """Return the folder of a track among results: ROOT/TRACK, or ROOT/test/TRACK as tools for MUSDB18 write it.

    Returns:
        The first that is there, if need be under a name that one of both sides had to change; ROOT/TRACK if none is.
    """
    parts = [root / subset for subset in ("", *SUBSETS) if (root / subset).is_dir()]
    named = [part / track for part in parts]
    alike = (one for part in parts for one in sorted(part.iterdir()) if safe_name(one.name) == safe_name(track))
    return next((place for place in chain(named, alike) if place.is_dir()), root / track)


def folders_under(root: Path, unreadable: dict[Path, str] | None = None) -> Iterator[Path]:
    """Yield the root and all folders under it but those whose names begin with a dot; linked folders count once.

    Args:
        unreadable: takes the folders that cannot be looked into, with a line that says why, and they are not yielded.

    Raises:
        InputError: if a folder cannot be looked into and `unreadable` is None.
    """
    pending = [root]
    seen = set()
    while pending:
        folder = pending.pop()
        try:
            about = folder.stat()
            inside = [sub for sub in folder.iterdir() if not sub.name.startswith(".")]
        except OSError as error:
            problem = f"{shown(folder)} cannot be read ({error.strerror or error}); check its permissions"
            if unreadable is None:
                raise InputError(problem) from error
            unreadable[folder] = problem
            continue
        if (about.st_dev, about.st_ino) in seen:
            continue
        seen.add((about.st_dev, about.st_ino))
        yield folder
        pending += [sub for sub in inside if os.path.isdir(sub)]


def list_tracks(root: str | Path, sources: Sequence[str] = SOURCES) -> list[Path]:
    """List the track folders under a root, the root itself included.

    Args:
        root: folder searched at any depth; names that begin with a dot are left out.
        sources: a folder with a `<source>.<ext>` file of one of these is a track.

    Raises:
        InputError: if the root is not a folder.
    """
    root = require_folder(root)
    return sorted(folder for folder in folders_under(root) if stem_paths(folder, sources))


def require_folder(root: str | Path) -> Path:
    """Return the path of an existing folder.

    Raises:
        InputError: if there is none.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"no folder '{root}'; give a folder of tracks, each a folder with files such as drums.wav")
    return root


def read_json(path: Path) -> Any:
    """Read a JSON file that describes a track.

    Raises:
        InputError: if it cannot be read.
    """
    try:
        return json_file(path)
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read as JSON ({_short(error)}); copy it again") from error


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:80]


def missing_file(path: Path, name: str) -> str:
    """Word the problem of a file that a track should have."""
    return f"'{shown(path)}' is missing from the track '{name}'; restore it or take the track away"


_HASH_WINDOWS = 8
_HASH_BYTES = 1 << 14

Entries = dict[str, dict[str, Any]]


def content_stamp(path: Path) -> str:
    """Return a stamp of a file's content: a hash of its size and of windows from its head to its tail.

    Returns:
        32 hexadecimal digits. A copy has the same ones.

    Raises:
        InputError: if the file is missing or cannot be opened.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for window in range(_HASH_WINDOWS):
                file.seek(max(size - _HASH_BYTES, 0) * window // (_HASH_WINDOWS - 1))
                digest.update(file.read(_HASH_BYTES))
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be opened ({error.strerror}); restore it or take it away") from error
    return digest.hexdigest()[:32]


def load_measured(root: Path, name: str, version: int) -> Entries:
    """Read the cached values, empty without ones of this version.

    Args:
        root: folder of the data set.
        name: file name in the root, such as `.polyres_index.json`.
    """
    for place in _places(root, name):
        try:
            content = json_file(place)
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("format") == version:
            entries: Entries = content["files"]
            return entries
    return {}


def save_measured(root: Path, name: str, version: int, entries: Entries) -> None:
    """Keep entries in the root, or in the user's cache folder where the root is read-only.

    Args:
        root: folder of the data set.
        name: file name in the root.
    """
    text = json.dumps({"format": version, "files": entries})
    for place in _places(root, name):
        try:
            write_whole(place, text)
        except OutputError:
            continue
        return


def _places(root: Path, name: str) -> tuple[Path, Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    kind = name.removeprefix(".polyres_").removesuffix(".json")
    return root / name, cache / "polyres" / kind / f"{digest}.json"
