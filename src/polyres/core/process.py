"""This process: how much of the machine it may use, how its threads wait, and how signals interrupt it."""

from __future__ import annotations

import _thread
import functools
import math
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import CodeType, FrameType
from typing import Literal, ParamSpec, TypeVar

WAITING_VARIABLES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", "KMP_LIBRARY")
THREADS_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_LARGEST_KEPT_BYTES = 2**25 - 2**16
_ROUNDING = 0.25
"""Processors of a quota that are rounded up: one thread more than there is time for makes all others wait."""


@dataclass(frozen=True)
class CpuSettings:
    """What `tune_cpu` has settled.

    `waiting`: `passive` if threads that wait leave the processor to others, `given` if the user's environment says how
    they wait, `too late` if torch was loaded before and goes on as it began.
    """

    threads: int
    waiting: Literal["passive", "given", "too late"]


def usable_processors(root: Path = Path("/")) -> int:
    """Count the processors that this process may keep busy.

    The affinity mask and the CPU quotas of its control groups (versions 1 and 2) count, not the machine alone.

    `root`: where `proc` and `sys` are. Returns 1 or more. A quota of 1.75 counts as 2, one of 1.5 as 1.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for quota in _quotas(root) if quota > 0]
    return max(1, min([count, *(math.floor(quota + _ROUNDING) for quota in quotas)]))


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quotas of this process's control groups and of those around them, in processors.

    Source: cgroups(7); Linux kernel documentation, admin-guide/cgroup-v2 (`cpu.max`) and scheduler/sched-bwc.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    mounted = root / "sys/fs/cgroup"
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if controllers and "cpu" not in controllers.split(","):
            continue
        tops = (mounted / controllers, mounted / "cpu") if controllers else (mounted, mounted / "unified")
        inside = PurePosixPath(group.lstrip("/"))
        for top in tops:
            for place in (inside, *inside.parents):
                if ".." not in place.parts:
                    yield from _quota_of(top / place)


def _quota_of(folder: Path) -> Iterator[float]:
    """Yield the quota of one control group, if it has one."""
    try:
        if (folder / "cpu.max").is_file():
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / name).read_text() for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
        yield float(quota) / float(period)
    except (OSError, ValueError, ZeroDivisionError):  # no such group, no quota ("max"), or not readable
        return


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep blocks of up to 32 MiB that it frees, so that the next ones need no new pages.

    The GNU C library raises its thresholds, up to this size, to that of the largest mapped block that was ever freed;
    below them every array of some MiB is mapped, faulted in page by page, and given back. No page of the block that
    is freed here is ever touched. Elsewhere nothing happens.

    Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD, dynamic adjustment.
    """
    bytes(_LARGEST_KEPT_BYTES)


def tune_cpu(threads: int | None = None, environment: MutableMapping[str, str] | None = None) -> CpuSettings:
    """Make torch a good neighbour: as many threads as there is processor time, which sleep while they wait.

    Threads that spin while they wait for each other cost little on an idle machine, but on a busy one they take the
    processor from those that they wait for. Call this before torch is imported: how threads wait is fixed then. What
    the environment sets already (`OMP_WAIT_POLICY`, `OMP_NUM_THREADS` and their like) stays.

    `threads`: threads to compute with; by default those of the environment, else the processors that the affinity mask
    and the CPU quota leave. `environment`: of the process; given in tests. Raises ValueError if `threads` is below 1.

    Source: OpenMP 5.2, section 21.2 (`OMP_WAIT_POLICY`).
    """
    if threads is not None and threads < 1:
        raise ValueError(f"threads is {threads}; it must be 1 or more")
    keep_freed_memory()
    environment = os.environ if environment is None else environment
    torch = sys.modules.get("torch")
    waiting: Literal["passive", "given", "too late"] = "given"
    if not any(environment.get(name) for name in WAITING_VARIABLES):
        waiting = "passive" if torch is None else "too late"
        if torch is None:
            environment["OMP_WAIT_POLICY"] = "PASSIVE"
    elif environment.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" and torch is None:
        waiting = "passive"
    given = next((value for name in THREADS_VARIABLES if (value := environment.get(name))), None)
    if threads is None and given is not None:
        first = given.split(",")[0].strip()
        wanted = int(first) if first.isdecimal() and int(first) else usable_processors()
    else:
        wanted = usable_processors() if threads is None else threads
        environment["OMP_NUM_THREADS"] = str(wanted)
    if torch is not None:
        torch.set_num_threads(wanted)
    return CpuSettings(wanted, waiting)


_RETRY_S = 0.02
_CALLED_FROM_C: set[CodeType] = set()

Given = ParamSpec("Given")
Result = TypeVar("Result")


def called_from_c(function: Callable[Given, Result]) -> Callable[Given, Result]:
    """Mark a function that a C library calls; what it raises is dropped there, so an interruption waits for its end."""
    _CALLED_FROM_C.add(function.__code__)
    return function


@contextmanager
def handled(handler: Callable[[int, FrameType | None], object], *numbers: signal.Signals) -> Iterator[None]:
    """Give signals to a handler and then back; outside the main thread, which alone may do so, nothing happens."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)


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

    with handled(interrupt, *(number for number in numbers if signal.getsignal(number) is not signal.SIG_IGN)):
        yield


def _is_in_callback(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code in _CALLED_FROM_C:
            return True
        frame = frame.f_back
    return False
