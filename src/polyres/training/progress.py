"""How far a run is: its state and figures, shown on a terminal and in TensorBoard, and requests to stop it."""

from __future__ import annotations

import signal
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Any, Self

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from polyres.core.errors import TrainingError
from polyres.core.process import handled
from polyres.training.optim import Plateau

BOARD_FOLDER = "tensorboard"
LEFT_OUT = frozenset({"step", "best"})
"""What is no curve: the axis itself, and what stands in another row already."""


def check_board() -> None:
    """Find out whether TensorBoard is there."""
    if find_spec("tensorboard") is None:
        raise TrainingError(
            "tensorboard: true needs the package tensorboard; install it with: pip install 'polyres[tensorboard]', "
            "or set tensorboard: false"
        )


def scalars(row: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of a row under names such as `loss/total`; members of lists are numbered."""
    for key, value in row.items():
        if not prefix and key in LEFT_OUT:
            continue
        if isinstance(value, list | tuple):
            value = {str(number): member for number, member in enumerate(value)}
        if isinstance(value, Mapping):
            yield from scalars(value, f"{prefix}{key}/")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{prefix}{key}", float(value)


class Board:
    """Writes rows as curves; a context manager. One that is switched off does nothing."""

    def __init__(self, run: Path, first_step: int, on: bool) -> None:
        self._folder, self._first_step, self._on = run / BOARD_FOLDER, first_step, on
        self._writer: Any = None

    def __enter__(self) -> Self:
        if self._on:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # those of the package on import are its own
                from torch.utils.tensorboard import SummaryWriter
            self._writer = SummaryWriter(str(self._folder), purge_step=self._first_step)
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write(self, row: Mapping[str, Any]) -> None:
        """Add a row."""
        if self._writer is not None:
            for name, value in scalars(row):
                self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()


class RunDisplay:
    """Shows progress on standard error; a context manager."""

    def __init__(self, every_s: float, shown: bool = True) -> None:
        self._every_s, self._shown = every_s, shown
        self._last_s = -float("inf")
        console = Console(stderr=True)
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
        self._bar = Progress(*columns, console=console) if shown and console.is_terminal else None
        self._task = self._bar.add_task("", total=1.0) if self._bar else None

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
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

    number: int | None = None
    """The signal that came, if one did."""

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT and self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def __enter__(self) -> Self:
        self.number = None
        self._handling = handled(self._note, signal.SIGTERM, signal.SIGINT)
        self._handling.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._handling.__exit__(None, None, None)
