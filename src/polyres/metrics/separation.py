"""How close separated stems come to the true ones, in decibels, for batches of waveforms."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.dsp.axes import check_axes

ENERGY_FLOOR = 1e-7
"""Energy added above and below the fraction, so that silence has a finite value."""


def checked(reference: Tensor, estimate: Tensor) -> tuple[Tensor, Tensor]:
    """Return both waveforms `[..., C, T]` in float64 after checking that they fit each other."""
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

    `reference`: true waveforms `[..., C, T]`; `estimate`: separated waveforms of the same shape. Returns
    `10 log10((sum reference² + 1e-7) / (sum (reference − estimate)² + 1e-7))` in dB, float64 `[...]`; silence as the
    estimate scores 0 dB. Raises InputError if the shapes differ or lack the axes C and T.

    Source: Mitsufuji et al. 2022, Music Demixing Challenge 2021, equation 1.
    """
    reference, estimate = checked(reference, estimate)
    signal = reference.square().sum(dim=(-2, -1))
    distortion = (reference - estimate).square().sum(dim=(-2, -1))
    return 10 * torch.log10((signal + ENERGY_FLOOR) / (distortion + ENERGY_FLOOR))


def snr(reference: Tensor, estimate: Tensor) -> Tensor:
    """Signal-to-noise ratio without any floor; a perfect estimate is infinitely good.

    `reference`: true waveforms `[..., C, T]`; `estimate`: separated waveforms of the same shape. Returns
    `10 log10(sum reference² / sum (reference − estimate)²)` in dB, float64 `[...]`; NaN where both are silent. Raises
    InputError if the shapes differ or lack the axes C and T.
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


BANDS_HZ: dict[str, tuple[float, float]] = {
    "sub": (0.0, 60.0),
    "bass": (60.0, 250.0),
    "low_mid": (250.0, 500.0),
    "mid": (500.0, 2000.0),
    "presence": (2000.0, 6000.0),
    "air": (6000.0, math.inf),
}
SILENT_SHARE = 1e-20
"""A band with less than this share of the energy holds rounding, not a signal."""


def band_sdr(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> dict[str, Tensor]:
    """Split `nsdr` of `[C, T]` into the bands of `BANDS_HZ`, in dB; NaN where the reference is silent in a band.

    Source: nSDR (Mitsufuji et al. 2022, equation 1) on the bins of the transform of the whole signal (Parseval).
    """
    reference, estimate = checked(reference, estimate)
    if sample_rate_hz <= 0:
        raise InputError(f"sample_rate_hz must be above 0, got {sample_rate_hz}")
    length = reference.shape[-1]
    signal, error = bin_energies(reference), bin_energies(reference - estimate)
    bins_hz = torch.fft.rfftfreq(length, 1 / sample_rate_hz, dtype=torch.float64, device=reference.device)
    silence = signal.sum() * SILENT_SHARE
    ratios = {}
    for name, (low_hz, high_hz) in BANDS_HZ.items():
        inside = (bins_hz >= low_hz) & (bins_hz < high_hz)
        wanted, lost = signal[inside].sum(), error[inside].sum()
        ratio = 10 * torch.log10((wanted + ENERGY_FLOOR) / (lost + ENERGY_FLOOR))
        ratios[name] = torch.where(wanted > silence, ratio, torch.full_like(ratio, torch.nan))
    return ratios


def bin_energies(wave: Tensor) -> Tensor:
    """Energy of a real signal `[C, T]` by frequency bin, over all channels; the sum is that in time."""
    length = wave.shape[-1]
    total = torch.zeros(length // 2 + 1, dtype=torch.float64, device=wave.device)
    for channel in wave:
        total += torch.view_as_real(torch.fft.rfft(channel)).square_().sum(dim=-1)
    total[1 : (length + 1) // 2] *= 2
    return total / length
