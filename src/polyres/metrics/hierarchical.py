"""Intervals for differences between trained models: tracks and seeds are both drawn anew."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
RESAMPLES = 4000


@dataclass(frozen=True)
class Resampled:
    """A mean and how far resampled means lie from it."""

    value: float  # mean over tracks and seeds
    deviations: Array  # of the resampled means, [B]; empty with fewer than two tracks
    degrees: float  # degrees of freedom of their variance; inf where it is zero

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return lower and upper end at a coverage between 0 and 1; NaN with fewer than two tracks."""
        if not self.deviations.size:
            return math.nan, math.nan
        from scipy import stats

        shares = (1 - level) / 2, (1 + level) / 2
        wider = 1.0 if math.isinf(self.degrees) else stats.t.ppf(shares[1], self.degrees) / stats.norm.ppf(shares[1])
        low, high = self.value + wider * np.quantile(self.deviations, shares)
        return float(low), float(high)


def resample(arms: Sequence[Array], *, seed: int = 0, resamples: int = RESAMPLES) -> Resampled:
    """Resample the sum of several arms' means over the same tracks: tracks for all arms alike, seeds arm by arm.

    Resampling n values makes their spread too small by √((n−1)/n), which is given back at both levels, and a few seeds
    know little of their own spread, so intervals are widened by Student's t over the normal quantile. An arm with one
    seed adds nothing about seeds.

    Args:
        arms: scores `[K, T]` of K seeds on T tracks, times the arm's factor in the sum; K may differ between arms.
        seed: of the draws.
        resamples: number of draws, >= 1.

    Source: Davison and Hinkley 1997, Bootstrap Methods, section 3.8 (hierarchical data); Hesterberg 2015, What Teachers
    Should Know About the Bootstrap (narrowness, t); Satterthwaite 1946 (degrees of freedom).
    """
    by_track = np.sum([scores.mean(axis=0) for scores in arms], axis=0)
    value, tracks = float(by_track.mean()), by_track.size
    if tracks < 2:
        return Resampled(value, np.empty(0), math.inf)
    generator = np.random.default_rng(seed)
    drawn = generator.multinomial(tracks, np.full(tracks, 1 / tracks), size=resamples) / tracks
    found = drawn @ ((by_track - value) * math.sqrt(tracks / (tracks - 1)))
    parts = [(float(by_track.var(ddof=1)) / tracks, tracks - 1)]
    for scores in arms:
        count = len(scores)
        if count > 1:
            apart = (scores - scores.mean(axis=0)) * math.sqrt(count / (count - 1))
            seeds = generator.multinomial(count, np.full(count, 1 / count), size=resamples) / count
            found = found + (seeds * (drawn @ apart.T)).sum(axis=1)
            parts.append((float(scores.mean(axis=1).var(ddof=1)) / count, count - 1))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / free for part, free in parts)
    return Resampled(value, found, variance**2 / spread if variance > 1e-18 else math.inf)
