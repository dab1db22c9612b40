"""Augmentations: random changes of stems `[B, S, C, T]`, each drawn anew per item and stem.

The settings are in `augment_config`, the families in `augment_level`, `augment_filter`, `augment_time`,
`augment_codec` and `augment_room`.
"""

from __future__ import annotations

import torch
from torch import Tensor

# Importing a family registers what it holds.
from polyres.data import augment_filter, augment_level, augment_time
from polyres.data.augment_base import AUGMENTATIONS, Augmentation
from polyres.data.augment_config import PRESETS, AugmentConfig
from polyres.data.augment_filter import fast_fft_size

__all__ = [
    "AUGMENTATIONS",
    "PRESETS",
    "AugmentConfig",
    "Augmentation",
    "augment_batch",
    "augment_filter",
    "augment_level",
    "augment_time",
    "fast_fft_size",
]


def augment_batch(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change a batch of stems at random, one augmentation of the config's chain after another.

    Args:
        stems: float32 `[B, S, C, T]`; left as it is.
        config: which changes, how often and how far.
        generator: source of randomness, on the CPU.

    Returns:
        float32 `[B, S, C, T]`; the new mixture is the sum over S.

    Raises:
        UnknownNameError: if the chain names an augmentation that does not exist.
    """
    for name in config.chain:
        stems = AUGMENTATIONS.build(name, stems, config, generator)
    return stems
