"""Stopping on a signal at a moment that suits."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class StopRequest:
    """Notes SIGTERM and Ctrl-C inside a `with` block, instead of ending the program; a second Ctrl-C stops at once.

    SIGTERM may come twice, to the process and to its group, and is then still one request. Outside the main thread,
    where Python takes no signals, it notes nothing.
    """

    def __init__(self) -> None:
        """Note nothing yet."""
        self.number: int | None = None
        """The signal that came, if one did."""
        self._before: dict[int, object] = {}

    def _note(self, number: int, frame: FrameType | None) -> None:
        """Take a signal."""
        if number == signal.SIGINT and self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> Self:
        """Take the signals over."""
        self.number = None
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the signals back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before = {}
