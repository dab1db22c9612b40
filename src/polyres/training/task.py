"""What the solver asks of the thing it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from torch import Tensor, nn

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
