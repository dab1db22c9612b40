"""What the solver asks of the thing it trains."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar

from pydantic import field_validator, model_validator
from torch import Tensor, nn

from polyres.core.errors import TrainingError
from polyres.datasets.layouts import check_split
from polyres.synth.cache import MadeConfig, is_made, make_root, root_of
from polyres.training.config import ValidConfig
from polyres.training.loading import Prepare, SegmentSource

Forward = Callable[..., Any]
"""Runs the model; whatever is passed goes to the model's own `forward` unchanged."""
Model = TypeVar("Model", bound=nn.Module)


class Task(Protocol[Model]):
    """What is trained: builds the parts, turns batches into losses and models into scores."""

    def build_model(self) -> Model:
        """Return the model with its first weights."""

    def build_source(self) -> SegmentSource:
        """Return the training data."""

    def build_prepare(self) -> Prepare:
        """Return what mixes and augments a batch; it must pickle, for it runs in the worker processes."""

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Return what is minimised, and its terms to be logged."""

    def validate(self, forward: Forward) -> dict[str, float]:
        """Return scores; the one called `score` decides which weights are best. No scores, no choice."""

    def describe(self, model: Model) -> dict[str, Any]:
        """Return facts about the model worth a place in every row of the metrics."""

    def gradient_norms(self, model: Model) -> dict[str, float]:
        """Return the L2 norms of the gradients that the model's parameters hold now, by part of the model."""

    def export(self, model: Model, path: Path, card: Mapping[str, Any]) -> None:
        """Write weights that are ready to use."""


class TrackValidConfig(ValidConfig):
    """On what, how and how often a separator is validated."""

    layout: str = "stems"  # how the tracks lie in all roots
    split: Literal["all", "train", "valid", "test"] = "all"  # which of them count, where the layout has splits
    branches: bool = True  # also score every resolution's own estimate, from the same forward pass

    @field_validator("roots", mode="before")
    @classmethod
    def _made_are_roots(cls, roots: Any) -> Any:
        """Turn `make: {...}` into roots."""
        return [root_of(root) for root in roots] if isinstance(roots, list | tuple) else roots

    @model_validator(mode="after")
    def _layout_has_split(self) -> TrackValidConfig:
        """Refuse unknown layouts and splits that a layout does not have."""
        check_split(self.layout, self.split)
        return self


def resolve_roots(roots: tuple[str, ...], data_dir: str | None) -> tuple[str, ...]:
    """Turn the roots of a recipe into folders; those that say what to make are made.

    `data_dir`: what relative ones are relative to; the working directory if None. Raises TrainingError if one is not
    there; InputError if what is needed to make one is not there; OutputError if one that is made cannot be written.
    """
    found = []
    for root in roots:
        if is_made(root):
            found.append(str(make_root(MadeConfig.from_root(root), data_dir, report=_report)))
            continue
        path = Path(data_dir or ".") / Path(root).expanduser()
        if not path.is_dir():
            raise TrainingError(f"there is no folder {path} (root {root!r}); set the folder of your data with --data")
        found.append(str(path))
    return tuple(found)


def _report(line: str) -> None:
    """Print to standard error, which keeps standard output for results."""
    print(line, file=sys.stderr, flush=True)
