"""Where a run stands, how it ended, and how both are worded."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from polyres.training.schedules import Plateau


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
