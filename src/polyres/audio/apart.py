"""Decode untrusted files in a separate process with limits on time, memory and disk."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from polyres.audio.file_names import shown
from polyres.audio.files import AudioReader
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import InputError, PolyresError

Room = Callable[[int], None]

MAX_MEMORY_BYTES = 2 << 30
MAX_S = 60.0
_BLOCK_SAMPLES = 1 << 16
_LINE_BYTES = 1 << 16
_COMMAND = [sys.executable, "-m", "polyres.audio.apart"]


def decode(source: Path, target: Path, max_minutes: float, room: Room) -> list[str]:
    """Decode a file to a WAV file of 32-bit floats, which are exactly the samples of `AudioReader`.

    Args:
        target: WAV file to write; it gets the tags as well.
        max_minutes: the longest that is decoded.
        room: called before anything is written, with the bytes that the target takes; where the length is not
            known, with the most.

    Raises:
        InputError: As `AudioReader`; or it is too long.
        OutputError: The target cannot be written.
    """
    with AudioReader(source) as reader:
        info = reader.info
        most = int(max_minutes * 60 * info.sample_rate_hz)
        too_long = InputError(f"{shown(source)} is longer than {max_minutes:g} minutes, the most that is taken; cut it")
        length = most if info.length_samples is None else info.length_samples
        if length > most:
            raise too_long
        room(4 * info.channels * length)
        with AudioWriter(target, WriteSpec(info.sample_rate_hz, info.channels, "wav", "float", info.tags)) as writer:
            for block in reader.blocks(_BLOCK_SAMPLES):
                writer.write(block)
                if writer.written_samples > most:
                    raise too_long
    return reader.warnings


def decode_apart(source: Path, target: Path, max_minutes: float, room: Room, max_s: float = MAX_S) -> list[str]:
    """Run `decode` in a process that is ended when it takes too long or too much memory.

    Args:
        max_minutes: the longest that is decoded.
        room: as for `decode`; what it raises ends the process.
        max_s: how long it may take, in seconds.

    Raises:
        InputError: As `decode`; or it took too long, or the decoder broke down.
    """
    # One thread of arithmetic is enough, and each more reserves memory.
    environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [*_COMMAND, str(source), str(target), str(max_minutes), str(max_s)]
    pipe, late = subprocess.PIPE, threading.Event()
    with subprocess.Popen(
        command, bufsize=0, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, env=environment
    ) as child:

        def end() -> None:
            late.set()
            child.kill()

        timer = threading.Timer(max_s, end)
        timer.start()
        try:
            told = _line(child.stdout)
            if "bytes" in told:
                room(int(told["bytes"]))
                _tell(child.stdin, {})
                told = _line(child.stdout)
        finally:
            timer.cancel()
            child.kill()
    if "warnings" in told:
        return list(told["warnings"])
    why = f"took longer than {max_s:g} s" if late.is_set() else "its decoder broke down"
    raise InputError(told.get("error", f"{shown(source)} cannot be read as audio ({why}); convert it to wav or flac"))


def _tell(stream: IO[bytes] | None, message: dict[str, Any]) -> None:
    if stream is not None:
        with suppress(OSError):  # the other side is gone, which reading will show
            stream.write(json.dumps(message).encode() + b"\n")
            stream.flush()


def _line(stream: IO[bytes] | None) -> dict[str, Any]:
    """Read one message; an empty one where the other side is gone."""
    try:
        return dict(json.loads(stream.readline(_LINE_BYTES))) if stream is not None else {}
    except ValueError:
        return {}


def _limit(max_s: float) -> None:
    """Set resource limits of this process, where the system has them."""
    with suppress(AttributeError):
        signal.alarm(math.ceil(max_s) + 1)
    with suppress(ImportError):
        import resource

        limits = {"RLIMIT_AS": MAX_MEMORY_BYTES, "RLIMIT_CPU": math.ceil(max_s) + 1, "RLIMIT_CORE": 0}
        for name, most in limits.items():
            with suppress(AttributeError, OSError, ValueError):
                resource.setrlimit(getattr(resource, name), (most, most))


def _main(arguments: Sequence[str]) -> None:
    """Serve one call of `decode_apart`."""
    source, target, max_minutes, max_s = arguments
    _limit(float(max_s))
    told = sys.stdout.buffer

    def room(more_bytes: int) -> None:
        _tell(told, {"bytes": more_bytes})
        if not sys.stdin.buffer.readline():
            sys.exit(1)

    try:
        _tell(told, {"warnings": decode(Path(source), Path(target), float(max_minutes), room)})
    except PolyresError as error:
        _tell(told, {"error": str(error)})


if __name__ == "__main__":
    _main(sys.argv[1:])
