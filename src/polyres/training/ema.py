"""Running averages of weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from polyres.core.errors import TrainingError


class Ema:
    """Exponential moving average of a model's parameters after every step or epoch, free of start-up bias.

    After t updates it equals `sum_i d^(t-i) w_i / sum_i d^(t-i)`: the first update alone counts fully, so that short
    runs and large decays are not dragged towards the random start.

    Source: the bias correction of Kingma & Ba 2015, section 3, folded into the update.
    """

    def __init__(self, model: nn.Module, decay: float, unit: Literal["step", "epoch"] = "step") -> None:
        """Start an average that has seen nothing yet."""
        self.decay, self.unit = decay, unit
        self.num_updates = 0
        self._names = [name for name, _ in model.named_parameters()]
        self._parameters = [parameter for _, parameter in model.named_parameters()]
        self._averages = [parameter.detach().clone() for parameter in self._parameters]

    @property
    def name(self) -> str:
        """Name in metrics and checkpoints, such as `ema_0.999` or `ema_epoch_0.9`."""
        return f"ema_{self.decay:g}" if self.unit == "step" else f"ema_epoch_{self.decay:g}"

    def length_steps(self, steps_per_epoch: int) -> float:
        """Return over how many steps it averages in the long run."""
        return (steps_per_epoch if self.unit == "epoch" else 1) / (1.0 - self.decay)

    @torch.no_grad()
    def distance(self) -> float:
        """Return the L2 norm of the difference between parameters and averages, relative to that of the parameters."""
        pairs = zip(self._parameters, self._averages, strict=True)
        difference = torch.stack([(p.double() - a.double()).norm() for p, a in pairs]).norm()
        whole = torch.stack([p.double().norm() for p in self._parameters]).norm()
        return (difference / whole).item() if whole > 0 else 0.0

    @torch.no_grad()
    def update(self) -> None:
        """Take in the parameters as they are now."""
        self.num_updates += 1
        share = (1.0 - self.decay) / (1.0 - self.decay**self.num_updates)
        torch._foreach_lerp_(self._averages, [p.detach() for p in self._parameters], share)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Put the averages into the model for the length of a `with` block, then the very same weights back."""
        kept = [parameter.detach().clone() for parameter in self._parameters]
        self._write(self._averages)
        try:
            yield
        finally:
            self._write(kept)

    @torch.no_grad()
    def _write(self, values: list[Tensor]) -> None:
        """Copy values into the model's parameters."""
        for parameter, value in zip(self._parameters, values, strict=True):
            parameter.copy_(value)

    def state(self) -> dict[str, Tensor]:
        """Return the averages by parameter name."""
        return dict(zip(self._names, self._averages, strict=True))

    def load(self, tensors: Mapping[str, Tensor], num_updates: int) -> None:
        """Continue from a saved state."""
        if set(tensors) != set(self._names):
            odd = sorted(set(tensors) ^ set(self._names))[0]
            raise TrainingError(f"the saved {self.name} does not fit the model (first difference: {odd})")
        for name, average in zip(self._names, self._averages, strict=True):
            if tensors[name].shape != average.shape:
                raise TrainingError(
                    f"the saved {self.name} does not fit the model ({name} has the shape {tuple(tensors[name].shape)} "
                    f"there and {tuple(average.shape)} here)"
                )
            average.copy_(tensors[name])
        self.num_updates = num_updates
