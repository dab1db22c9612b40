"""Which files to separate, and which folder each of them gets."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from polyres.core.errors import InputError, PolyresError
from polyres.data.names import shown
from polyres.inference.manifest import MANIFEST_NAME, InputId, read_manifest
from polyres.inference.names import folder_name

# Endings that are looked for in folders; a file that is named outright may have any.
AUDIO_ENDINGS = frozenset(
    f".{ending}"
    for ending in (
        *("wav", "wave", "w64", "rf64", "aif", "aiff", "aifc", "au", "caf", "flac", "alac", "ape", "wv", "tta", "dsf"),
        *("mp2", "mp3", "m4a", "m4b", "aac", "ac3", "ogg", "oga", "opus", "spx", "wma", "amr"),
        *("mp4", "mka", "mkv", "webm", "mov"),
    )
)


@dataclass(frozen=True)
class Job:
    """One file to separate.

    Args:
        input: its path.
        folder: where its stems go.
        error: what is already known to be wrong with it.
    """

    input: Path
    folder: Path
    error: PolyresError | None = None


def plan_jobs(inputs: Sequence[Path], out_dir: Path, model_name: str) -> list[Job]:
    """Find all files and give each its own folder.

    Folders are searched recursively and keep their tree; hidden entries, files without an audio ending, `out_dir` and
    folders that hold stems are left out. A second file of the same name (song.wav, song.mp3) keeps its ending in the
    folder name. A folder on disk that belongs to another input counts as taken.

    Args:
        inputs: files and folders.
        out_dir: folder of all results.
        model_name: name of the model, the first level below.

    Returns:
        One job per file, in the order of the inputs; those that are missing carry an error.
    """
    root = out_dir / folder_name(model_name)
    jobs: list[Job] = []
    seen: set[Path] = set()
    taken: set[str] = set()
    for path, parts in find_audio(inputs, out_dir):
        if isinstance(parts, PolyresError):
            jobs.append(Job(path, root, parts))
            continue
        resolved = path.resolve()
        if resolved in seen:
            continue
        seen.add(resolved)
        parent = root.joinpath(*(folder_name(part) for part in parts))
        folder = _free_folder(parent, path, taken)
        taken.add(str(folder).casefold())
        jobs.append(Job(path, folder))
    return jobs


def find_audio(
    inputs: Sequence[Path], out_dir: Path | None = None
) -> Iterator[tuple[Path, tuple[str, ...] | PolyresError]]:
    """Find all files; see `plan_jobs` for what counts in folders.

    Args:
        inputs: files and folders.
        out_dir: folder of results, which is left out where it lies in one of them.

    Yields:
        Each file with the folders above it that are kept, or an input with what is wrong with it.
    """
    for given in inputs:
        if given.is_dir():
            files = list(_walk(given, out_dir))
            if not files:
                yield given, InputError(f"{shown(given)}: no audio files in this folder; name a file or another folder")
            for file in files:
                yield file, file.relative_to(given).parent.parts
        elif not os.path.lexists(given):
            yield given, InputError(f"{shown(given)} does not exist; check the path")
        else:
            yield given, ()


def _walk(folder: Path, out_dir: Path | None) -> Iterator[Path]:
    out = None if out_dir is None else out_dir.resolve()
    inside = out is not None and out != folder.resolve() and out.is_relative_to(folder.resolve())
    for name, folders, files in os.walk(folder):
        here = Path(name)
        if MANIFEST_NAME in files:
            folders.clear()
            continue
        kept = sorted(one for one in folders if not one.startswith("."))
        folders[:] = [one for one in kept if not (inside and (here / one).resolve() == out)]
        for file in sorted(files):
            if not file.startswith(".") and Path(file).suffix.lower() in AUDIO_ENDINGS:
                yield here / file


def _free_folder(parent: Path, path: Path, taken: set[str]) -> Path:
    for name in _candidates(path):
        folder = parent / name
        if str(folder).casefold() in taken:
            continue
        manifest = read_manifest(folder)
        if manifest is None or not path.exists() or manifest.input.same_track(InputId.of(path)):
            return folder
    raise AssertionError("the candidates never end")


def _candidates(path: Path) -> Iterator[str]:
    stem, full = folder_name(path.stem), folder_name(path.name)
    yield stem
    if full != stem:
        yield full
    number = 2
    while True:
        yield f"{full}-{number}"
        number += 1
