"""Augmentations: random changes of stems `[B, S, C, T]`, each drawn anew per item and stem."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.datasets.augment import codec, filters, time  # noqa: F401  (they register what they hold)
from polyres.datasets.augment.base import AUGMENTATIONS
from polyres.datasets.augment.config import AugmentConfig


def augment_batch(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change float32 stems `[B, S, C, T]` at random, one augmentation of the config's chain after another.

    Crops, and tempos that trim, make them shorter. Raises InputError if the segments are too short for what the chain
    cuts off; ConfigError if an augmentation needs a library that is not installed.
    """
    for name in config.chain:
        stems = AUGMENTATIONS.build(name, stems, config, generator)
    return stems
