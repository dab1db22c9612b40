"""ABX and preferences against scipy and closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from polyres.core.errors import InputError
from polyres.listen.analysis.pairs import binomial_test, bradley_terry, pair_answers, preference_strengths
from polyres.listen.analysis.ratings import Rating
from polyres.listen.analysis.simulate import SimulateOptions, simulate
from polyres.listen.design.conditions import TIE, plan_for
from polyres.listen.design.files import Design
from tests.listen.studies import a_study


@pytest.mark.parametrize("hits", range(17))
@pytest.mark.parametrize("two_sided", [False, True])
def test_binomial_tests_are_those_of_scipy(hits: int, two_sided: bool) -> None:
    found = binomial_test(hits, 16, two_sided)
    outcome = stats.binomtest(hits, 16, 0.5, "two-sided" if two_sided else "greater")
    exact = stats.binomtest(hits, 16, 0.5).proportion_ci(0.95, "exact")
    assert found.p_value == pytest.approx(outcome.pvalue)
    assert (found.low, found.high) == pytest.approx((exact.low, exact.high))


def test_twelve_of_sixteen() -> None:
    # Sum of binomial coefficients from 12 on: 2517 of 65536.
    assert binomial_test(12, 16).p_value == pytest.approx(2517 / 65536)


def test_halves_are_cautious_and_nothing_is_nothing() -> None:
    assert binomial_test(12.5, 16, True).p_value == binomial_test(12, 16, True).p_value
    assert binomial_test(3.5, 16, True).p_value == binomial_test(4, 16, True).p_value
    empty = binomial_test(0, 0)
    assert empty.p_value == 1.0
    assert math.isnan(empty.share)
    with pytest.raises(InputError, match=r"hits must lie between 0 and trials \(4\), got 5"):
        binomial_test(5, 4)


def test_two_conditions_have_the_strengths_of_their_odds() -> None:
    strengths = bradley_terry(np.array([[0.0, 30.0], [10.0, 0.0]]))
    assert strengths[0] - strengths[1] == pytest.approx(math.log(30.5 / 10.5))
    assert strengths.sum() == pytest.approx(0.0)


def test_strengths_are_where_the_likelihood_is_flat() -> None:
    wins = np.array([[0, 12, 15, 9], [8, 0, 11, 7], [5, 9, 0, 6], [11, 13, 14, 0]], float)
    strengths = bradley_terry(wins)
    counted = wins + 0.5 * (1 - np.eye(4))
    games = counted + counted.T
    expected = games / (1 + np.exp(strengths[None] - strengths[:, None]))
    np.testing.assert_allclose(counted.sum(axis=1), expected.sum(axis=1) - np.diag(expected), atol=1e-8)


def test_tables_that_are_none_are_refused() -> None:
    for wins in (np.zeros((2, 3)), np.array([[0.0, -1.0], [0.0, 0.0]])):
        with pytest.raises(InputError, match="wins must be a square table of counts"):
            bradley_terry(wins)


def answers(kind: str, hits: dict[str, int], pages: int = 8) -> list[Rating]:
    """Let listeners be right (or prefer the first) on so many of the pages, about the pair c0 and c1."""
    return [
        Rating(who, who, f"p{n + 1}", 0, "c0+c1", "quality", float(n < count), kind)  # type: ignore[arg-type]
        for who, count in hits.items()
        for n in range(pages)
    ]


def test_answers_are_counted_by_pair_and_listener() -> None:
    rows = answers("abx", {"anna": 8, "bert": 4})
    rows.append(Rating("anna", "anna", "p0", 0, "c0+c1", "quality", 0.0, "abx"))  # training
    line = pair_answers(a_study("abx", pages=8), rows)[0]
    assert (line.first, line.second, line.outcome.hits, line.outcome.trials) == ("c0", "c1", 12, 16)
    assert line.by_listener["anna"].p_value == pytest.approx(1 / 256)
    assert line.listeners_p == 1.0  # two listeners, one of whom guesses


def test_six_listeners_who_agree_are_enough() -> None:
    line = pair_answers(a_study("ab", pages=8), answers("ab", dict.fromkeys("abcdef", 7)))[0]
    assert line.listeners_p == pytest.approx(2 / 2**6)


def test_nothing_to_count_is_refused() -> None:
    with pytest.raises(InputError, match="no answers about 'quality'; collect some first"):
        pair_answers(a_study("ab"), [])
    with pytest.raises(InputError, match="no answers about 'quality'; collect some first"):
        preference_strengths(a_study("ab"), [], seed=0)


def test_preferences_of_simulated_listeners_give_back_their_strengths() -> None:
    study = a_study("ab", pages=10, design=Design(rounds=3))
    options = SimulateOptions(listeners=20, effects={"good": 70, "fair": 60, "poor": 50}, noise_sd=0)
    lines = preference_strengths(study, simulate(study, options), seed=0, resamples=200)
    # 10 points are one logit.
    for line, truth in zip(lines, (1.0, 0.0, -1.0), strict=True):
        assert line.low < truth < line.high
        assert line.high - line.low < 0.5


def test_ties_count_half_for_each() -> None:
    study = a_study("ab", pages=2, training=0, design=Design(ties=True))
    rows = [
        Rating(who, who, trial.page, 0, trial.pair, "quality", trial.pair_value(TIE), "ab", TIE)
        for who in "ab"
        for trial in plan_for(study, 0)
    ]
    assert [line.strength for line in preference_strengths(study, rows, seed=0, resamples=10)] == [0.0, 0.0, 0.0]
    assert pair_answers(study, rows)[0].outcome.share == 0.5
