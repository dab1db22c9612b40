"""Mean and peak of whole files, taken away before a codec and given back after it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from polyres.core.errors import InputError

PEAK = 0.5
"""Peak that AudioLDM's training set has."""

_GUARD = 1e-8  # added to the peak, so that silence stays silence


@dataclass(frozen=True)
class InputLevel:
    """Measured levels of a file, per channel."""

    mean: Tensor  # `[..., 1]` float64
    gain: Tensor  # `[..., 1]` float64, > 0

    def apply(self, wave: Tensor) -> Tensor:
        """Remove the mean and bring the peak to 0.5. `wave`: `[..., T]` or any block of it, float32 or float64."""
        return ((wave.double() - self.mean.to(wave.device)) * self.gain.to(wave.device)).to(wave.dtype)

    def undo(self, wave: Tensor) -> Tensor:
        """Give gain and mean back: undo(apply(x)) is x but for the rounding of the type.

        `wave`: `[..., T]` or any block of it, float32 or float64.
        """
        return (wave.double() / self.gain.to(wave.device) + self.mean.to(wave.device)).to(wave.dtype)


class InputLevelMeter:
    """Measures a file block by block, each channel on its own."""

    def __init__(self) -> None:
        self._count = 0
        self._sum: Tensor | None = None
        self._low: Tensor | None = None
        self._high: Tensor | None = None

    def push(self, block: Tensor) -> None:
        """Take in one block. `block`: `[..., n]`, n >= 0; the same channels every time."""
        if block.shape[-1] == 0:
            return
        wide = block.double()
        total, low, high = wide.sum(-1, keepdim=True), wide.amin(-1, keepdim=True), wide.amax(-1, keepdim=True)
        self._sum = total if self._sum is None else self._sum + total
        self._low = low if self._low is None else torch.minimum(self._low, low)
        self._high = high if self._high is None else torch.maximum(self._high, high)
        self._count += block.shape[-1]

    def level(self) -> InputLevel:
        """Return the level of all blocks so far. Raises InputError when there was no sample."""
        if self._sum is None or self._low is None or self._high is None:
            raise InputError("the signal has 0 samples; its level cannot be measured")
        mean = self._sum / self._count
        peak = torch.maximum(self._high - mean, mean - self._low)
        return InputLevel(mean, PEAK / (peak + _GUARD))


def level_of(wave: Tensor) -> InputLevel:
    """Measure a whole signal.

    `wave`: `[..., T]`, T >= 1. Returns its level, to be applied before a front end and undone after the codec. Raises
    InputError when there is no sample.

    Source: AudioLDM-training-finetuning, utilities/data/dataset.py: less the mean, over the peak, times 0.5.
    """
    meter = InputLevelMeter()
    meter.push(wave)
    return meter.level()
