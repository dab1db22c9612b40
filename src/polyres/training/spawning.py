"""Processes that train together, started by this one; by spawning alone, which every platform can."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

from lightning_fabric import Fabric
from lightning_fabric.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from torch import distributed
from torch.multiprocessing import ProcessExitedException

T = TypeVar("T")


class _Box:
    """Carries a value past the launcher, which would look for tensors inside it."""

    def __init__(self, content: Any) -> None:
        self.content = content


def _boxed(fabric: Fabric, function: Callable[..., Any], *arguments: Any) -> _Box:
    """Call a function in one of the processes."""
    box = _Box(function(fabric, *arguments))
    # Left to the end of the process, threads of the group can outlive what they use and abort a run that has finished.
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    return box


def is_to_be_spawned(fabric: Fabric) -> bool:
    """Say whether this process is there to start others, not to train.

    Args:
        fabric: not launched yet.
    """
    return isinstance(fabric.strategy.launcher, _MultiProcessingLauncher)


def spawned(fabric: Fabric, function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in as many processes as there are devices, and wait for them.

    SIGTERM and Ctrl-C are passed on, and the processes are left the time to stop as they see fit.

    Args:
        fabric: for several processes, not launched yet.
        function: takes the launched fabric and the arguments; must be found under its name in its module.
        arguments: what pickles.

    Returns:
        What the function returned in the first process.

    Raises:
        SystemExit: if a signal came before the processes were ready for it.
    """
    port = os.environ.get("MASTER_PORT")
    with _passed_on() as seen:
        try:
            launch: Callable[..., _Box] = fabric.launch
            return launch(_boxed, function, *arguments).content
        except ProcessExitedException as error:
            if seen:
                raise SystemExit(128 + seen[0]) from error
            raise
        finally:
            if port is None:
                os.environ.pop("MASTER_PORT", None)  # the launcher leaves it behind


@contextmanager
def _passed_on() -> Iterator[list[int]]:
    """Pass signals on to the child processes as SIGTERM; yields the list of those that came."""
    seen: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if sys.platform != "win32":  # there a terminal's Ctrl-C reaches all, and terminating leaves no time to stop
            for child in multiprocessing.active_children():
                child.terminate()

    if threading.current_thread() is not threading.main_thread():
        yield seen
        return
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield seen
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
