"""Progress on the terminal: one bar for the current track, one for all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from polyres.audio.file_names import shown

if TYPE_CHECKING:
    from polyres.batch.jobs import Job

MAX_LABEL = 32


class Bars:
    """Bars on stderr with the time left; silent where stderr is not a terminal."""

    def __init__(self, total: int) -> None:
        """Prepare bars for `total` files."""
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

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bars away."""
        self._bars.stop()

    @contextmanager
    def track(self, job: Job) -> Iterator[Callable[[float], None]]:
        """Show a bar for one file; what it gives is called with the finished share."""
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
