"""What a checkpoint of a run holds, and how it is put back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from torch import Tensor, nn

from polyres.core.errors import TrainingError
from polyres.training.checkpoint import (
    load_optimiser,
    load_state,
    optimiser_tensors,
    save_state,
    under_prefix,
    with_prefix,
)
from polyres.training.ema import Ema
from polyres.training.schedules import Plateau
from polyres.training.state import RunState


@dataclass
class Parts:
    """Everything of a run that changes while it trains, except where it stands."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    averages: Sequence[Ema]
    precision: Precision
    """Holds the factor of gradient scaling, where there is one."""


def save_run(path: Path, parts: Parts, state: RunState, identity: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run.

    Args:
        path: the file.
        parts: what was trained.
        state: where the run stands.
        identity: of the run.

    Raises:
        OutputError: if it cannot be written; the one before stays as it was.
    """
    tensors = with_prefix("model", parts.model.state_dict())
    tensors |= with_prefix("optimiser", optimiser_tensors(parts.optimiser))
    for ema in parts.averages:
        tensors |= with_prefix(ema.name, ema.state())
    facts = {"state": asdict(state), "run": dict(identity), "precision": parts.precision.state_dict()}
    save_state(path, tensors, facts)


def restore_run(path: Path, parts: Parts) -> RunState:
    """Put a checkpoint back, bit for bit.

    Args:
        path: the file that `save_run` wrote.
        parts: built as for the run that was saved; they are overwritten.

    Returns:
        Where the run stood.

    Raises:
        TrainingError: if the file is damaged or does not fit; names the first tensor that differs.
    """
    tensors, facts = load_state(path)
    state = _state(path, facts.get("state"))
    saved = under_prefix("model", tensors)
    _check_model(path, saved, parts.model)
    parts.model.load_state_dict(saved)
    try:
        load_optimiser(parts.optimiser, under_prefix("optimiser", tensors))
    except TrainingError as error:
        raise TrainingError(f"{path} does not fit the optimiser: {error}") from error
    for ema in parts.averages:
        num_updates = state.step if ema.unit == "step" else state.averaged_epochs
        ema.load(under_prefix(ema.name, tensors), num_updates)
    parts.precision.load_state_dict(facts.get("precision", {}))
    return state


def _state(path: Path, saved: Any) -> RunState:
    """Read where the run stood."""
    unknown = ["state"]
    if isinstance(saved, Mapping):
        plateau = saved.get("plateau", {})
        unknown = sorted(set(saved) - _names(RunState)) + sorted(set(plateau) - _names(Plateau))
    if unknown:
        raise TrainingError(
            f"{path} has an entry {unknown[0]!r} that this version does not know; resume with the version that wrote it"
        )
    return RunState(**{**saved, "plateau": Plateau(**saved.get("plateau", {}))})


def _names(kind: type) -> set[str]:
    """Return the names of a dataclass's fields."""
    return {field.name for field in fields(kind)}


def _check_model(path: Path, saved: Mapping[str, Tensor], model: nn.Module) -> None:
    """Refuse weights of another model before any is loaded."""
    wanted = model.state_dict()
    for name in [*wanted, *(name for name in saved if name not in wanted)]:
        there = tuple(saved[name].shape) if name in saved else None
        here = tuple(wanted[name].shape) if name in wanted else None
        if there == here:
            continue
        difference = f"{name} has the shape {there} there and {here} here"
        if there is None:
            difference = f"{name} is missing there"
        elif here is None:
            difference = f"{name} is not part of the model"
        raise TrainingError(f"{path} does not fit the model: {difference}; resume with the recipe of that run")
