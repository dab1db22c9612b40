"""Train bandwidth extension: regenerate the band above a cutoff."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from polyres.codec.bandwidth import low_band
from polyres.codec.networks import build_network, save_network
from polyres.codec.tasks.config import ReconstructConfig
from polyres.codec.tasks.enhance import KINDS, MixtureData, MixtureTask, start_network, unchanged, validated
from polyres.nn.losses import MultiResolutionStft
from polyres.training.loading import Prepare
from polyres.training.task import Forward

TILT_FROM_HZ = 1000.0


def tilted(most_db_per_octave: float, sample_rate_hz: int, batch: Tensor, generator: torch.Generator) -> Tensor:
    """Tilt the spectra of a batch `[B, ..., T]` above 1 kHz, each item by a random slope."""
    slopes = (2 * torch.rand(len(batch), generator=generator) - 1) * most_db_per_octave
    bins_hz = torch.linspace(0, sample_rate_hz / 2, batch.shape[-1] // 2 + 1)
    octaves = (bins_hz / TILT_FROM_HZ).clamp_min(1).log2()
    gains = 10 ** (slopes.view(-1, *[1] * (batch.ndim - 1)) * octaves / 20)
    spectrum = torch.fft.rfft(batch) * gains.to(batch.device)
    return torch.fft.irfft(spectrum, n=batch.shape[-1])


class BandwidthTask(MixtureTask):
    """Trains the generator of a high band on mixtures of full bandwidth."""

    def __init__(self, config: ReconstructConfig) -> None:
        self.config = config
        self.data = MixtureData(config)
        self._loss = MultiResolutionStft(config.stft_n_fft)

    def build_model(self) -> nn.Module:
        """Return the generator with its first weights, or those of `init`."""
        model = build_network("bandwidth", self.config.bandwidth.to_dict(), self.config.seed)
        if self.config.init is not None:
            start_network(model, self.config.init, "bandwidth")
        return model

    def build_prepare(self) -> Prepare:
        """Return the augmentation: random spectral tilts above 1 kHz."""
        most = self.config.tilt_db_per_octave
        if most == 0:
            return unchanged
        return partial(tilted, most, self.config.data.sample_rate_hz)

    def losses(self, forward: Forward, batch: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Compare spectra of mixtures of stems `[B, S, C, T]` with those of the extended low bands."""
        distance = self._distance(forward, batch.sum(dim=1))
        return distance, {"stft": distance.detach()}

    def _distance(self, forward: Forward, full: Tensor) -> Tensor:
        extended = forward(low_band(full, self.config.bandwidth))
        return self._loss.to(full.device)(extended[:, None], full.to(extended.device)[:, None]).mean()

    def validate(self, forward: Forward) -> dict[str, float]:
        """Return the mean distance on the validation tracks, and that of the low band alone."""

        def one(full: Tensor) -> dict[str, float]:
            found = float(self._distance(forward, full))
            return {"score": -found, "stft": found, "stft_low_band": float(self._distance(lambda skip: skip, full))}

        return validated(self.data.excerpts(), one)

    def export(self, model: nn.Module, path: Path, card: Mapping[str, Any]) -> None:
        """Write weights that `load_network` reads."""
        save_network(KINDS["bandwidth"], model, path, card)
