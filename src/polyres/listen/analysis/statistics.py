"""Screening of listeners by BS.1534, and what can be said of scores without a model."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from polyres.core.errors import InputError
from polyres.listen.analysis.ratings import Rating
from polyres.listen.design.files import PAIR_KINDS, Attribute, ListenStudy, Role
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


def cluster_bootstrap(table: Array, *, seed: int, resamples: int = 5000, level: float = 0.95) -> tuple[float, float]:
    """Interval of a mean over listeners and items, both drawn anew with replacement.

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
        drawn.append(_means(kept, rows, columns))
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


LIMIT_SCORE = 90.0
LIMIT_SHARE = 0.15
"""A listener is left out for a rule broken on more than this share of the items."""
LENIENT_SHARE = 0.25
"""An item whose anchor more than this share of the listeners rates above 90 says nothing against them."""

Trial = tuple[str, int]


@dataclass(frozen=True)
class Screening:
    """Screening result of one listener in one attribute."""

    listener: str  # who
    attribute: str  # in which respect
    trials: int  # pages rated, repeats counted
    reference_low: int  # how many times the hidden reference was rated below 90
    anchor_high: int  # how many times a mid anchor was rated above 90, on items that count
    anchor_trials: int  # trials with an anchor that count
    inversions: float  # share of trials that do not go reference >= mid anchor >= low anchor; NaN without anchors
    # mean absolute difference between first and repeated ratings of the same sound; NaN without
    repeat_difference: float
    excluded_by: str  # "" or which rule says to leave the listener out


def screen(study: ListenStudy, ratings: Sequence[Rating]) -> list[Screening]:
    """Apply the post-screening rules to every listener and attribute.

    Source: ITU-R BS.1534-3, section 4.1.2.
    """
    pages = {page.id for page in study.pages}
    lines = []
    for attribute in study.attributes:
        rows = [row for row in ratings if row.attribute == attribute.name and row.page in pages]
        lenient = _lenient_pages(study, attribute, rows)
        for listener in dict.fromkeys(row.listener for row in rows):
            lines.append(_screen_one(study, attribute, [row for row in rows if row.listener == listener], lenient))
    return lines


def excluded(lines: Sequence[Screening], attribute: str) -> set[str]:
    """Return the listeners whom screening leaves out in an attribute."""
    return {line.listener for line in lines if line.attribute == attribute and line.excluded_by}


def _ids(study: ListenStudy, role: Role) -> set[str]:
    return {condition.id for condition in study.conditions if condition.role == role}


def _screening_anchors(study: ListenStudy, attribute: Attribute) -> set[str]:
    """Anchors of the second rule: all that the attribute names but the low one, which nobody takes for good."""
    roles = [role for role in attribute.anchors if role not in ("low_anchor", "system", "reference")]
    return {name for role in roles for name in _ids(study, role)}


def _lenient_pages(study: ListenStudy, attribute: Attribute, rows: Sequence[Rating]) -> set[str]:
    anchors = _screening_anchors(study, attribute)
    high: dict[str, dict[str, bool]] = {}
    for row in rows:
        if row.condition in anchors:
            by_listener = high.setdefault(row.page, {})
            by_listener[row.listener] = by_listener.get(row.listener, False) or row.value > LIMIT_SCORE
    return {page for page, votes in high.items() if np.mean(list(votes.values())) > LENIENT_SHARE}


def _screen_one(study: ListenStudy, attribute: Attribute, rows: Sequence[Rating], lenient: set[str]) -> Screening:
    references, anchors = _ids(study, "reference"), _screening_anchors(study, attribute)
    trials = {(row.page, row.repeat) for row in rows}
    with_reference = {(row.page, row.repeat) for row in rows if row.condition in references}
    low = {(row.page, row.repeat) for row in rows if row.condition in references and row.value < LIMIT_SCORE}
    judged = [row for row in rows if row.condition in anchors and row.page not in lenient]
    with_anchor = {(row.page, row.repeat) for row in judged}
    high = {(row.page, row.repeat) for row in judged if row.value > LIMIT_SCORE}
    rules = []
    if study.kind == "mushra" and len(low) > LIMIT_SHARE * len(with_reference):
        rules.append(f"hidden reference below 90 on {len(low)} of {len(with_reference)}")
    if study.kind == "mushra" and len(high) > LIMIT_SHARE * len(with_anchor):
        rules.append(f"mid anchor above 90 on {len(high)} of {len(with_anchor)}")
    return Screening(
        rows[0].listener,
        attribute.name,
        len(trials),
        len(low),
        len(high),
        len(with_anchor),
        _inversions(study, attribute, rows),
        _repeat_difference(rows),
        "; ".join(rules),
    )


def _inversions(study: ListenStudy, attribute: Attribute, rows: Sequence[Rating]) -> float:
    order: list[set[str]] = [_ids(study, "reference")]
    order += [_ids(study, role) for role in ("mid_anchor", "low_anchor") if role in attribute.anchors]
    trials: dict[Trial, dict[str, float]] = {}
    for row in rows:
        trials.setdefault((row.page, row.repeat), {})[row.condition] = row.value
    broken = []
    for values in trials.values():
        steps = [[values[name] for name in names if name in values] for names in order]
        steps = [step for step in steps if step]
        if len(steps) > 1:
            broken.append(any(min(upper) < max(lower) for upper, lower in pairwise(steps)))
    return float(np.mean(broken)) if broken else float("nan")


def _repeat_difference(rows: Sequence[Rating]) -> float:
    first = {(row.page, row.condition): row.value for row in rows if row.repeat == 0}
    again = [row for row in rows if row.repeat > 0 and (row.page, row.condition) in first]
    differences = [abs(row.value - first[row.page, row.condition]) for row in again]
    return float(np.mean(differences)) if differences else float("nan")
