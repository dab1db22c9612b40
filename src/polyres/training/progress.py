"""How far a run is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import FrameType, TracebackType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from polyres.training.optim import Plateau


class RunDisplay:
    """Shows progress on standard error; a context manager."""

    def __init__(self, every_s: float, shown: bool = True) -> None:
        """Prepare the display."""
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
        """Show how far the run is, if it is time to."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=progress, description=text)
        elif time.monotonic() - self._last_s >= self._every_s:
            self._last_s = time.monotonic()
            self.say(f"{100 * progress:5.1f} %  {text}")

    def say(self, text: str) -> None:
        """Print one line that stays."""
        if self._bar is not None:
            self._bar.console.print(text, highlight=False)
        elif self._shown:
            print(text, file=sys.stderr, flush=True)


def add(sums: dict[str, float], name: str, value: float) -> None:
    """Add to a sum of the epoch.

    `name`: of the sum; names that start with `loss/`, `seconds/` or `grad_norms/` are shown together.
    """
    sums[name] = sums.get(name, 0.0) + value


@contextmanager
def timed(sums: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that a block takes to the sum `seconds/NAME`."""
    start = time.perf_counter()
    yield
    add(sums, f"seconds/{name}", time.perf_counter() - start)


def under(sums: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return the sums whose names start with `PREFIX/`, without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in sums.items() if name.startswith(f"{prefix}/")}


def epoch_figures(sums: Mapping[str, float]) -> dict[str, Any]:
    """Turn the sums of an epoch into means."""
    steps = max(sums.get("steps", 0.0), 1.0)
    unskipped = max(steps - sums.get("skipped", 0.0), 1.0)
    seconds = under(sums, "seconds")
    seconds["loss"] = seconds.pop("forward_and_loss", 0.0) - seconds.get("forward", 0.0)
    whole_s = sum(seconds.values())
    norm_steps = max(sums.get("grad_norms_steps", 0.0), 1.0)
    figures: dict[str, Any] = {
        "loss": {name: value / steps for name, value in under(sums, "loss").items()},
        "grad_norm": sums.get("grad_norm", 0.0) / unskipped,
        "grad_norms": {name: value / norm_steps for name, value in under(sums, "grad_norms").items()},
        "ms_per_step": {name: round(1000 * value / steps, 2) for name, value in seconds.items()},
        "waiting_share": round(seconds.get("data", 0.0) / whole_s, 4) if whole_s > 0 else 0.0,
    }
    if sums.get("skipped"):
        figures["skipped_steps"] = int(sums["skipped"])
    return figures


@dataclass
class RunState:
    """Where a run stands; together with tensors, all that is needed to go on."""

    step: int = 0
    closed_step: int = 0
    """The last step whose epoch row has been written."""
    elapsed_s: float = 0.0
    validation_s: float = 0.0
    """What the last validation took."""
    averaged_step: int = 0
    """The last step that the averages by epoch have seen."""
    averaged_epochs: int = 0
    """How often they have been updated."""
    lr: float = 0.0
    """The rate of the last step."""
    best: dict[str, Any] | None = None
    plateau: Plateau = field(default_factory=Plateau)
    """What a schedule that goes by validation has seen."""
    sums: dict[str, float] = field(default_factory=dict)
    """Sums over the steps since the last row."""


@dataclass(frozen=True)
class TrainResult:
    """How a run ended."""

    finished: bool
    stopped_by: int | None
    step: int
    epoch: int
    elapsed_s: float
    best: dict[str, Any] | None


def row_text(row: Mapping[str, Any]) -> str:
    """Word an epoch in one line; scores of single resolutions (`drums@4096`) are left to the files."""
    parts = [f"epoch {row['epoch']}", f"step {row['step']}", f"loss {row['loss']['total']:.5f}", f"lr {row['lr']:.2e}"]
    for weights, scores in row["valid"].items():
        shown = {name: value for name, value in scores.items() if "@" not in name}
        parts.append(f"{weights} " + " ".join(f"{name} {value:.2f}" for name, value in shown.items()))
    return "  ".join(parts)


def peak_memory_mb(device: torch.device) -> float | None:
    """Return the most memory used so far: of the GPU if that trains, else of this process; None where unknown."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


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
