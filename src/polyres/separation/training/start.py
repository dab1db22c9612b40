"""Models to start from, and models to learn from (distillation)."""

from __future__ import annotations

import torch
from pydantic import Field, field_validator
from torch import Tensor

from polyres.core.config import Config, diff
from polyres.core.errors import ConfigError, TrainingError, WeightsError
from polyres.nn.losses import LOSSES, LossConfig, WeightedLoss
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.registry import load_model
from polyres.weights.files import fill

MOST_DIFFERENCES = 3


def load_start(name: str, key: str) -> Separator:
    """Load a model that a recipe names."""
    try:
        model = load_model(name)
    except (WeightsError, ConfigError) as error:
        raise TrainingError(f"{key} is {name!r}: {error}") from error
    if not isinstance(model, Separator):
        raise TrainingError(f"{key} is {name!r}, a bag of {len(model.models)} models; give the weights of one model")
    return model


def start_from(model: Separator, name: str) -> None:
    """Give a model the weights that `init` names.

    `name`: a weight file, a run folder, or a name of `polyres models`. Raises TrainingError if they cannot be loaded or
    are those of another model; names the first tensor that differs.
    """
    source = load_start(name, "init")
    try:
        fill(model, source.state_dict(), name)
    except WeightsError as error:
        differences = diff(source.config, model.config)
        shown = [f"{key} {there!r} there, {here!r} here" for key, (there, here) in differences.items()]
        more = f" and {len(shown) - MOST_DIFFERENCES} more" if len(shown) > MOST_DIFFERENCES else ""
        raise TrainingError(
            f"init does not fit the recipe's model: {error} ({'; '.join(shown[:MOST_DIFFERENCES])}{more})"
        ) from error


PRECISIONS = {"bf16": torch.bfloat16, "fp16": torch.float16}


class DistilConfig(Config):
    """From whom to learn, and how much.

    `teacher`: a weight file, a run folder, or a name of `polyres models`. `weight`: share of the teacher in what is
    minimised, 0 to 1; the true stems have the rest. `kind`: name of the distance between the two models' estimates,
    such as `l1` or `share`.
    """

    teacher: str
    weight: float = Field(default=0.5, ge=0, le=1)
    kind: str = "l1"

    @field_validator("kind")
    @classmethod
    def _known(cls, kind: str) -> str:
        """Refuse unknown names."""
        LOSSES.get(kind)
        return kind


class Teacher:
    """A frozen model and the distance to it. It is no part of the student, so no checkpoint holds it."""

    def __init__(self, config: DistilConfig, student: SeparatorConfig, loss: LossConfig, precision: str) -> None:
        """Load the teacher."""
        self.model = load_start(config.teacher, "distil.teacher").requires_grad_(False)
        for key in ("sources", "sample_rate_hz", "audio_channels"):
            wanted, given = getattr(student, key), getattr(self.model, key)
            if wanted != given:
                raise TrainingError(
                    f"distil.teacher {config.teacher!r} has {key} {given!r} but the recipe's model {wanted!r}; "
                    "give a teacher with the same"
                )
        distance = {"terms": {config.kind: 1.0}, "branch_weight": 0.0}
        self._loss = WeightedLoss(loss.with_values(distance), len(student.sources))
        self._dtype = PRECISIONS.get(precision)

    def distance(self, mix: Tensor, estimate: Tensor) -> Tensor:
        """Compare estimates of a mixture with the teacher's.

        `mix`: `[B, C, T]`; `estimate`: the student's `[B, S, C, T]`, which alone gets a gradient.
        """
        model = self.model.to(mix.device)
        with torch.no_grad(), torch.autocast(mix.device.type, self._dtype, enabled=self._dtype is not None):
            taught = model(mix)
        return self._loss.to(mix.device)(estimate, taught.to(estimate.dtype))[0]
