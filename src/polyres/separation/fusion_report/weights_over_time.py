"""Finds what a run or a weight file tells about its fusions: tables of weights now, and over the epochs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyres.core.errors import AnalysisError
from polyres.core.json_text import json_value
from polyres.separation.bag import Bag
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.registry import load_model
from polyres.separation.variants import check_subject, config_from_yaml
from polyres.separation.weights import load_separator_weights
from polyres.training.checkpoint import load_state, under_prefix
from polyres.training.run_folder import BEST_FILE, CHECKPOINT_FILE, CONFIG_FILE, METRICS_FILE
from polyres.weights.files import fill, read_about

BEST, RAW, ONLY = "best", "raw", "saved"
AVERAGE_PREFIX = "ema_"


@dataclass(frozen=True)
class Epoch:
    """What a run wrote about its fusions after an epoch."""

    number: int
    weights: dict[str, Tensor]  # raw weights `[S, R]` by stage
    gradient_norms: dict[str, float]  # of every part of the model (`branch@4096`), where the run took them


@dataclass
class FusionSubject:
    """A model with several resolutions, all sets of weights it comes with, and its past.

    `states`: full state dicts by name: best, raw, ema_…; a weight file alone has `saved`. Empty for a run that has not
    saved any yet.
    """

    name: str
    model: Separator
    states: dict[str, dict[str, Tensor]]
    epochs: list[Epoch] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def use(self, name: str) -> Separator:
        """Put a set of weights into the model."""
        if name not in self.states:
            there = ", ".join(self.states) or "none yet: the run has not saved any"
            raise AnalysisError(f"{self.name} has no weights {name!r}; there are: {there}")
        fill(self.model, self.states[name], f"{self.name} ({name})")
        return self.model.eval()


def load_fusion_subject(given: str) -> FusionSubject:
    """Find the weights and the past of a model.

    `given`: a run folder, its checkpoint, a weight file, or a model known by name. Raises AnalysisError when the folder
    holds no run, the metrics are damaged, or there is nothing to fuse; WeightsError when weights cannot be read;
    TrainingError when a checkpoint cannot be read; ConfigError when the config of a run cannot be read, or nothing has
    that name.
    """
    check_subject(given)
    path = Path(given).expanduser()
    if path.is_dir() and ((path / CONFIG_FILE).exists() or (path / METRICS_FILE).exists()):
        return _from_run(given, path)
    if path.is_dir() and not (path / BEST_FILE).exists():
        raise AnalysisError(f"{given} is no run: it has no {CONFIG_FILE}; give a folder that polyres train made")
    if path.is_file() and path.suffix == ".safetensors" and _is_checkpoint(path):
        if not (path.parent / CONFIG_FILE).exists():
            raise AnalysisError(f"{given} lies without the {CONFIG_FILE} of its run; give the folder of the run")
        subject = _from_run(given, path.parent)
        subject.states.pop(BEST, None)
        return subject
    model = load_model(given)
    if isinstance(model, Bag):
        raise AnalysisError(f"{given} is a bag of {len(model.models)} models; give the weight file of one of them")
    check_resolutions(given, model.config)
    return FusionSubject(given, model, {ONLY: dict(model.state_dict())})


def check_resolutions(name: str, config: SeparatorConfig) -> None:
    """Refuse a model that has nothing to fuse."""
    if len(config.n_fft) < 2:
        raise AnalysisError(
            f"{name} has one resolution (n_fft {config.n_fft[0]}), so there is nothing to fuse; "
            "give a model with two or more"
        )


def _is_checkpoint(path: Path) -> bool:
    return read_about(path).get("kind") == "run"


def _from_run(given: str, folder: Path) -> FusionSubject:
    if not (folder / CONFIG_FILE).exists():
        raise AnalysisError(f"{given} is no whole run: it has no {CONFIG_FILE}; restore it")
    config = config_from_yaml(folder / CONFIG_FILE)
    check_resolutions(given, config)
    subject = FusionSubject(given, Separator(config).eval(), {})
    if (folder / BEST_FILE).exists():
        best = load_separator_weights(folder / BEST_FILE)
        if (best.config.n_fft, best.sources) != (config.n_fft, config.sources):
            raise AnalysisError(f"{folder / BEST_FILE} is of another model than {folder / CONFIG_FILE}; restore them")
        subject.states[BEST] = dict(best.state_dict())
    if (folder / CHECKPOINT_FILE).exists():
        subject.states.update(_states_of(folder / CHECKPOINT_FILE, subject.model))
    subject.epochs, notes = read_epochs(folder / METRICS_FILE, config)
    subject.notes += notes
    if not subject.states and not subject.epochs:
        raise AnalysisError(f"{given} has neither weights nor finished epochs yet; wait for the first epoch to end")
    return subject


def _states_of(path: Path, model: Separator) -> dict[str, dict[str, Tensor]]:
    """Read raw and averaged weights of a checkpoint."""
    tensors, _ = load_state(path)
    raw = under_prefix("model", tensors)
    names = list(dict.fromkeys(name.partition("/")[0] for name in tensors))
    states = {RAW: raw}
    for name in names:
        if name.startswith(AVERAGE_PREFIX):
            states[name] = {**raw, **under_prefix(name, tensors)}
    for name, state in states.items():
        fill(model, state, f"{path} ({name})")
    return states


def read_epochs(path: Path, config: SeparatorConfig) -> tuple[list[Epoch], list[str]]:
    """Read what a run wrote about its fusions; a last line cut by a crash is left out."""
    if not path.exists():
        return [], [f"There is no {METRICS_FILE}: nothing is known about earlier epochs."]
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AnalysisError(f"cannot read {path}: {error}; restore the file") from error
    epochs, notes = [], []
    for number, line in enumerate(lines, start=1):
        try:
            row = json_value(line, special=True)
        except ValueError as error:
            if number == len(lines):
                notes.append(f"The last line of {METRICS_FILE} is cut; it was left out.")
                continue
            raise AnalysisError(f"{path}, line {number}: not JSON ({error}); restore the file") from error
        epochs.append(_epoch(row, config, f"{path}, line {number}"))
    if epochs and not any(epoch.weights for epoch in epochs):
        notes.append("None of the fusions has weights, so there is no line over the epochs.")
    return epochs, notes


def _epoch(row: Any, config: SeparatorConfig, where: str) -> Epoch:
    if not isinstance(row, Mapping) or not isinstance(row.get("epoch"), int):
        raise AnalysisError(f"{where}: no row of an epoch (it has no 'epoch'); restore the file")
    given, norms = row.get("fusion"), row.get("grad_norms") or {}
    if not isinstance(given, Mapping) or not isinstance(norms, Mapping):
        raise AnalysisError(f"{where}: the row has no 'fusion'; was this run made by polyres train for a separator?")
    shape = (len(config.sources), len(config.n_fft))
    weights = {}
    for stage, values in given.items():
        try:
            table = torch.tensor(values, dtype=torch.float64)
        except (TypeError, ValueError) as error:
            raise AnalysisError(
                f"{where}: the weights of {stage!r} are no table of numbers; restore the file"
            ) from error
        if tuple(table.shape) != shape:
            raise AnalysisError(
                f"{where}: the weights of {stage!r} are {list(table.shape)}, but the model has {shape[0]} sources and "
                f"{shape[1]} resolutions; the file is of another run"
            )
        weights[str(stage)] = table
    return Epoch(row["epoch"], weights, {str(name): float(value) for name, value in norms.items()})
