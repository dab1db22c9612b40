"""How close separated stems come to the true ones, in decibels, for batches of waveforms."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.ops.axes import check_axes

ENERGY_FLOOR = 1e-7
"""Energy added above and below the fraction, so that silence has a finite value."""


def checked(reference: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Return both waveforms in float64 after making sure that they fit each other.

    Args:
        reference: true waveforms `[..., C, T]`.
        estimate: separated waveforms of the same shape.

    Returns:
        Both in float64.

    Raises:
        InputError: if the shapes differ or lack the axes C and T.
    """
    if reference.shape != estimate.shape:
        raise InputError(
            f"the reference is {list(reference.shape)} but the estimate {list(estimate.shape)}; shapes must match"
        )
    if reference.dim() < 2:
        raise InputError(f"waveforms need at least the axes [C, T], got {list(reference.shape)}")
    check_axes(reference.shape, "reference")
    return reference.double(), estimate.double()


def nsdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Signal-to-distortion ratio of the 2021 Music Demixing challenge: one number for the whole signal.

    Args:
        reference: true waveforms `[..., C, T]`.
        estimate: separated waveforms of the same shape.

    Returns:
        `10 log10((sum reference² + 1e-7) / (sum (reference − estimate)² + 1e-7))` in dB, float64 `[...]`;
        silence as the estimate scores 0 dB.

    Raises:
        InputError: if the shapes differ or lack the axes C and T.

    Source: Mitsufuji et al. 2022, Music Demixing Challenge 2021, equation 1.
    """
    reference, estimate = checked(reference, estimate)
    signal = reference.square().sum(dim=(-2, -1))
    distortion = (reference - estimate).square().sum(dim=(-2, -1))
    return 10 * torch.log10((signal + ENERGY_FLOOR) / (distortion + ENERGY_FLOOR))


def snr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Signal-to-noise ratio without any floor; a perfect estimate is infinitely good.

    Args:
        reference: true waveforms `[..., C, T]`.
        estimate: separated waveforms of the same shape.

    Returns:
        `10 log10(sum reference² / sum (reference − estimate)²)` in dB, float64 `[...]`; NaN where both are silent.

    Raises:
        InputError: if the shapes differ or lack the axes C and T.
    """
    reference, estimate = checked(reference, estimate)
    noise = (reference - estimate).square().sum(dim=(-2, -1))
    return 10 * torch.log10(reference.square().sum(dim=(-2, -1)) / noise)


def si_sdr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Scale-invariant signal-to-distortion ratio: the estimate's own gain does not count.

    The mean is not removed, and all channels of a signal share one gain.

    Args:
        reference: true waveforms `[..., C, T]`.
        estimate: separated waveforms of the same shape.

    Returns:
        The ratio of the estimate's part along the reference to the rest, in dB, float64 `[...]`, whatever the levels of
        both; +inf for a multiple of the reference, -inf for what is orthogonal to it, NaN where either is silent.

    Raises:
        InputError: if the shapes differ or lack the axes C and T.

    Source: Le Roux et al. 2019, SDR – half-baked or well done?, equation 4.
    """
    reference, estimate = (wave / wave.abs().amax(dim=(-2, -1), keepdim=True) for wave in checked(reference, estimate))
    gain = (reference * estimate).sum(dim=(-2, -1), keepdim=True)
    target = gain / reference.square().sum(dim=(-2, -1), keepdim=True) * reference
    return 10 * torch.log10(target.square().sum(dim=(-2, -1)) / (target - estimate).square().sum(dim=(-2, -1)))
