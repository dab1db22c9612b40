"""Levels of stems that belong together: one gain for all, and sums that equal the mixture."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.errors import InputError

# Largest value that a 16-bit file can hold.
INTEGER_CEILING = 32767.0 / 32768.0


def peak_level(wave: Tensor) -> float:
    """Largest absolute sample value.

    Args:
        wave: any shape, may be empty.

    Returns:
        Peak, 0 for an empty tensor.
    """
    return float(wave.abs().max()) if wave.numel() else 0.0


def shared_gain(peak: float, ceiling: float = INTEGER_CEILING) -> float:
    """Gain that keeps all stems of a track below full scale without changing their balance.

    Args:
        peak: largest absolute sample over all stems.
        ceiling: largest value allowed, > 0.

    Returns:
        1.0 where nothing exceeds full scale (1.0), else ceiling / peak.
    """
    return ceiling / peak if peak > 1.0 else 1.0


def spread_residual(stems: Tensor, mix: Tensor) -> Tensor:
    """Mixture consistency: give every stem an equal part of what is missing, so that the stems sum to the mixture.

    Equal parts are the smallest change (in the least-squares sense) that makes the sum right. What float32 rounding
    then still leaves goes to the smallest stem of each sample, where steps are finest.

    Args:
        stems: `[S, C, T]` float32, S >= 1.
        mix: `[C, T]` float32.

    Returns:
        `[S, C, T]` float32 whose sum (taken in float64) is the mixture to within the rounding of its smallest stem.

    Raises:
        InputError: when the shapes do not belong together.

    Source:
        Wisdom et al., "Differentiable Consistency Constraints for Improved Deep Speech Enhancement", ICASSP 2019.
    """
    if stems.ndim != mix.ndim + 1 or stems.shape[1:] != mix.shape:
        raise InputError(
            f"stems of shape {tuple(stems.shape)} do not fit a mixture of shape {tuple(mix.shape)}; "
            "expected [S, C, T] and [C, T]"
        )
    wanted = mix.double()
    residual = wanted - stems.double().sum(dim=0)
    spread = (stems.double() + residual / stems.shape[0]).to(stems.dtype)
    for _ in range(2):  # the second round clears the rounding of the first where the smallest stem has changed
        left = wanted - spread.double().sum(dim=0)
        smallest = spread.abs().argmin(dim=0, keepdim=True)
        picked = spread.gather(0, smallest).double() + left.unsqueeze(0)
        spread = spread.scatter(0, smallest, picked.to(stems.dtype))
    return spread


def mono_mean_m2(wave: Tensor) -> tuple[int, float, float]:
    """Count, mean and sum of squared deviations of the channel mean, in float64.

    Args:
        wave: `[C, T]`, T >= 0.

    Returns:
        (samples, mean, sum of squared deviations); (0, 0, 0) for an empty block.
    """
    mono = wave.to(torch.float64).mean(dim=0)
    if mono.numel() == 0:
        return 0, 0.0, 0.0
    mean = mono.mean()
    return mono.numel(), float(mean), float(((mono - mean) ** 2).sum())


class RunningLevel:
    """Mean and standard deviation of the mono mixture over a stream of blocks, in float64."""

    def __init__(self) -> None:
        """Start with no samples."""
        self.count = 0
        self.mean = 0.0
        self._m2 = 0.0

    def push(self, wave: Tensor) -> None:
        """Take in one block.

        Args:
            wave: `[C, n]`, n >= 0.
        """
        count, mean, m2 = mono_mean_m2(wave)
        if count == 0:
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean += delta * count / total
        self._m2 += m2 + delta * delta * self.count * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Unbiased standard deviation; 0 for fewer than two samples."""
        return float((self._m2 / (self.count - 1)) ** 0.5) if self.count > 1 else 0.0
