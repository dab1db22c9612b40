"""What fusion weights say: how even they are, how far from even, and how much sources differ.

Weights are tables `[S, R]`: one row per source, one column per resolution, each row a distribution.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Table = list[list[float]]


def entropy_bits(weights: Tensor) -> Tensor:
    """Shannon entropy of distributions.

    Args:
        weights: `[..., R]`, >= 0; they need not sum to 1.

    Returns:
        `[...]` in bits, float64; NaN where all are zero.
    """
    shares = weights.double() / weights.double().sum(dim=-1, keepdim=True)
    return -torch.special.xlogy(shares, shares).sum(dim=-1) / math.log(2)


def entropy_percent(weights: Tensor) -> Tensor:
    """Entropy in percent of that of uniform weights: 100 is even, 0 is one resolution alone.

    Args:
        weights: `[..., R]`, R >= 2.

    Returns:
        `[...]`, 0 to 100, float64.
    """
    return 100 * entropy_bits(weights) / math.log2(weights.shape[-1])


def divergence_bits(weights: Tensor) -> Tensor:
    """Kullback–Leibler divergence from uniform weights.

    Args:
        weights: `[..., R]`.

    Returns:
        `[...]` in bits, 0 (even) to log2 R (one resolution alone), float64.
    """
    return math.log2(weights.shape[-1]) - entropy_bits(weights)


def disagreement_bits(weights: Tensor) -> Tensor:
    """Jensen–Shannon divergence among the sources: how much of the weights depends on the source.

    Args:
        weights: `[..., S, R]`.

    Returns:
        `[...]` in bits, 0 where all sources share one row, float64.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy", section V.
    """
    shares = weights.double() / weights.double().sum(dim=-1, keepdim=True)
    return (entropy_bits(shares.mean(dim=-2)) - entropy_bits(shares).mean(dim=-1)).clamp_min(0.0)


def spread(weights: Tensor) -> Tensor:
    """Largest weight less the smallest: `[..., R]` -> `[...]`."""
    return weights.amax(dim=-1) - weights.amin(dim=-1)


@dataclass(frozen=True)
class WeightSummary:
    """Weights of one stage at one moment.

    Attributes:
        weights: `[S, R]`.
        entropy_percent: of every source, in % of uniform.
        spread: of every source, largest less smallest weight.
        divergence_bits: of every source, from uniform.
        disagreement_bits: among the sources.
    """

    weights: Table
    entropy_percent: list[float]
    spread: list[float]
    divergence_bits: list[float]
    disagreement_bits: float


def summarise(weights: Tensor) -> WeightSummary:
    """Sum up a table of weights.

    Args:
        weights: `[S, R]`.

    Returns:
        The summary.
    """
    return WeightSummary(
        weights=weights.tolist(),
        entropy_percent=entropy_percent(weights).tolist(),
        spread=spread(weights).tolist(),
        divergence_bits=divergence_bits(weights).tolist(),
        disagreement_bits=float(disagreement_bits(weights)),
    )
