"""What commands that work through audio files share: finding them, running each once, whole results or none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from polyres.cli.shared.terminal import tell_note
from polyres.core.errors import OutputError, PolyresError, WeightsError
from polyres.core.json_text import json_file

if TYPE_CHECKING:
    from torch import Tensor

DONE_FILE = "done.json"

Audio = Annotated[list[Path] | None, typer.Argument(metavar="AUDIO...", help="Files with audio, or folders of them.")]
CodecName = Annotated[str, typer.Option("--codec", help="Name or path, as for polyres reconstruct.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print rows as JSON lines instead of a table.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Make results again that are already there.")]
FoundFile = tuple[Path, PolyresError | None]

Facts = dict[str, Any]
Make = Callable[["FileJob", Path | None, Callable[[float], None]], Facts]
"""Takes a job, the folder to write sounds into (None where none are kept), and what to call with the finished share;
gives plain values that are kept for the next time."""


@dataclass(frozen=True)
class FileJob:
    """A file and where its results go."""

    input: Path
    folder: Path | None  # of its results; None where none are kept
    key: str  # changes with anything that the results depend on
    error: PolyresError | None = None  # what is already known to be wrong with the file


def find_files(given: Sequence[Path], out_dir: Path | None = None) -> list[FoundFile]:
    """Find the audio files that are meant, each once, and what is wrong with them; `out_dir` is left out."""
    from polyres.batch.search import find_audio

    found = find_audio(given, out_dir, tell_note)
    return [(path, what if isinstance(what, PolyresError) else None) for path, what in found]


def audio_files(given: Sequence[Path]) -> list[Path]:
    """Find the files that are meant; raise the first error of one."""
    found = find_files(given)
    for _, error in found:
        if error is not None:
            raise error
    return [path for path, _ in found]


def file_job(file: FoundFile, folder: Path | None, settings: object) -> FileJob:
    """Put a job together, with an error if the file cannot be looked at; `settings`: what else results depend on."""
    from polyres.batch.search import unreadable

    path, error = file
    if error is not None:
        return FileJob(path, folder, "", error)
    try:
        about = path.stat()
    except OSError as problem:
        return FileJob(path, folder, "", unreadable(path, problem))
    text = json.dumps([settings, os.path.realpath(path), about.st_size, about.st_mtime_ns], sort_keys=True)
    return FileJob(path, folder, hashlib.sha256(text.encode()).hexdigest()[:16])


def file_mark(path: str | Path) -> str:
    """Hash a weight file, or that of a run folder, so that results of others are told apart."""
    from polyres.weights.places import weights_file

    source = weights_file(path)
    try:
        with source.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"cannot read {source} ({error.strerror}); check the path") from error


def run_files(jobs: Sequence[FileJob], make: Make, overwrite: bool) -> list[tuple[FileJob, Facts]]:
    """Run every file that is not finished yet and return those that are; errors of the others are on stderr."""
    from polyres.batch.jobs import Job, one_file
    from polyres.cli.shared.terminal import Bars

    done = []
    with Bars(len(jobs)) as bars:
        for job in jobs:
            with bars.track(Job(job.input, job.folder or Path())) as progress:
                try:
                    with one_file(job.input):
                        done.append((job, _run_once(job, make, overwrite, progress)))
                except PolyresError as error:
                    typer.echo(f"error: {' '.join(str(error).splitlines())}", err=True)
    return done


def _run_once(job: FileJob, make: Make, overwrite: bool, progress: Callable[[float], None]) -> Facts:
    """Run one file into its folder: all of it or nothing."""
    from polyres.audio.file_names import shown
    from polyres.batch.manifest import publish_folder, work_folder
    from polyres.core.whole_files import write_whole

    if job.error is not None:
        raise job.error
    if job.folder is None:
        return make(job, None, progress)
    if (kept := _kept(job, job.folder, overwrite)) is not None:
        return kept
    try:
        with work_folder(job.folder) as work:
            facts = make(job, work, progress)
            sounds = sorted(path.name for path in work.iterdir())
            write_whole(work / DONE_FILE, json.dumps({"key": job.key, "sounds": sounds, "facts": facts}))
            publish_folder(work, job.folder)
    except OSError as error:
        raise OutputError(
            f"{shown(job.folder)}: cannot be written ({error.strerror or error}); choose another --out or make room"
        ) from error
    return facts


def _kept(job: FileJob, folder: Path, overwrite: bool) -> Facts | None:
    """Return what an earlier run left, where it is whole; refuse to replace what was made otherwise."""
    from polyres.audio.file_names import shown

    if not folder.is_dir() or not any(folder.iterdir()):
        return None
    try:
        done = json_file(folder / DONE_FILE, special=True)
        key, sounds = done["key"], [folder / name for name in done.get("sounds", [])]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OutputError(f"{shown(folder)} is there and holds something else; choose another --out") from error
    if overwrite:
        return None
    if key != job.key:
        raise OutputError(
            f"{shown(folder)} was made of another file or with other settings; --overwrite makes it again"
        )
    if "facts" not in done or not all(path.is_file() for path in sounds):
        return None
    facts: Facts = done["facts"]
    return facts


def write_sound(path: Path, wave: Tensor, sample_rate_hz: int) -> None:
    """Write a wave `[C, T]`, its peaks kept; the ending of the path says the format."""
    from polyres.codec.track import write_blocks

    write_blocks([wave.detach().float().cpu()], path, sample_rate_hz, wave.shape[0])
