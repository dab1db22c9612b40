"""ABX answers and preferences: exact binomial tests and Bradley–Terry strengths."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polyres.core.errors import InputError
from polyres.listen.analysis.ratings import Rating
from polyres.listen.design.conditions import PAIR_MARK
from polyres.listen.design.files import ListenStudy

Array = NDArray[np.float64]
_STEPS = 10_000
_PRECISION = 1e-12


@dataclass(frozen=True)
class Binomial:
    """Right answers out of so many."""

    hits: float  # right (abx) or for the first of the pair (ab; ties count half)
    trials: int  # answers
    share: float  # hits / trials
    low: float  # lower end of the 95 % interval (Clopper–Pearson)
    high: float  # upper end
    p_value: float  # exact; abx one-sided against guessing, ab two-sided against no preference


def binomial_test(hits: float, trials: int, two_sided: bool = False) -> Binomial:
    """Test answers against a fair coin.

    Source: Clopper and Pearson 1934 for the interval.
    """
    from scipy import stats

    if not 0 <= hits <= trials:
        raise InputError(f"hits must lie between 0 and trials ({trials}), got {hits}")
    if trials == 0:
        return Binomial(0.0, 0, math.nan, math.nan, math.nan, 1.0)
    counted = math.floor(hits) if hits > trials / 2 else math.ceil(hits)
    p_value = float(stats.binomtest(counted, trials, 0.5, "two-sided" if two_sided else "greater").pvalue)
    low = float(stats.beta.ppf(0.025, hits, trials - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(0.975, hits + 1, trials - hits)) if hits < trials else 1.0
    return Binomial(float(hits), trials, hits / trials, low, high, p_value)


@dataclass(frozen=True)
class PairAnswers:
    """Answers of all listeners to one pair."""

    first: str  # condition id
    second: str  # condition id
    outcome: Binomial  # over all answers as if they were independent
    by_listener: dict[str, Binomial]  # listener -> outcome
    # abx and ab: exact sign-flip test over the listeners' shares, which are independent; NaN for one
    listeners_p: float


def pair_answers(study: ListenStudy, ratings: Sequence[Rating], attribute: str | None = None) -> list[PairAnswers]:
    """Count the answers of an abx or ab study."""
    from polyres.metrics.aggregate import permutation_test

    name = attribute or study.attributes[0].name
    pages = {page.id for page in study.pages}
    rows = [row for row in ratings if row.page in pages and row.attribute == name]
    if not rows:
        raise InputError(f"no answers about {name!r}; collect some first")
    two_sided = study.kind == "ab"
    lines = []
    for pair in dict.fromkeys(row.condition for row in rows):
        first, _, second = pair.partition(PAIR_MARK)
        answers: dict[str, list[float]] = {}
        for row in rows:
            if row.condition == pair:
                answers.setdefault(row.listener, []).append(row.value)
        flat = [value for values in answers.values() for value in values]
        shares = np.array([np.mean(values) for values in answers.values()]) - 0.5
        over = permutation_test(shares, np.zeros_like(shares), seed=0).p_value if shares.size > 1 else math.nan
        lines.append(
            PairAnswers(
                first,
                second,
                binomial_test(sum(flat), len(flat), two_sided),
                {who: binomial_test(sum(values), len(values), two_sided) for who, values in answers.items()},
                over,
            )
        )
    order = [condition.id for condition in study.conditions]
    return sorted(lines, key=lambda line: (order.index(line.first), order.index(line.second)))


@dataclass(frozen=True)
class Strength:
    """How a condition fares in preferences."""

    condition: str
    strength: float  # log-odds above the mean of all conditions (natural logarithm)
    low: float  # lower end of the 95 % interval, listeners drawn anew
    high: float  # upper end


def bradley_terry(wins: Array) -> Array:
    """Fit strengths to preferences: the odds of i against j are exp(strength_i − strength_j).

    Source: Bradley and Terry 1952; Hunter 2004, MM Algorithms for Generalized Bradley–Terry Models.
    """
    if wins.ndim != 2 or wins.shape[0] != wins.shape[1] or (wins < 0).any():
        raise InputError(f"wins must be a square table of counts, got shape {wins.shape}")
    met = (wins + wins.T) > 0
    counts = np.where(met, wins + 0.5, 0.0)
    np.fill_diagonal(counts, 0.0)
    games, won = counts + counts.T, counts.sum(axis=1)
    strengths = np.ones(len(wins))
    for _ in range(_STEPS):
        rates = (games / (strengths[:, None] + strengths[None])).sum(axis=1)
        updated = np.divide(won, rates, out=np.ones_like(won), where=rates > 0)
        updated /= np.exp(np.log(updated).mean())
        change = float(np.abs(np.log(updated / strengths)).max())
        strengths = updated
        if change < _PRECISION:
            break
    return np.log(strengths)


def preference_strengths(
    study: ListenStudy, ratings: Sequence[Rating], attribute: str | None = None, *, seed: int, resamples: int = 500
) -> list[Strength]:
    """Fit Bradley–Terry strengths to an ab study, with intervals from listeners drawn anew."""
    name = attribute or study.attributes[0].name
    pages = {page.id for page in study.pages}
    ids = [condition.id for condition in study.conditions]
    tables: dict[str, Array] = {}
    for row in ratings:
        if row.page in pages and row.attribute == name:
            first, second = (ids.index(part) for part in row.condition.split(PAIR_MARK))
            table = tables.setdefault(row.listener, np.zeros((len(ids), len(ids))))
            table[first, second] += row.value
            table[second, first] += 1.0 - row.value
    if not tables:
        raise InputError(f"no answers about {name!r}; collect some first")
    stacked = np.stack(list(tables.values()))
    strengths = bradley_terry(stacked.sum(axis=0))
    generator = np.random.default_rng(seed)
    count = len(stacked)
    drawn = [bradley_terry(stacked[generator.integers(count, size=count)].sum(axis=0)) for _ in range(resamples)]
    lows, highs = np.quantile(drawn, [0.025, 0.975], axis=0) if count > 1 else (np.full(len(ids), np.nan),) * 2
    return [
        Strength(condition, *(float(value) for value in values))
        for condition, *values in zip(ids, strengths, lows, highs, strict=True)
    ]
