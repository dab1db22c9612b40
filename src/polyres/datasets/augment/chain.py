"""Augmentations: random changes of stems `[B, S, C, T]`, each drawn anew per item and stem.

The settings are in `augment_config`, the families in `augment_level`, `augment_filter`, `augment_time`,
`augment_stretch`, `augment_codec` and `augment_room`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.datasets.augment import base as augment_level

# Importing a family registers what it holds.
from polyres.datasets.augment import codec as augment_codec
from polyres.datasets.augment import filters as augment_filter
from polyres.datasets.augment import filters as augment_room
from polyres.datasets.augment import time as augment_stretch
from polyres.datasets.augment import time as augment_time
from polyres.datasets.augment.base import AUGMENTATIONS, Augmentation, fast_fft_size
from polyres.datasets.augment.config import PRESETS, AugmentConfig
from polyres.datasets.augment.time import crop_samples, trimmed_length

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "AugmentConfig",
    "Augmentation",
    "augment_batch",
    "augment_codec",
    "augment_filter",
    "augment_level",
    "augment_room",
    "augment_stretch",
    "augment_time",
    "augmented_length",
    "fast_fft_size",
]


def augment_batch(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change a batch of stems at random, one augmentation of the config's chain after another.

    Args:
        stems: float32 `[B, S, C, T]`; left as it is.
        config: which changes, how often and how far.
        generator: source of randomness, on the CPU.

    Returns:
        float32 `[B, S, C, T]`, of the length that `augmented_length` tells; the new mixture is the sum over S.

    Raises:
        InputError: if the segments are too short for what the chain cuts off.
        ConfigError: if an augmentation needs a library that is not installed.
    """
    for name in config.chain:
        stems = AUGMENTATIONS.build(name, stems, config, generator)
    return stems


def augmented_length(config: AugmentConfig, length_samples: int) -> int:
    """Tell how long a segment is after the chain: as before, unless it has crops or a tempo that trims."""
    for name in config.chain:
        if name == "crop":
            length_samples -= crop_samples(config)
        elif name in ("repitch", "tempo"):
            length_samples = trimmed_length(length_samples, config.repitch if name == "repitch" else config.tempo)
    return length_samples
