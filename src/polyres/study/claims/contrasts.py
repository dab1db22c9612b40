"""Differences between arms over the same tracks, with intervals that know of tracks and of seeds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyres.metrics.aggregate import bootstrap_interval
from polyres.metrics.catalogue import METRICS
from polyres.study.paper.data import WHOLE, Arm, PaperStudy, track_means

LEVEL = 0.95


@dataclass(frozen=True)
class Term:
    """One mean score and its factor."""

    factor: float  # it is multiplied by
    arm: Arm  # whose score
    sources: tuple[str, ...] | None = None  # stems that count; all if None
    part: str = WHOLE  # which resolutions listened


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of mean scores; positive is better, for every metric."""

    value: float  # mean over tracks; NaN without any
    low: float  # lower end of the 95 % interval
    high: float  # upper end
    tracks: int  # how many
    seeds: int  # fewest seeds of an arm
    metric: str  # name
    unit: str  # of the metric


def contrast(study: PaperStudy, terms: Sequence[Term], metric: str, seed: int = 0) -> Contrast | None:
    """Add up mean scores of the tracks that all terms have; None without such a track. Positive is better.

    The interval is that of tracks drawn anew (bootstrap); where arms have several seeds it is widened by Welch's
    interval of the seeds' means, both half widths added as squares. With one seed it knows nothing of other seeds.

    Source: Efron 1979 (bootstrap); Welch 1947 and Satterthwaite 1946 (degrees of freedom).
    """
    sign = 1.0 if METRICS.build(metric).direction == "higher" else -1.0
    means = [track_means(study.values(term.arm, metric, term.part), term.sources) for term in terms]
    if not all(means):
        return None
    shared = [
        track for track in study.tracks if all(any(track in tracks for tracks in seeds.values()) for seeds in means)
    ]
    if not shared:
        return None
    per_track = np.zeros(len(shared))
    for term, seeds in zip(terms, means, strict=True):
        scores = [[tracks.get(track, math.nan) for track in shared] for tracks in seeds.values()]
        per_track += sign * term.factor * np.nanmean(np.array(scores), axis=0)
    value = float(per_track.mean())
    low, high = bootstrap_interval(per_track, seed=seed, level=LEVEL)
    spread = _seed_half_width(terms, means, shared)
    low, high = value - math.hypot(value - low, spread), value + math.hypot(high - value, spread)
    fewest = min(len(of) for of in means)
    return Contrast(value, low, high, len(shared), fewest, metric, METRICS.build(metric).unit)


def _seed_half_width(terms: Sequence[Term], means: Sequence[dict[int, dict[str, float]]], tracks: list[str]) -> float:
    """Half width of the interval that the seeds alone would give; 0 where no arm has several."""
    from scipy import stats

    by_arm: dict[str, dict[int, list[float]]] = {}
    for term, seeds in zip(terms, means, strict=True):
        for number, of in seeds.items():
            if all(track in of for track in tracks):
                total = term.factor * float(np.mean([of[track] for track in tracks]))
                by_arm.setdefault(term.arm.name, {}).setdefault(number, []).append(total)
    parts = []
    for seeds_of in by_arm.values():
        sums = [sum(values) for values in seeds_of.values()]
        if len(sums) > 1:
            parts.append((float(np.var(sums, ddof=1)) / len(sums), len(sums) - 1))
    variance = sum(part for part, _ in parts)
    if variance <= 1e-18:
        return 0.0
    degrees = variance**2 / sum(part**2 / free for part, free in parts)
    return float(stats.t.ppf((1 + LEVEL) / 2, degrees)) * math.sqrt(variance)
