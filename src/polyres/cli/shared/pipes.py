"""Files that come through stdin or leave through stdout (`-`); meanwhile they lie on disk."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from polyres.core.errors import ConfigError, InputError, OutputError, PolyresError
from polyres.core.whole_files import scratch_folder

if TYPE_CHECKING:
    from polyres.codec.track import Reconstruction
    from polyres.separation.files import TrackResult

    Result = TypeVar("Result", TrackResult, Reconstruction)

PIPE = Path("-")
_GIB = 1 << 30
_BLOCK_BYTES = 1 << 20
# Times are made of the content, so that the same sound from stdin is known again; all lie before 2007.
_TIME_BITS = 60

Name = Annotated[str, typer.Option(help="What the file from stdin is called in results.")]
Stream = Annotated[
    int | None,
    typer.Option(min=1, help="Which audio stream of a film, from 1; by default the one that it marks as its default."),
]
MaxStdin = Annotated[float, typer.Option("--max-stdin-gb", help="Most that is read from stdin (-), in GiB.")]


@dataclass(frozen=True)
class Piped:
    """Paths to work with.

    Attributes:
        paths: those given, with a file on disk in place of `-`.
        spooled: that file; None where stdin is not read.
        failed: whether stdin could not be used, and the other files are left.
    """

    paths: list[Path]
    spooled: Path | None
    failed: bool = False

    def words(self, text: str) -> str:
        """Call the file from stdin by its name in a message."""
        return text if self.spooled is None else text.replace(str(self.spooled), self.spooled.name)

    def told(self, result: Result) -> Result:
        """Return a result that does not speak of the file on disk."""
        if result.input != self.spooled:
            return result
        error = None if result.error is None else self.words(result.error)
        return replace(result, input=PIPE, warnings=tuple(map(self.words, result.warnings)), error=error)


@contextmanager
def from_stdin(paths: Sequence[Path], max_gb: float, name: str = "stdin") -> Iterator[Piped]:
    """Keep what comes through stdin in a file while it is needed, if it is asked for.

    Args:
        paths: files; `-` stands for stdin, `./-` for a file of this name.
        max_gb: most that is read, in GiB.
        name: of the file.

    Raises:
        InputError: if stdin is a terminal, empty, or longer than allowed.
        OutputError: if it cannot be kept.
    """
    if PIPE not in paths:
        yield Piped(list(paths), None)
        return
    from polyres.audio.file_names import safe_name

    if not max_gb > 0:
        raise ConfigError(f"--max-stdin-gb {max_gb:g} is not possible; give more than 0")
    with scratch_folder() as folder:
        spooled = folder / safe_name(name, 200)
        try:
            _spool(spooled, max_gb)
        except PolyresError as error:
            others = [path for path in paths if path != PIPE]
            if not others:
                raise
            typer.echo(f"error: {error}", err=True)
            yield Piped(others, None, failed=True)
            return
        piped = Piped([spooled if path == PIPE else path for path in paths], spooled)
        try:
            yield piped
        except PolyresError as error:
            raise type(error)(piped.words(str(error))) from error


def _spool(path: Path, max_gb: float) -> None:
    """Write stdin to a file."""
    source = None if sys.stdin is None else sys.stdin.buffer
    if source is None or sys.stdin.isatty():
        raise InputError("stdin is no file; write 'cat song.mp3 | polyres …', or give a file in place of -")
    digest, size = hashlib.blake2b(digest_size=8), 0
    try:
        with path.open("wb") as file:
            while block := source.read(_BLOCK_BYTES):
                size += len(block)
                if size > max_gb * _GIB:
                    raise InputError(f"stdin is longer than {max_gb:g} GiB; raise --max-stdin-gb, or give a file")
                digest.update(block)
                file.write(block)
        if not size:
            raise InputError("stdin is empty (0 bytes); see whether the program before the pipe has failed")
        time_ns = int.from_bytes(digest.digest()) >> (64 - _TIME_BITS)
        os.utime(path, ns=(time_ns, time_ns))
    except OSError as error:
        raise OutputError(
            f"stdin cannot be kept in {path.parent.parent} ({error.strerror or error}); "
            "make room, or set TMPDIR to a folder that has it"
        ) from error


@contextmanager
def to_stdout(out: Path, ending: str) -> Iterator[Path]:
    """Give the path to write to; what is written goes to stdout afterwards where `out` is `-`.

    Args:
        out: the file, or `-`.
        ending: of the file that is written for stdout, such as ".wav".

    Raises:
        OutputError: if stdout is a terminal.
    """
    if out != PIPE:
        yield out
        return
    if sys.stdout.isatty():
        raise OutputError("stdout is a terminal, which cannot play sound; pipe it on, or name a file with -o")
    with scratch_folder() as folder:
        path = folder / f"stdout{ending}"
        yield path
        sys.stdout.flush()
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()
