"""Level, gain and delay of a reconstruction against its original."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.dsp.input_level import level_of
from polyres.dsp.levels import LoudnessMeter
from polyres.dsp.mel import MelConfig, log_mel
from polyres.metrics.reconstruction.spectra import RECONSTRUCTION_BANDS_HZ, metric_magnitude, metric_mel
from polyres.metrics.separation import bin_energies, checked

LAG_SEARCH_S = 0.1
"""How far the delay of a reconstruction is looked for, either way."""
LAG_CORRELATION = 0.1
"""Correlation below which two waveforms are taken to have nothing in common, so that a delay means nothing."""


@dataclass(frozen=True)
class Lag:
    """Delay of one signal against another."""

    samples: float  # > 0 if the estimate is late; a fraction where the peak lies between samples
    correlation: float  # of the signals when aligned to the nearest sample, -1 to 1; negative for turned polarity


def correlation(reference: Tensor, estimate: Tensor) -> Tensor:
    """Cosine between two waveforms `[..., C, T]` over all channels, without removing means; NaN where one is silent."""
    reference, estimate = checked(reference, estimate)
    energies = reference.square().sum(dim=(-2, -1)) * estimate.square().sum(dim=(-2, -1))
    cosine = (reference * estimate).sum(dim=(-2, -1)) / energies.sqrt()
    return torch.where(energies > 0, cosine.clamp(-1, 1), torch.full_like(cosine, torch.nan))


def gain_db(reference: Tensor, estimate: Tensor) -> Tensor:
    """Level of the estimate over that of the reference.

    `reference`: `[..., C, T]`. Returns dB, float64 `[...]`; -inf for a silent estimate, NaN for a silent reference.
    Raises InputError if the shapes differ or lack the axes C and T.
    """
    reference, estimate = checked(reference, estimate)
    energy = reference.square().sum(dim=(-2, -1))
    ratio = 10 * torch.log10(estimate.square().sum(dim=(-2, -1)) / energy)
    return torch.where(energy > 0, ratio, torch.full_like(ratio, torch.nan))


def matched(reference: Tensor, estimate: Tensor) -> Tensor:
    """Bring the estimate to the level of the reference.

    `reference`: `[C, T]`. Returns the estimate with the energy of the reference; as it was if either is silent. Raises
    InputError if the shapes differ or lack the axes C and T.
    """
    level_db = float(gain_db(reference, estimate))
    return estimate if not math.isfinite(level_db) else estimate * 10 ** (-level_db / 20)


def estimate_lag(reference: Tensor, estimate: Tensor, most_samples: int) -> Lag:
    """Find the delay at which two signals are most alike, by cross-correlation over all channels.

    `reference`: `[C, T]`; `most_samples`: largest delay looked for, either way, >= 1. Returns the delay, refined by a
    parabola through the peak; samples and correlation are NaN where one is silent. Raises InputError if the shapes
    differ or lack the axes C and T, or most_samples is not positive.
    """
    reference, estimate = checked(reference, estimate)
    if most_samples < 1:
        raise InputError(f"most_samples must be at least 1, got {most_samples}")
    length = reference.shape[-1]
    most = min(most_samples, length - 1)
    energy = float(reference.square().sum() * estimate.square().sum())
    if energy <= 0:
        return Lag(math.nan, math.nan)
    size = 2 ** math.ceil(math.log2(length + most + 1))
    product = torch.fft.rfft(estimate, size) * torch.fft.rfft(reference, size).conj()
    circular = torch.fft.irfft(product.sum(dim=-2), size) / math.sqrt(energy)
    # From the earliest delay to the latest.
    likeness = torch.cat([circular[size - most :], circular[: most + 1]])
    best = int(likeness.abs().argmax())
    shift = 0.0
    if 0 < best < len(likeness) - 1:
        before, peak, after = (float(likeness[best + step].abs()) for step in (-1, 0, 1))
        bend = before - 2 * peak + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return Lag(best - most + shift, float(likeness[best]))


def lag_samples(reference: Tensor, estimate: Tensor, sample_rate_hz: int) -> float:
    """Delay of the estimate in samples within 0.1 s, > 0 if it is late; NaN if there is no common signal."""
    lag = estimate_lag(reference, estimate, max(1, round(LAG_SEARCH_S * sample_rate_hz)))
    return lag.samples if abs(lag.correlation) >= LAG_CORRELATION else math.nan


def loudness_lufs(wave: Tensor, sample_rate_hz: int) -> float:
    """Integrated loudness of `[C, T]` in LUFS; -120 for what never passes the gate. Source: ITU-R BS.1770-4."""
    meter = LoudnessMeter(sample_rate_hz, wave.shape[0])
    meter.push(wave.detach().cpu().numpy())
    return meter.integrated_lufs()


@dataclass(frozen=True)
class Pair:
    """An original and its reconstruction; spectra that several metrics need are computed once."""

    reference: Tensor  # `[C, T]`, float64
    estimate: Tensor  # same shape
    sample_rate_hz: int  # of both

    @cached_property
    def levelled(self) -> tuple[Tensor, Tensor]:
        """Both with the gain that brings the reference to a peak of 0.5, so that floors are where they belong."""
        gain = level_of(self.reference.reshape(-1)).gain
        gain = gain if bool(self.reference.any()) else torch.ones_like(gain)
        return self.reference * gain, self.estimate * gain

    @cached_property
    def mel_config(self) -> MelConfig:
        """Front end of the mel metrics."""
        return metric_mel(self.sample_rate_hz)

    @cached_property
    def mels(self) -> tuple[Tensor, Tensor]:
        """Log-mel spectra `[C, N, M]`; signals shorter than a window are filled up with zeros."""
        config = self.mel_config
        missing = max(0, config.n_fft - self.reference.shape[-1])
        wanted, given = (log_mel(F.pad(wave, (0, missing)), config) for wave in self.levelled)
        return wanted, given

    @cached_property
    def magnitudes(self) -> tuple[Tensor, Tensor]:
        """Magnitudes `[C, F, N]`, the estimate as loud as the reference."""
        reference, estimate = self.levelled
        rate = self.sample_rate_hz
        return metric_magnitude(reference, rate), metric_magnitude(matched(reference, estimate), rate)

    @cached_property
    def band_energies(self) -> dict[str, tuple[float, float]]:
        """Energy of reference and estimate by band."""
        rate, length = self.sample_rate_hz, self.reference.shape[-1]
        bins_hz = torch.fft.rfftfreq(length, 1 / rate, dtype=torch.float64, device=self.reference.device)
        energies = [bin_energies(wave) for wave in (self.reference, self.estimate)]
        found = {}
        for band, (low_hz, high_hz) in RECONSTRUCTION_BANDS_HZ.items():
            inside = (bins_hz >= low_hz) & (bins_hz < high_hz)
            wanted, given = (float(energy[inside].sum()) for energy in energies)
            found[band] = (wanted, given)
        return found
