"""Plan the jobs of a command: its files, the folder of each, and what every job may be told."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from polyres.audio.encode import BitDepth
from polyres.audio.file_names import safe_name, shown
from polyres.audio.sources import Progress
from polyres.audio.track_files import SUBSETS, TrackFiles
from polyres.audio.writer import FORMATS
from polyres.batch.manifest import MANIFEST_NAME, InputId, read_manifest
from polyres.batch.search import Note, find_audio, unreadable
from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import ConfigError, InputError, OutputError, PolyresError, UnknownNameError
from polyres.datasets.layouts import LAYOUTS, find_tracks


@dataclass(frozen=True)
class Job:
    """One file to separate."""

    input: Path
    folder: Path
    error: PolyresError | None = None  # what is already known to be wrong with it
    stream: int | None = None  # which of its audio streams, from 1; None is the one that it marks as the default


def model_folder(out_dir: Path, label: str, weights_id: str, overwrite: bool = False, note: Note | None = None) -> str:
    """Name the folder of a model's results so that those of other weights with the same name stay apart.

    `overwrite`: results of other weights may be replaced; `note`: called with a line if the label is taken. Returns the
    label; with the first digits of `weights_id` behind it where its folder holds results of other weights.
    """
    own = f"{label}-{weights_id[:8]}"
    if (out_dir / folder_name(own)).is_dir():
        return own
    if overwrite or _weights_in(out_dir / folder_name(label)) in (None, weights_id):
        return label
    if note is not None:
        note(f"{shown(out_dir / folder_name(label))} holds stems of other weights; these go to {own} beside it")
    return own


def _weights_in(folder: Path) -> str | None:
    """Return whose results lie in the folder of a model, by the first that says so."""
    for name, folders, files in os.walk(folder):
        folders.sort()
        manifest = read_manifest(Path(name)) if MANIFEST_NAME in files else None
        found = [record.settings.get("weights") for record in (manifest.files.values() if manifest else ())]
        if found:
            return str(found[-1])
    return None


def plan_jobs(inputs: Sequence[Path], out_dir: Path, model_name: str, note: Note | None = None) -> list[Job]:
    """Find all files and give each its own folder.

    Folders keep their tree; `polyres.batch.search.find_audio` says what counts in them. A second file of the same
    name (song.wav, song.mp3) keeps its ending in the folder name. A folder on disk that belongs to another input
    counts as taken.

    `model_name`: name of the model, the first level below; `note`: called with a line about each folder of which
    something was left out. Returns one job per file, in the order of the inputs; those that cannot be used carry an
    error.
    """
    root = out_dir / folder_name(model_name)
    jobs: list[Job] = []
    taken: set[str] = set()
    for path, parts in find_audio(inputs, out_dir, note):
        if isinstance(parts, PolyresError):
            jobs.append(Job(path, root, parts))
            continue
        parent = root.joinpath(*(folder_name(part) for part in parts))
        try:
            folder = _free_folder(parent, path, taken)
        except OSError as error:  # gone since it was found
            jobs.append(Job(path, root, unreadable(path, error)))
            continue
        taken.add(_key(folder))
        jobs.append(Job(path, folder))
    return jobs


def plan_tracks(roots: Sequence[Path], out_dir: Path, layout: str) -> list[Job]:
    """Take the mixtures of data sets; stems go to `OUT/TRACK`, or `OUT/test/TRACK` where the data set has such parts.

    `roots`: folders of data sets, or of one part of one, such as MUSDB/test; `layout`: name in
    `polyres.datasets.layouts.LAYOUTS`. Returns one job per track; those without a mixture carry an error, as do folders
    without tracks. Raises UnknownNameError if there is no such layout.
    """
    LAYOUTS.get(layout)
    jobs = []
    for root in roots:
        whole = (
            root.parent
            if root.resolve().name in SUBSETS and not any((root / one).is_dir() for one in SUBSETS)
            else root
        )
        try:
            tracks = find_tracks(whole, layout)
        except PolyresError as error:
            jobs.append(Job(root, out_dir, error))
            continue
        for track in tracks:
            if whole == root or track.folder.is_relative_to(root):
                jobs.append(_track_job(track, out_dir.joinpath(*track.folder.relative_to(root).parent.parts)))
    return jobs


def _track_job(track: TrackFiles, parent: Path) -> Job:
    folder = parent / folder_name(track.name)
    if track.mixture is None:
        return Job(track.folder, folder, InputError(f"{shown(track.folder)} has no mixture; add mixture.wav"))
    path = track.mixture.path
    manifest = read_manifest(folder)
    try:
        if manifest is None or manifest.input.same_track(InputId.of(path)):
            return Job(path, folder)
    except OSError as error:
        return Job(path, folder, unreadable(path, error))
    taken = f"{shown(folder)} holds stems of another file ({shown(manifest.input.path)}); choose another --out"
    return Job(path, folder, OutputError(taken))


def _free_folder(parent: Path, path: Path, taken: set[str]) -> Path:
    for name in _candidates(path):
        folder = parent / name
        if _key(folder) in taken:
            continue
        manifest = read_manifest(folder)
        if manifest is None or manifest.input.same_track(InputId.of(path)):
            return folder
    raise AssertionError("the candidates never end")


def _key(folder: Path) -> str:
    """Return what is equal for names that some file systems take for one."""
    return unicodedata.normalize("NFC", str(folder)).casefold()


def _candidates(path: Path) -> Iterator[str]:
    stem, full = folder_name(path.stem), folder_name(path.name)
    yield stem
    if full != stem:
        yield full
    number = 2
    while True:
        yield f"{full}-{number}"
        number += 1


# Below the 255 bytes that file systems take, so that an ending or a number still fits.
MAX_FOLDER_BYTES = 240
_SEED = re.compile(r"seed[_-]?\d+")


def folder_name(text: str) -> str:
    """Turn any text into one folder name that is safe on every system and leaves room for a number."""
    return safe_name(text, MAX_FOLDER_BYTES)


def run_name(path: Path) -> str:
    """Name a run by its folder; one seed of a study ARM/seedN, as the rows of the study have it."""
    return f"{path.parent.name}/{path.name}" if _SEED.fullmatch(path.name) else path.name


def run_label(path: Path) -> str:
    """Name the folder of what a run gives: that of the run, of one seed of a study ARM-seedN."""
    return folder_name(run_name(path).replace("/", "-"))


class Watch(Protocol):
    """Looks on while files are separated."""

    def track(self, job: Job) -> AbstractContextManager[Progress]:
        """Enter for each file; what it gives is called with the finished share of that file, 0 to 1."""
        ...


@contextmanager
def one_file(path: Path) -> Iterator[None]:
    """Turn what the system says about one file into an error of that file, so that the others go on.

    Raises InputError when the file went away, cannot be read, or needs more memory than there is.
    """
    try:
        yield
    except OSError as error:
        raise unreadable(path, error) from error
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "allocate" not in str(error):
            raise
        raise InputError(f"{shown(path)} needs more memory than there is; cut it, or close other programs") from error


BIT_DEPTHS = ("16", "24", "float")


@dataclass(frozen=True)
class OutputOptions:
    """How to write the stems of a track.

    Raises UnknownNameError for a format or bit depth that is not known; ConfigError for a bit depth that the format
    cannot hold.
    """

    format: str = "wav"  # one of wav, flac, mp3, m4a, ogg, opus
    bit_depth: int | str = 24  # 16, 24 or "float"; float for wav alone, and without meaning for lossy formats
    overwrite: bool = False  # write again what is already there

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise UnknownNameError(unknown_name_message("format", self.format, FORMATS))
        if str(self.bit_depth) not in BIT_DEPTHS:
            raise UnknownNameError(unknown_name_message("bit depth", str(self.bit_depth), BIT_DEPTHS))
        if self.bit_depth == "float" and self.format != "wav":
            raise ConfigError(f"bit depth float is not possible in {self.format}; use --format wav or --bit-depth 24")

    @property
    def samples(self) -> BitDepth:
        """The bit depth as the writer takes it."""
        return "float" if self.bit_depth == "float" else 16 if int(self.bit_depth) == 16 else 24

    @property
    def is_float(self) -> bool:
        """Whether samples above full scale survive."""
        return self.format == "wav" and self.bit_depth == "float"

    @property
    def is_lossy(self) -> bool:
        """Whether the bit depth has no meaning."""
        return self.format not in ("wav", "flac")
