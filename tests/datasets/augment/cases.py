"""Stems, configs and measures that the tests of the augmentations share."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from polyres.datasets.augment.base import AUGMENTATIONS
from polyres.datasets.augment.chain import augment_batch
from polyres.datasets.augment.config import AugmentConfig
from polyres.datasets.augment.time import crop_samples, trimmed_length

RATE_HZ = 8000
NAMES = AUGMENTATIONS.names()
# What makes an augmentation fit short segments.
SETTINGS: dict[str, dict[str, Any]] = {"crop": {"shift_s": 0.01}}


def batch(items: int = 3, sources: int = 4, channels: int = 2, length: int = 400, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(items, sources, channels, length, generator=torch.Generator().manual_seed(seed))


def only(name: str, probability: float = 1.0, rate_hz: int = RATE_HZ, **settings: Any) -> AugmentConfig:
    values = {"probability": probability, **SETTINGS.get(name, {}), **settings}
    return AugmentConfig.from_dict({"chain": (name,), "sample_rate_hz": rate_hz, name: values})


def run(stems: Tensor, config: AugmentConfig, seed: int = 0) -> Tensor:
    return augment_batch(stems, config, torch.Generator().manual_seed(seed))


def augmented_length(config: AugmentConfig, length_samples: int) -> int:
    for name in config.chain:
        if name == "crop":
            length_samples -= crop_samples(config)
        elif name in ("repitch", "tempo"):
            length_samples = trimmed_length(length_samples, config.repitch if name == "repitch" else config.tempo)
    return length_samples


def rows(stems: Tensor) -> Tensor:
    return stems.flatten(0, 1)


def rms(wave: Tensor) -> Tensor:
    return wave.square().mean(dim=(-2, -1)).sqrt()


def lag_samples(before: Tensor, after: Tensor) -> int:
    """By how many samples one channel comes after another, from the peak of their cross-correlation."""
    size = 2 * max(len(before), len(after))
    product = torch.fft.rfft(after, size) * torch.fft.rfft(before, size).conj()
    peak = int(torch.fft.irfft(product, size).argmax())
    return peak if peak <= size // 2 else peak - size


def pitch_hz(wave: Tensor, rate_hz: int) -> float:
    """Frequency of the strongest partial, from a parabola through the logarithms around the peak."""
    level = torch.fft.rfft(wave.double() * torch.hann_window(len(wave), dtype=torch.float64)).abs().log()
    peak = int(level[1:-1].argmax()) + 1
    left, top, right = level[peak - 1 : peak + 2].tolist()
    return (peak + 0.5 * (left - right) / (left - 2 * top + right)) * rate_hz / len(wave)
