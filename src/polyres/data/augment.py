"""Augmentations: cheap random changes of stems `[B, S, C, T]`, each drawn per item and stem."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.config import Config


class AugmentConfig(Config):
    """Which augmentations run."""

    enabled: bool = True


def augment_batch(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change a batch of stems at random.

    Args:
        stems: float32 `[B, S, C, T]`.
        config: which changes, how often and how far.
        generator: source of randomness on the CPU.

    Returns:
        float32 `[B, S, C, T]`; the mixture is the sum over S.
    """
    return stems
