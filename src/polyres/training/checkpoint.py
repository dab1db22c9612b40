"""The state of a run in one file: tensors as safetensors, everything else as JSON in its header."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.plugins import Precision
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from polyres.core.errors import OutputError, TrainingError, WeightsError
from polyres.core.whole_files import replaced_atomically
from polyres.training.optim import Ema, Plateau
from polyres.training.progress import RunState
from polyres.weights.files import METADATA_KEY as HEADER_KEY
from polyres.weights.files import read_about, read_tensors

FORMAT = 1


def save_state(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts, so that the file is either the old or the new one, never half.

    `tensors`: by name; any shape and dtype. `facts`: anything JSON can hold; floats survive exactly. Raises OutputError
    if the file cannot be written.
    """
    header = {HEADER_KEY: json.dumps({"format": FORMAT, "kind": "run", **facts})}
    # Copies: safetensors refuses tensors that share memory.
    copies = {name: t.detach().cpu().clone(memory_format=torch.contiguous_format) for name, t in tensors.items()}
    try:
        with replaced_atomically(path) as partial:
            save_file(copies, partial, header)
            with partial.open("rb+") as file:
                os.fsync(file.fileno())  # a disk may say only now that it is full
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {path}: {error}; make room or choose another folder") from error


def load_state(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote.

    Returns the tensors by name (on the CPU), and the facts. Raises TrainingError if the file is missing, damaged or
    something else.
    """
    try:
        facts, tensors = read_about(path), read_tensors(path)
    except WeightsError as error:
        raise TrainingError(
            f"cannot read the checkpoint {path}: {error}; resume from a run folder that has one"
        ) from error
    if facts.get("kind") != "run" or facts.get("format") != FORMAT:
        raise TrainingError(f"{path} is not a training checkpoint of format {FORMAT}; give the folder of a run")
    return tensors, facts


def with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors under names that start with `prefix/`."""
    return {f"{prefix}/{name}": tensor for name, tensor in tensors.items()}


def under_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with `prefix/`, without it."""
    start = f"{prefix}/"
    return {name.removeprefix(start): tensor for name, tensor in tensors.items() if name.startswith(start)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state as tensors named `INDEX/KEY`."""
    state = optimiser.state_dict()["state"]
    return {
        f"{index}/{key}": torch.as_tensor(value)
        for index, entry in state.items()
        for key, value in entry.items()
        if value is not None
    }


def load_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give an optimiser the state that `optimiser_tensors` returned; rates and groups stay its own."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, key = name.partition("/")
        if not index.isdecimal() or int(index) >= len(parameters):
            raise TrainingError(f"there is no parameter for the saved {name!r}; resume with the recipe of that run")
        shape = parameters[int(index)].shape
        if tensor.ndim > 0 and tensor.shape != shape:
            raise TrainingError(
                f"the saved {name!r} has the shape {tuple(tensor.shape)} and its parameter {tuple(shape)}; "
                "resume with the recipe of that run"
            )
        state.setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})


@dataclass
class Parts:
    """Everything of a run that changes while it trains, except where it stands."""

    model: nn.Module
    optimiser: torch.optim.Optimizer
    averages: Sequence[Ema]
    precision: Precision
    """Holds the factor of gradient scaling, where there is one."""


def save_run(path: Path, parts: Parts, state: RunState, identity: Mapping[str, Any]) -> None:
    """Write the checkpoint of a run."""
    tensors = with_prefix("model", parts.model.state_dict())
    tensors |= with_prefix("optimiser", optimiser_tensors(parts.optimiser))
    for ema in parts.averages:
        tensors |= with_prefix(ema.name, ema.state())
    facts = {"state": asdict(state), "run": dict(identity), "precision": parts.precision.state_dict()}
    save_state(path, tensors, facts)


def restore_run(path: Path, parts: Parts) -> RunState:
    """Put a checkpoint back, bit for bit."""
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
