"""Find the files with sound among files and folders."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from polyres.audio.file_names import shown
from polyres.audio.files import probe
from polyres.batch.manifest import MANIFEST_NAME
from polyres.core.errors import InputError, NoSoundError, PolyresError


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


AUDIO_ENDINGS = _words(
    """
    wav wave w64 rf64 bwf aif aiff aifc au snd caf flac alac ape wv tta tak mpc mpp shn dsf dff mp1 mp2 mp3 mpga m4a
    m4b m4r aac adts ac3 eac3 ec3 ac4 dts dtshd thd mlp truehd mka weba ogg oga opus spx wma ra amr awb gsm oma aa3
    at3 voc
    """
)
"""Files with these endings count without a look; one that cannot be read is an error."""

VIDEO_ENDINGS = _words(
    """
    mp4 m4v mov qt mkv webm avi divx ts mts m2ts m2t mpg mpeg mpe vob evo ogv ogm 3gp 3g2 flv f4v wmv asf mxf rm rmvb
    nut nsv wtv y4m dv
    """
)
"""Files with these endings count unless they can be read and have no sound."""

OTHER_ENDINGS = _words(
    """
    txt md rst rtf log nfo pdf ps eps doc docx odt xls xlsx ods ppt pptx htm html xml css js json jsonl yaml yml toml
    ini cfg conf csv tsv db sqlite sqlite3 parquet tex bib srt vtt ass ssa sub idx lrc cue m3u m3u8 pls xspf asx wpl
    mpd ffconcat sfv md5 sha1 sha256 crc torrent url lnk desktop jpg jpeg jpe png gif webp bmp tif tiff svg ico heic
    heif avif psd xcf raw cr2 nef dng thm zip rar 7z tar gz tgz bz2 xz zst lz4 iso img dmg exe msi dll so dylib bin o
    a class jar apk deb rpm py pyc ipynb c h cc cpp hpp rs go java sh bat ps1 pl rb lua swf ttf otf woff woff2 mid
    midi kar musicxml mxl mscz gp gp3 gp4 gp5 gpx sf2 sf3 sfz als flp cpr rpp rpp-bak ptx logicx reapeaks asd pek cfa
    sesx aup aup3 npy npz pt pth th ckpt onnx safetensors h5 hdf5 mat pkl part partial crdownload tmp temp bak swp lock
    """
)
"""Files with these endings are left out unopened; files with any other, or none, count where they hold sound."""

_RESULTS = (MANIFEST_NAME, "reconstruction.json")
_DONE_FILE, _DONE_START = "done.json", '{"key":'
_MAX_NAMES = 3

Note = Callable[[str], None]
Found = tuple[Path, tuple[str, ...] | PolyresError]


def find_audio(inputs: Sequence[Path], out_dir: Path | None = None, note: Note | None = None) -> Iterator[Found]:
    """Find all files with sound, each once.

    Folders are searched at any depth; linked folders are followed, once. Hidden entries, finished results, files
    without sound and `out_dir` are left out. A file that is named outright may be anything.

    `out_dir`: folder of results, which is left out where it lies in one of them; `note`: called with a line about each
    folder of which something was left out. Yields each file with the folders above it that are kept, or an input with
    what is wrong with it.
    """
    seen: set[str] = set()
    for given in inputs:
        walk = _Walk(given, out_dir) if os.path.isdir(given) else None
        for path, what in [(given, ())] if walk is None else walk.files():
            problem = what if isinstance(what, PolyresError) else _problem(path)
            if problem is not None:
                yield path, problem
            elif (real := os.path.realpath(path)) not in seen:
                seen.add(real)
                yield path, what
        if walk is not None and note is not None and (line := walk.left_out()):
            note(line)


def _problem(path: Path) -> InputError | None:
    """Say why a file cannot be looked at."""
    try:
        os.stat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ENOTDIR):
            return InputError(f"{shown(path)} does not exist; check the path")
        return unreadable(path, error)
    return None


def unreadable(path: Path, error: OSError | ValueError) -> InputError:
    """Put the system's complaint about a file or folder into one line."""
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(f"{shown(path)} cannot be read ({reason}); check its name, links and permissions")


class _Walk:
    """One pass through a folder; afterwards `left_out` tells what did not count."""

    def __init__(self, root: Path, out_dir: Path | None) -> None:
        self._root = root
        # A link to a folder above leads out of what was meant, and back.
        self._seen = {_identity(above) for above in Path(os.path.realpath(root)).parents}
        if out_dir is not None and os.path.isdir(out_dir) and not os.path.samefile(out_dir, root):
            self._seen.add(_identity(out_dir))
        self._links: list[Path] = []
        self._silent: list[str] = []
        self._results: list[str] = []
        self._hidden = 0

    def files(self) -> Iterator[Found]:
        """Yield every file with the folders above it, and folders that cannot be read with what is wrong."""
        pending = [self._root]
        count = 0
        while pending or self._links:  # links last, so that what can be reached both ways keeps its own place
            here = pending.pop() if pending else self._links.pop(0)
            try:
                found, folders = self._look(here)
            except OSError as error:
                yield here, unreadable(here, error)
                count += 1
                continue
            yield from found
            count += len(found)
            pending += reversed(folders)
        if not count:
            yield (
                self._root,
                InputError(f"{shown(self._root)}: no audio files in this folder; name a file or another folder"),
            )

    def left_out(self) -> str:
        """Say what was left out, in one line; empty where nothing was."""
        hidden = f"{self._hidden} hidden" if self._hidden else ""
        parts = (_listed("without sound", self._silent), _listed("with results", self._results), hidden)
        told = ", ".join(part for part in parts if part)
        return f"{shown(self._root)}: left out {told}" if told else ""

    def _look(self, here: Path) -> tuple[list[Found], list[Path]]:
        """Return the files of one folder that count, and the folders in it."""
        this = _identity(here)
        if this in self._seen:
            return [], []
        self._seen.add(this)
        with os.scandir(here) as entries:
            names = sorted((entry.name, entry.is_symlink()) for entry in entries)
        if _holds_results(here, [name for name, _ in names]):
            self._results.append(self._name(here))
            return [], []
        found: list[Found] = []
        folders: list[Path] = []
        for name, is_link in names:
            path = here / name
            if name.startswith("."):
                self._hidden += 1
            elif os.path.isdir(path):
                (self._links if is_link else folders).append(path)
            elif counts(path):
                found.append((path, path.relative_to(self._root).parent.parts))
            else:
                self._silent.append(self._name(path))
        return found, folders

    def _name(self, path: Path) -> str:
        return shown(path.relative_to(self._root))


def _identity(folder: Path) -> tuple[int, int]:
    """Return what is equal for two ways to the same folder."""
    about = os.stat(folder)
    return about.st_dev, about.st_ino


def counts(path: Path) -> bool:
    """Tell whether a file found in a folder is meant: by its ending, else by what it holds.

    Returns whether it holds sound, or is broken and should.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending in AUDIO_ENDINGS:
        return True
    if ending in OTHER_ENDINGS:
        return False
    try:
        probe(path)
    except NoSoundError:
        return False
    except (InputError, OSError):
        return ending in VIDEO_ENDINGS
    return True


def _holds_results(folder: Path, names: Sequence[str]) -> bool:
    """Tell whether a folder was written by one of the commands."""
    if any(name in names for name in _RESULTS):
        return True
    if _DONE_FILE not in names:
        return False
    try:
        with (folder / _DONE_FILE).open(encoding="utf-8") as file:
            return file.read(len(_DONE_START)) == _DONE_START
    except (OSError, ValueError):
        return False


def _listed(what: str, names: Sequence[str]) -> str:
    """Count things and name the first of them."""
    if not names:
        return ""
    more = ", …" if len(names) > _MAX_NAMES else ""
    return f"{len(names)} {what} ({', '.join(names[:_MAX_NAMES])}{more})"
