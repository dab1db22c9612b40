"""An original and its reconstruction, with the spectra that metrics of reconstruction share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.metrics.bands import bin_energies
from polyres.metrics.reconstruction_level import matched
from polyres.metrics.reconstruction_spectra import RECONSTRUCTION_BANDS_HZ, metric_magnitude, metric_mel
from polyres.ops.input_level import level_of
from polyres.ops.mel import MelConfig, log_mel


@dataclass(frozen=True)
class Pair:
    """An original and its reconstruction; spectra that several metrics need are made once.

    Attributes:
        reference: `[C, T]`, float64.
        estimate: same shape.
        sample_rate_hz: of both.
    """

    reference: Tensor
    estimate: Tensor
    sample_rate_hz: int

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
