"""Scores of a study as a table of listeners, items and conditions, and what can be said of them without a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polyres.core.errors import InputError
from polyres.listen.analysis.ratings import Rating
from polyres.listen.design.files import PAIR_KINDS, ListenStudy
from polyres.metrics.aggregate import permutation_test, wilcoxon_test

Array = NDArray[np.float64]
_BATCH = 500


@dataclass(frozen=True)
class Scores:
    """Ratings of one attribute, averaged over repeats."""

    listeners: tuple[str, ...]  # names of the first axis
    items: tuple[str, ...]  # names of the second axis: excerpts
    conditions: tuple[str, ...]  # ids of the third axis
    values: Array  # `[listeners, items, conditions]`, NaN where nobody was asked

    def of(self, condition: str) -> Array:
        """Return the scores of one condition `[listeners, items]`."""
        if condition not in self.conditions:
            raise InputError(f"condition {condition!r} has no ratings; there are {', '.join(self.conditions)}")
        return self.values[:, :, self.conditions.index(condition)]


def scores_of(
    study: ListenStudy,
    ratings: Sequence[Rating],
    attribute: str,
    without: Collection[str] = (),
    stem: str | None = None,
) -> Scores:
    """Arrange the ratings of an attribute; training does not count, repeats are averaged."""
    if study.kind in PAIR_KINDS:
        raise InputError(f"a study of kind {study.kind!r} compares pairs and has no scores")
    items = {page.id: page.item for page in study.pages if stem is None or page.stem == stem}
    sums: dict[tuple[str, str, str], list[float]] = {}
    for row in ratings:
        if row.attribute == attribute and row.page in items and row.listener not in without:
            sums.setdefault((row.listener, items[row.page], row.condition), []).append(row.value)
    if not sums:
        raise InputError(f"no ratings of {attribute!r} are left; collect some, or analyse without exclusion")
    listeners = tuple(dict.fromkeys(key[0] for key in sums))
    names = tuple(item for item in dict.fromkeys(items.values()) if any(key[1] == item for key in sums))
    conditions = tuple(c.id for c in study.conditions if any(key[2] == c.id for key in sums))
    values = np.full((len(listeners), len(names), len(conditions)), np.nan)
    for (listener, item, condition), found in sums.items():
        values[listeners.index(listener), names.index(item), conditions.index(condition)] = np.mean(found)
    return Scores(listeners, names, conditions, values)


def cluster_bootstrap(
    table: Array, *, seed: int, resamples: int = 5000, level: float = 0.95, median: bool = False
) -> tuple[float, float]:
    """Interval of a mean (or median) over listeners and items, both drawn anew with replacement.

    Crossed clusters are drawn independently, so that the interval holds for other listeners and other excerpts alike.
    It is on the wide side: noise of single ratings counts up to three times. `table`: `[listeners, items]`, NaN where
    nobody was asked: scores, or differences of two conditions.

    Source: Owen 2007, The Pigeonhole Bootstrap.
    """
    if not 0 < level < 1:
        raise InputError(f"level must lie between 0 and 1, got {level}")
    if resamples < 1:
        raise InputError(f"resamples must be at least 1, got {resamples}")
    known = np.isfinite(table)
    kept = table[known.any(axis=1)][:, known.any(axis=0)]
    if kept.shape[0] < 2:
        return math.nan, math.nan
    generator = np.random.default_rng(seed)
    drawn = []
    for start in range(0, resamples, _BATCH):
        count = min(_BATCH, resamples - start)
        rows = generator.integers(kept.shape[0], size=(count, kept.shape[0]))
        columns = generator.integers(kept.shape[1], size=(count, kept.shape[1]))
        drawn.append(_medians(kept, rows, columns) if median else _means(kept, rows, columns))
    values = np.concatenate(drawn)
    values = values[np.isfinite(values)]
    if not values.size:
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _means(table: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    """Means of drawn tables `[draws]`, by how often each row and column was drawn."""
    by_row, by_column = _counts(rows, table.shape[0]), _counts(columns, table.shape[1])
    known = np.isfinite(table)
    totals = np.einsum("rl,li,ri->r", by_row, np.where(known, table, 0.0), by_column, optimize=True)
    numbers = np.einsum("rl,li,ri->r", by_row, known.astype(float), by_column, optimize=True)
    return np.divide(totals, numbers, out=np.full(len(totals), np.nan), where=numbers > 0)


def _counts(drawn: NDArray[np.int64], size: int) -> Array:
    flat = drawn + np.arange(len(drawn))[:, None] * size
    return np.bincount(flat.ravel(), minlength=len(drawn) * size).reshape(-1, size).astype(float)


def _medians(table: Array, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Array:
    tables = (table[np.ix_(row, column)] for row, column in zip(rows, columns, strict=True))
    return np.array([np.median(kept) if (kept := t[np.isfinite(t)]).size else np.nan for t in tables])


@dataclass(frozen=True)
class ConditionSummary:
    """Scores of one condition."""

    condition: str
    mean: float  # of the listeners' ratings
    low: float  # lower end of the 95 % interval of the mean over listeners and items
    high: float  # upper end
    median: float  # of the ratings
    quartiles: tuple[float, float]  # first and third
    ratings: int  # how many, repeats averaged
    listeners: int  # how many
    items: int  # how many


def summarise(scores: Scores, *, seed: int, resamples: int = 5000) -> list[ConditionSummary]:
    """Summarise every condition."""
    lines = []
    for condition in scores.conditions:
        table = scores.of(condition)
        known = np.isfinite(table)
        values = table[known]
        low, high = cluster_bootstrap(table, seed=seed, resamples=resamples)
        first, middle, third = (float(value) for value in np.quantile(values, [0.25, 0.5, 0.75]))
        counts = (values.size, int(known.any(axis=1).sum()), int(known.any(axis=0).sum()))
        lines.append(ConditionSummary(condition, float(values.mean()), low, high, middle, (first, third), *counts))
    return lines


@dataclass(frozen=True)
class PairTests:
    """One condition against another on the same listeners and items."""

    first: str
    second: str
    difference: float  # mean of first − second over listeners, each averaged over the items
    low: float  # lower end of the 95 % interval over listeners and items (cluster bootstrap)
    high: float  # upper end
    wilcoxon_p: float  # signed-rank test over listeners, uncorrected
    permutation_p: float  # sign flips over listeners, uncorrected
    t_p: float  # paired t-test over listeners, uncorrected
    pooled_t_p: float  # paired t-test over all ratings as if each were independent, uncorrected; too small
    listeners: int  # how many rated both


def compare(scores: Scores, first: str, second: str, *, seed: int, resamples: int = 5000) -> PairTests:
    """Compare two conditions; the tests run over listeners' means because listeners are independent."""
    table = scores.of(first) - scores.of(second)
    means = listener_means(table)
    zeros = np.zeros_like(means)
    low, high = cluster_bootstrap(table, seed=seed, resamples=resamples)
    return PairTests(
        first,
        second,
        float(means.mean()) if means.size else math.nan,
        low,
        high,
        wilcoxon_test(means, zeros).p_value,
        permutation_test(means, zeros, seed=seed).p_value,
        t_test(means),
        t_test(table[np.isfinite(table)]),
        means.size,
    )


def listener_means(table: Array) -> Array:
    """Average each listener's known values `[listeners, items]` over the items; listeners without any are left out."""
    known = np.isfinite(table)
    counts = known.sum(axis=1)
    return np.asarray(np.where(known, table, 0.0).sum(axis=1)[counts > 0] / counts[counts > 0])


def t_test(differences: Array) -> float:
    """Two-sided p-value of a t-test that the mean of differences is zero; NaN for fewer than two of them.

    Source: Student 1908, The Probable Error of a Mean.
    """
    from scipy import stats

    if differences.size < 2:
        return math.nan
    spread = float(differences.std(ddof=1))
    if spread == 0.0:
        return 0.0 if differences[0] else 1.0
    t = float(differences.mean()) / (spread / math.sqrt(differences.size))
    return float(2 * stats.t.sf(abs(t), differences.size - 1))
