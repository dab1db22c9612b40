"""Small models that behave as the real ones do from outside."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from polyres.separation.ensemble import Ensemble, Member
from polyres.separation.load import torch_runner

SOURCES = ("drums", "bass", "other", "vocals")


class GainModel(nn.Module):
    """Every source is the mixture times a fixed gain."""

    def __init__(self, gains: Sequence[float], segment_samples: int = 1000) -> None:
        super().__init__()
        self.gains = nn.Parameter(torch.tensor(gains, dtype=torch.float32))
        self.segment_samples = segment_samples
        self.lengths: list[int] = []
        self.batches: list[int] = []

    def forward(self, mix: Tensor) -> Tensor:
        self.lengths.append(mix.shape[-1])
        self.batches.append(mix.shape[0])
        return mix[:, None] * self.gains[:, None, None]


class ConvModel(nn.Module):
    """A small network whose output depends on where in the segment a sample lies."""

    def __init__(self, seed: int = 0, segment_samples: int = 1000, channels: int = 2) -> None:
        super().__init__()
        self.segment_samples = segment_samples
        self.channels = channels
        generator = torch.Generator().manual_seed(seed)
        self.kernel = nn.Parameter(torch.randn(len(SOURCES) * channels, channels, 31, generator=generator) / 8)
        self.tilt = nn.Parameter(torch.linspace(0.5, 1.5, segment_samples))

    def forward(self, mix: Tensor) -> Tensor:
        assert mix.shape[-1] == self.segment_samples
        out = torch.tanh(nn.functional.conv1d(mix, self.kernel, padding=15)) * self.tilt
        return out.view(mix.shape[0], len(SOURCES), self.channels, -1)


def ensemble_of(
    *models: GainModel | ConvModel,
    weights: Sequence[Sequence[float]] | None = None,
    sample_rate_hz: int = 44100,
    audio_channels: int = 2,
    sources: tuple[str, ...] = SOURCES,
) -> Ensemble:
    used = weights if weights is not None else [[1.0] * len(sources)] * len(models)
    members = tuple(
        Member(torch_runner(model, torch.device("cpu"), "fp32"), model.segment_samples, tuple(one))
        for model, one in zip(models, used, strict=True)
    )
    return Ensemble(members, sources, sample_rate_hz, audio_channels, "fp32")


def noise(channels: int, length: int, seed: int = 0) -> Tensor:
    return 0.3 * torch.randn(channels, length, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="session")
def fakes() -> ModuleType:
    """This module: its models, sources and helpers."""
    return sys.modules[__name__]
