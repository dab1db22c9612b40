"""Results of many files as one JSON document that grows by a line per file, and is whole also after an interruption."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import typer

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class JsonTracks:
    """Prints `{head, "tracks": [` at the first file, a line per file as it finishes, and `]}` at the end.

    A line of a file is its JSON object, with a comma before it for all but the first.

    Args:
        head: what stands before the tracks.
        wanted: whether anything is printed at all.
    """

    def __init__(self, head: Mapping[str, Any], wanted: bool) -> None:
        self._head = head
        self.wanted = wanted
        self._count = 0
        self._begun = False

    def describe(self, head: Mapping[str, Any]) -> None:
        """Say what stands before the tracks, once that is known."""
        self._head = head

    def add(self, track: Mapping[str, Any]) -> None:
        """Print a finished file."""
        self._begin()
        self._print(("," if self._count else "") + json.dumps(track))
        self._count += 1

    def __enter__(self) -> JsonTracks:
        """Return the document."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the document; after an error that came before the first file nothing is printed."""
        interrupted = isinstance(error, KeyboardInterrupt)
        if error is not None and not interrupted and not self._begun:
            return
        self._begin()
        self._print('],\n"interrupted": true\n}' if interrupted else "]\n}")

    def _begin(self) -> None:
        if not self._begun:
            self._begun = True
            self._print(f'{json.dumps(self._head)[:-1]},\n"tracks": [')

    def _print(self, line: str) -> None:
        if self.wanted:
            with _undisturbed():
                typer.echo(line)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no signal cut a line in two."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
