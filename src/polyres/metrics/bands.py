"""Signal-to-distortion ratio of parts of the spectrum."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics.separation import ENERGY_FLOOR, checked

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
    """Split the ratio of `nsdr` into six bands with sharp edges; energies of the bands add up to those of the whole.

    Args:
        reference: true waveform `[C, T]`.
        estimate: separated waveform of the same shape.
        sample_rate_hz: of both, > 0.

    Returns:
        By band of `BANDS_HZ`, `10 log10((reference energy + 1e-7) / (error energy + 1e-7))` in dB, float64 scalars;
        a band that is silent in the reference is NaN.

    Raises:
        InputError: if the shapes differ or lack the axes C and T, or the rate is not positive.

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
