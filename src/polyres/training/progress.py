"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn


class RunDisplay:
    """Shows progress on standard error; a context manager."""

    def __init__(self, every_s: float, shown: bool = True) -> None:
        """Prepare the display.

        Args:
            every_s: seconds between two lines where there is no terminal.
            shown: whether anything is shown at all.
        """
        self._every_s, self._shown = every_s, shown
        self._last_s = -float("inf")
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console) if shown and console.is_terminal else None
        self._task = self._bar.add_task("", total=1.0) if self._bar else None

    def __enter__(self) -> Self:
        """Start drawing."""
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        if self._bar:
            self._bar.stop()

    def update(self, progress: float, text: str) -> None:
        """Show how far the run is, if it is time to.

        Args:
            progress: share of the run that is over, 0 to 1.
            text: what else to say.
        """
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress, description=text)
        elif time.monotonic() - self._last_s >= self._every_s:
            self._last_s = time.monotonic()
            self.say(f"{100 * progress:5.1f} %  {text}")

    def say(self, text: str) -> None:
        """Print one line that stays.

        Args:
            text: the line.
        """
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        elif self._shown:
            print(text, file=sys.stderr, flush=True)
