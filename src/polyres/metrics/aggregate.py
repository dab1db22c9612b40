"""Aggregate the scores of tracks: averages, intervals, and tests between two systems."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from polyres.core.catalogue import Catalogue
from polyres.core.errors import InputError

Array = NDArray[np.float64]
Statistic = Literal["mean", "median"]
_STATISTICS: dict[Statistic, Callable[..., Any]] = {"mean": np.mean, "median": np.median}
_BATCH = 1000
EXACT_TRACKS = 14
"""Up to so many tracks, a permutation test tries every combination of signs."""
MIN_TRACKS = 6
"""With fewer tracks no difference counts as shown: the smallest two-sided p-value of 5 pairs is 1/16."""


@dataclass(frozen=True)
class Aggregation:
    """How scores are summarised: first the windows of a track, then the tracks."""

    over_windows: Statistic
    over_tracks: Statistic


AGGREGATIONS: Catalogue[Aggregation] = Catalogue("aggregation")
"""Ways of aggregation; `AGGREGATIONS.build(name)` returns the `Aggregation`."""

AGGREGATIONS.register("median_of_medians", "median over tracks of the median over windows (SiSEC, museval)")(
    lambda: Aggregation("median", "median")
)
AGGREGATIONS.register("mean_of_medians", "mean over tracks of the median over windows (Demucs)")(
    lambda: Aggregation("median", "mean")
)
AGGREGATIONS.register("mean", "mean over tracks of the mean over windows (MDX, for scores per track)")(
    lambda: Aggregation("mean", "mean")
)


def _finite(values: ArrayLike) -> Array:
    flat = np.atleast_1d(np.asarray(values, dtype=np.float64)).ravel()
    return flat[np.isfinite(flat)]


def track_scores(tracks: Sequence[ArrayLike], over_windows: Statistic = "median") -> Array:
    """Take the median over the finite windows of every track, as in museval; NaN where there is none."""
    statistic = _statistic(over_windows)
    finite = [_finite(track) for track in tracks]
    return np.array([float(statistic(values)) if values.size else np.nan for values in finite])


def _statistic(name: Statistic) -> Callable[..., Any]:
    if name not in _STATISTICS:
        raise InputError(f"statistic {name!r} is not known; choose {' or '.join(_STATISTICS)}")
    return _STATISTICS[name]


def _check_bootstrap(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")


def bootstrap_interval(
    scores: ArrayLike, statistic: Statistic = "mean", *, seed: int, resamples: int = 10_000, level: float = 0.95
) -> tuple[float, float]:
    """Interval for the mean or median over tracks, from tracks drawn anew with replacement (percentile method).

    `scores`: one per track; NaN and ±inf are left out. `resamples`: number of draws, >= 1. `level`: coverage, between 0
    and 1. Returns lower and upper end; NaN with fewer than two tracks. Raises InputError if statistic, resamples or
    level are out of range.

    Source: Efron 1979, Bootstrap Methods: Another Look at the Jackknife.
    """
    _check_bootstrap(level, resamples)
    function, values = _statistic(statistic), _finite(scores)
    if values.size < 2:
        return float("nan"), float("nan")
    generator = np.random.default_rng(seed)
    drawn = [
        function(values[generator.integers(values.size, size=(min(_BATCH, resamples - start), values.size))], axis=1)
        for start in range(0, resamples, _BATCH)
    ]
    low, high = np.quantile(np.concatenate(drawn), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def over_tracks(table: ArrayLike, statistic: Statistic) -> tuple[Array, float]:
    """Average the scores of tracks column by column, and the columns by their mean.

    `table`: `[tracks, columns]`, such as sources; NaN where a track has no score. Returns one number per column, NaN
    where no track has a score, and the mean of those that are not.
    """
    columns, overall = _averages(np.asarray(table, dtype=np.float64)[None], statistic)
    return columns[0], float(overall[0])


def bootstrap_columns(
    table: ArrayLike, statistic: Statistic = "mean", *, seed: int, resamples: int = 2000, level: float = 0.95
) -> Array:
    """Intervals for what `over_tracks` gives, from tracks drawn anew with replacement: a track keeps its columns.

    `table`: `[tracks, columns]`; NaN where a track has no score, ±inf is one. `resamples`: number of draws, >= 1.
    `level`: coverage, between 0 and 1. Returns lower and upper end `[columns + 1, 2]`, the last for the mean of the
    columns; NaN where fewer than two tracks have a score. Raises InputError if statistic, resamples or level are out of
    range.

    Source: as `bootstrap_interval`.
    """
    _check_bootstrap(level, resamples)
    _statistic(statistic)
    values = np.asarray(table, dtype=np.float64)
    tracks, columns = values.shape
    scored = (~np.isnan(values)).sum(axis=0)
    if tracks < 2:
        return np.full((columns + 1, 2), np.nan)
    draws = np.random.default_rng(seed).integers(tracks, size=(resamples, tracks))
    found = np.column_stack(_averages(values[draws], statistic))
    found[:, np.append(scored, scored.max(initial=0)) < 2] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # columns of nothing but NaN stay NaN
        shares = [(1 - level) / 2, (1 + level) / 2]
        ends = np.nanquantile(found, shares, axis=0)
        # Between infinite draws there is nothing to interpolate; the interval then reaches to the outer one.
        lower = np.nanquantile(found, shares[0], axis=0, method="lower")
        higher = np.nanquantile(found, shares[1], axis=0, method="higher")
        return np.where(np.isnan(ends), [lower, higher], ends).T


def _averages(tables: Array, statistic: Statistic) -> tuple[Array, Array]:
    """Average tables `[..., tracks, columns]` over tracks, and that over columns; leaves out NaN."""
    function: Callable[..., Any] = np.nanmean if statistic == "mean" else np.nanmedian
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # what has no score at all is NaN
        columns = function(tables, axis=-2)
        return columns, np.nanmean(columns, axis=-1)


@dataclass(frozen=True)
class PairedTest:
    """Result of a two-sided test on the same tracks."""

    difference: float  # mean of first − second
    p_value: float  # probability of a difference at least as large if the systems were the same
    tracks: int  # pairs with two finite scores


def paired_differences(first: ArrayLike, second: ArrayLike) -> Array:
    """Subtract the finite scores of two systems track by track: first − second."""
    left = np.asarray(first, dtype=np.float64).ravel()
    right = np.asarray(second, dtype=np.float64).ravel()
    if left.size != right.size:
        raise InputError(f"{left.size} scores cannot be paired with {right.size}; both need the same tracks")
    both = np.isfinite(left) & np.isfinite(right)
    return left[both] - right[both]


def wilcoxon_test(first: ArrayLike, second: ArrayLike) -> PairedTest:
    """Signed-rank test: do the scores of two systems differ? Ties of zero are ranked and then dropped (Pratt).

    `second`: one score per track, in the same order. Returns the outcome; p = 1 where all pairs are equal or there are
    none. Raises InputError if the numbers of tracks differ.

    Source: Wilcoxon 1945, Individual Comparisons by Ranking Methods; Pratt 1959 for zeros.
    """
    from scipy import stats

    differences = paired_differences(first, second)
    if not differences.any():
        return PairedTest(0.0, 1.0, differences.size)
    # The exact distribution knows neither zeros nor equal ranks.
    sizes = np.abs(differences)
    exact = differences.size <= 50 and bool(sizes.all()) and np.unique(sizes).size == sizes.size
    outcome = stats.wilcoxon(differences, zero_method="pratt", method="exact" if exact else "asymptotic")
    return PairedTest(float(differences.mean()), float(outcome.pvalue), differences.size)


def permutation_test(first: ArrayLike, second: ArrayLike, *, seed: int, permutations: int = 10_000) -> PairedTest:
    """Sign-flip test of the mean difference: every combination of signs for few tracks, random ones for many.

    `second`: one score per track, in the same order; `permutations`: number of random combinations, >= 1. Returns the
    outcome; p = 1 where there are no pairs. Raises InputError if the numbers of tracks differ or permutations is below
    1.

    Source: Fisher 1935, The Design of Experiments; Phipson and Smyth 2010 for the p-value of random permutations.
    """
    if permutations < 1:
        raise InputError(f"permutations must be at least 1, got {permutations}")
    differences = paired_differences(first, second)
    count = differences.size
    if count == 0:
        return PairedTest(float("nan"), 1.0, 0)
    observed = abs(differences.sum()) * (1 - 1e-12)  # sums of the same numbers in another order are as large
    if count <= EXACT_TRACKS:
        bits = (np.arange(2**count)[:, None] >> np.arange(count)) & 1
        p_value = float(np.mean(np.abs((1 - 2 * bits) @ differences) >= observed))
        return PairedTest(float(differences.mean()), p_value, count)
    generator = np.random.default_rng(seed)
    as_large = 0
    for start in range(0, permutations, _BATCH):
        signs = generator.choice((-1.0, 1.0), size=(min(_BATCH, permutations - start), count))
        as_large += int(np.sum(np.abs(signs @ differences) >= observed))
    return PairedTest(float(differences.mean()), (as_large + 1) / (permutations + 1), count)


def holm(p_values: ArrayLike) -> Array:
    """Correct the p-values of several tests, so that the chance of any false alarm stays what it says.

    `p_values`: `[n]`, each 0 to 1. Returns adjusted p-values in the same order, at most 1. Raises InputError if a value
    is no probability.

    Source: Holm 1979, A Simple Sequentially Rejective Multiple Test Procedure.
    """
    values = np.asarray(p_values, dtype=np.float64).ravel()
    if not np.all((values >= 0) & (values <= 1)):
        raise InputError("p-values must lie between 0 and 1")
    order = np.argsort(values, kind="stable")
    steps = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(steps, 1.0)
    return adjusted


def verdict(interval: tuple[float, float], tracks: int) -> Literal["better", "worse", "undecided"]:
    """Say in a word what an interval of a difference shows, where higher is better.

    `interval`: lower and upper end for first − second; `tracks`: how many tracks it rests on. Returns "undecided" with
    fewer than 6 tracks or where the interval includes zero (or is NaN).
    """
    low, high = interval
    if tracks >= MIN_TRACKS and low > 0:
        return "better"
    if tracks >= MIN_TRACKS and high < 0:
        return "worse"
    return "undecided"
