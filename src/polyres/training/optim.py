"""Optimisers and learning-rate schedules by name."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import nn

from polyres.core.catalogue import Catalogue

if TYPE_CHECKING:
    from polyres.training.config import OptimiserConfig, ScheduleConfig

OPTIMISERS: Catalogue[torch.optim.Optimizer] = Catalogue("optimiser")
SCHEDULES: Catalogue[float] = Catalogue("schedule")
"""Every entry maps (progress through the whole run 0…1, ScheduleConfig) to a factor on the learning rate."""


@OPTIMISERS.register("adam", "Adam; weight decay is added to the gradient")
def _adam(model: nn.Module, config: OptimiserConfig, fused: bool) -> torch.optim.Optimizer:
    """Build Adam."""
    decay = config.weight_decay
    return torch.optim.Adam(model.parameters(), lr=config.lr, betas=config.betas, weight_decay=decay, fused=fused)


@OPTIMISERS.register("adamw", "Adam with decoupled weight decay")
def _adamw(model: nn.Module, config: OptimiserConfig, fused: bool) -> torch.optim.Optimizer:
    """Build AdamW."""
    decay = config.weight_decay
    return torch.optim.AdamW(model.parameters(), lr=config.lr, betas=config.betas, weight_decay=decay, fused=fused)


def build_optimiser(model: nn.Module, config: OptimiserConfig, fused: bool = True) -> torch.optim.Optimizer:
    """Build the optimiser of a model's parameters.

    Args:
        model: what is trained.
        config: names the optimiser and its settings.
        fused: use the kernels that do a whole step at once, where there are such.

    Returns:
        The optimiser, with the full rates.
    """
    return OPTIMISERS.build(config.name, model, config, fused)


@SCHEDULES.register("constant", "warm-up, then the full rate")
def _constant(progress: float, config: ScheduleConfig) -> float:
    """Return the warm-up ramp, then 1."""
    if progress < config.warmup:
        return progress / config.warmup
    return 1.0


@SCHEDULES.register("cosine", "warm-up, then half a cosine down to final_ratio")
def _cosine(progress: float, config: ScheduleConfig) -> float:
    """Return the warm-up ramp, then half a cosine that ends at the final ratio when the run does."""
    if progress < config.warmup:
        return progress / config.warmup
    after = (min(progress, 1.0) - config.warmup) / (1.0 - config.warmup)
    return config.final_ratio + (1.0 - config.final_ratio) * 0.5 * (1.0 + math.cos(math.pi * after))


def rate_factor(progress: float, config: ScheduleConfig) -> float:
    """Say by how much the learning rate is multiplied at a point of the run.

    It depends on the absolute progress only, so a resumed run follows the same curve.

    Args:
        progress: share of the run that is over, 0 to 1.
        config: the schedule.

    Returns:
        The factor, 0 to 1.
    """
    return SCHEDULES.build(config.name, progress, config)
