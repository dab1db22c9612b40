"""Files that come through stdin or leave through stdout (`-`), and printing that never stops the work."""

from __future__ import annotations

import hashlib
import io
import os
import select
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, TypeVar

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
    """Paths to work with."""

    paths: list[Path]  # those given, with a file on disk in place of `-`
    spooled: Path | None  # that file; None where stdin is not read
    failed: bool = False  # whether stdin could not be used, and the other files are left

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
    """Keep stdin, where a path is `-`, in a file called `name` while it is needed; at most `max_gb` GiB are read."""
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
    """Give the path to write to; where `out` is `-`, a file of this ending, which goes to stdout afterwards."""
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


class _Pipe(io.RawIOBase):
    """A file descriptor for writing that keeps the system's first error instead of raising it."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.error: OSError | None = None

    def writable(self) -> bool:
        """Say that it takes bytes."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._number

    def isatty(self) -> bool:
        """Say whether a person looks on."""
        return os.isatty(self._number)

    def write(self, content: object) -> int:
        """Write some or all of the bytes and return how many; after an error all of them go nowhere."""
        data = memoryview(content)  # type: ignore[arg-type]
        while self.error is None:
            try:
                return os.write(self._number, data)
            except BlockingIOError:  # a pipe that another program made so
                select.select([], [self._number], [])
            except OSError as error:
                self.error = error
        return data.nbytes


def prepare_streams() -> Callable[[], OSError | None]:
    """Make printing safe: what an encoding lacks is escaped, and a reader who went away stops nothing."""
    sys.stdout, pipe = _safe(sys.stdout, sys.__stdout__)
    sys.stderr, _ = _safe(sys.stderr, sys.__stderr__)
    stdout = sys.stdout

    def lost() -> OSError | None:
        with suppress(ValueError):  # closed by someone else
            stdout.flush()
        error = None if pipe is None else pipe.error
        return None if isinstance(error, BrokenPipeError) else error

    return lost


def _safe(stream: TextIO | None, original: TextIO | None) -> tuple[TextIO, _Pipe | None]:
    """Return a stream that takes any text, and its pipe where it is the process's own."""
    if stream is None:  # the process was started without it
        return open(os.devnull, "w", encoding="utf-8"), None
    buffer = getattr(stream, "buffer", None)
    raw = getattr(buffer, "raw", buffer)  # no buffer between them with PYTHONUNBUFFERED
    if stream is original and isinstance(raw, io.FileIO):
        stream.flush()
        pipe = _Pipe(raw.fileno())
        buffered = io.BufferedWriter(pipe)
        is_line_by_line = pipe.isatty() or stream is sys.__stderr__
        return io.TextIOWrapper(buffered, stream.encoding, "backslashreplace", line_buffering=is_line_by_line), pipe
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    return stream, raw if isinstance(raw, _Pipe) else None
