"""Printing that never stops the work: any text in any encoding, also where nobody reads it."""

from __future__ import annotations

import io
import os
import select
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO


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
    """Make printing safe: what an encoding lacks is escaped, and a reader who went away stops nothing.

    Returns:
        A function to call at the end: it writes out what is left on stdout and returns the error for which a part of
        the text is lost, or None; a reader who closed the pipe (`| head`) is no error.
    """
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
