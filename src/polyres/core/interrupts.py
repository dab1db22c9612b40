"""Ctrl-C and SIGTERM that are not lost in functions that C libraries call back."""

from __future__ import annotations

import _thread
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import CodeType, FrameType
from typing import ParamSpec, TypeVar

_RETRY_S = 0.02
_CALLED_FROM_C: set[CodeType] = set()

Given = ParamSpec("Given")
Result = TypeVar("Result")


def called_from_c(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Mark a function that a C library calls; what it raises is dropped there, so an interruption waits for its end."""
    _CALLED_FROM_C.add(function.__code__)
    return function


@contextmanager
def interruptible(*numbers: signal.Signals) -> Iterator[None]:
    """Let signals end the work by KeyboardInterrupt, so that everything is cleaned up; afterwards all is as before.

    `numbers`: such as `signal.SIGTERM`; one that the process was told to ignore stays ignored.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        if not _is_in_callback(frame):
            raise KeyboardInterrupt
        again = threading.Timer(_RETRY_S, _thread.interrupt_main, (number,))
        again.daemon = True
        again.start()

    if threading.current_thread() is not threading.main_thread():  # only that may set handlers
        yield
        return
    chosen = [number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN]
    before = {number: signal.signal(number, interrupt) for number in chosen}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _is_in_callback(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _CALLED_FROM_C:
            return True
        frame = frame.f_back
    return False
