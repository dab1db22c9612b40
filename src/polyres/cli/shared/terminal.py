"""Texts on the terminal: examples of commands, tables, progress, and results of many files as one JSON document."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from polyres.batch.jobs import Job
    from polyres.core.tables import Table

PIPE_WIDTH = 200


def examples(*lines: str) -> str:
    """Put examples, and sentences after them, into the form of an epilog: each line is a paragraph of its own."""
    return "\n\n".join(("Examples:", *lines))


def tell_note(line: str) -> None:
    """Print a line that is good to know on stderr."""
    typer.echo(f"note: {line}", err=True)


def console(pipe_width: int = PIPE_WIDTH) -> Console:
    """Return where tables go; a pipe has no width of its own, so there every row stays on one line."""
    from rich.console import Console

    return Console() if sys.stdout.isatty() else Console(width=pipe_width)


def print_tables(tables: Iterable[Table], markdown: bool) -> None:
    """Print tables one below the other, in columns or as Markdown."""
    if markdown:
        typer.echo("\n".join(table.markdown() for table in tables), nl=False)
        return
    from rich.table import Table as Columns
    from rich.text import Text

    out = console()
    for index, table in enumerate(tables):
        columns = Columns(box=None, pad_edge=False)
        for column, title in enumerate(table.header):
            columns.add_column(Text(title), justify="left" if column < table.text_columns else "right", overflow="fold")
        for row in table.rows:
            columns.add_row(*(Text(cell) for cell in row))
        if index:
            out.print()
        if table.title:
            out.print(Text(table.title, style="bold"))
        out.print(columns)
        for note in table.notes:
            out.print(Text(note, style="dim"))


SIGNALS = (signal.SIGINT, signal.SIGTERM)


class JsonTracks:
    """Prints `{head, "tracks": [` at the first file, a line per file as it finishes, and `]}` at the end, if wanted."""

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

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
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


MAX_LABEL = 32


class Bars:
    """Bars on stderr with the time left; silent where stderr is not a terminal."""

    def __init__(self, total: int) -> None:
        """Prepare bars for `total` files."""
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            Progress,
            TaskProgressColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        console = Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._total = self._bars.add_task("all files", total=total, visible=total > 1)

    def __enter__(self) -> Bars:
        """Show the bars."""
        self._bars.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: object) -> None:
        """Take the bars away."""
        self._bars.stop()

    @contextmanager
    def track(self, job: Job) -> Iterator[Callable[[float], None]]:
        """Show a bar for one file; what it gives is called with the finished share."""
        from rich.markup import escape

        from polyres.audio.file_names import shown

        name = shown(job.input.name)
        label = escape(name if len(name) <= MAX_LABEL else name[: MAX_LABEL - 1] + "…")
        task = self._bars.add_task(label, total=1.0)
        done = 0.0

        def show(share: float) -> None:
            nonlocal done
            self._bars.update(task, completed=share)
            self._bars.advance(self._total, share - done)
            done = share

        try:
            yield show
        finally:
            self._bars.remove_task(task)
            self._bars.advance(self._total, 1.0 - done)
