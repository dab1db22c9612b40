from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from polyres.core.errors import InputError, UnknownNameError
from polyres.metrics.aggregate import (
    AGGREGATIONS,
    Statistic,
    bootstrap_columns,
    bootstrap_interval,
    holm,
    over_tracks,
    paired_differences,
    permutation_test,
    track_scores,
    verdict,
    wilcoxon_test,
)

NAN, INF = math.nan, math.inf
TRACKS = [[1, 2, 9], [4, NAN, 6, INF], [NAN, NAN], [0, 0, 0, 10]]


def scores(count: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(shift, 1, count)


def test_methods_are_named_and_explained() -> None:
    assert AGGREGATIONS.names() == ["median_of_medians", "mean_of_medians", "mean"]
    assert all("over tracks" in AGGREGATIONS.summary(name) for name in AGGREGATIONS.names())
    with pytest.raises(UnknownNameError, match="unknown aggregation 'median'"):
        AGGREGATIONS.build("median")


def test_scores_per_track_may_be_plain_numbers() -> None:
    np.testing.assert_array_equal(track_scores([1.0, 2.0]), [1, 2])
    np.testing.assert_array_equal(track_scores(TRACKS), [2, 5, NAN, 0])
    with pytest.raises(InputError, match="statistic 'mode' is not known; choose mean or median"):
        track_scores(TRACKS, "mode")


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_bootstrap_agrees_with_scipy(statistic: str) -> None:
    values = scores(40)
    low, high = bootstrap_interval([*values, NAN], statistic, seed=1)
    function = np.mean if statistic == "mean" else np.median
    wanted = stats.bootstrap(
        (values,), function, method="percentile", n_resamples=10_000, rng=np.random.default_rng(2)
    ).confidence_interval
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.04)


def test_bootstrap_is_repeatable_and_narrows_with_the_level() -> None:
    values = scores(30)
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)
    assert bootstrap_interval(values, seed=3) != bootstrap_interval(values, seed=4)
    wide, narrow = bootstrap_interval(values, seed=3, level=0.99), bootstrap_interval(values, seed=3, level=0.5)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]
    assert bootstrap_interval([2.0, 2.0, 2.0], seed=0) == (2, 2)
    assert all(math.isnan(end) for end in bootstrap_interval([1.0, NAN], seed=0))


def test_bootstrap_of_the_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(200):
        low, high = bootstrap_interval(scores(40, seed=trial), seed=trial, resamples=500)
        hits += low <= 0 <= high
    assert 0.88 <= hits / 200 <= 0.99


def test_bootstrap_settings_are_checked() -> None:
    with pytest.raises(InputError, match="level must lie between 0 and 1, got 95"):
        bootstrap_interval([1, 2], seed=0, level=95)
    with pytest.raises(InputError, match="resamples must be at least 1, got 0"):
        bootstrap_interval([1, 2], seed=0, resamples=0)


def test_wilcoxon_equals_scipy_and_the_count_of_signs() -> None:
    first, second = scores(20, 1, 0.5), scores(20, 2)
    assert wilcoxon_test(first, second).p_value == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert wilcoxon_test([1, 2, 3, 4, 5, 6], [0, 0, 0, 0, 0, 0]).p_value == pytest.approx(2 / 2**6)
    with_zeros = wilcoxon_test([1, 2, 2, 3, 5, 6, 8], [1, 1, 1, 1, 1, 1, 1])
    assert with_zeros.p_value == pytest.approx(
        stats.wilcoxon([0, 1, 1, 2, 4, 5, 7], zero_method="pratt", method="asymptotic").pvalue
    )


def test_permutation_of_few_tracks_counts_every_combination_of_signs() -> None:
    differences = np.array([0.5, -0.25, 1.0, 0.75, 2.0])
    sums = [abs(np.dot(signs, differences)) for signs in itertools.product((-1, 1), repeat=5)]
    wanted = np.mean([total >= differences.sum() - 1e-9 for total in sums])
    assert permutation_test(differences, np.zeros(5), seed=0).p_value == pytest.approx(wanted)
    assert permutation_test([1] * 6, [0] * 6, seed=0).p_value == pytest.approx(2 / 2**6)


def test_permutation_of_many_tracks_agrees_with_scipy() -> None:
    first, second = scores(30, 1, 0.4), scores(30, 2)
    outcome = permutation_test(first, second, seed=0, permutations=20_000)
    wanted = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.mean(a - b, axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=20_000,
        rng=np.random.default_rng(1),
    ).pvalue
    assert outcome.p_value == pytest.approx(wanted, abs=0.015)
    assert outcome == permutation_test(first, second, seed=0, permutations=20_000)
    assert permutation_test(first + 10, second, seed=0, permutations=999).p_value == pytest.approx(1 / 1000)


def test_equal_systems_do_not_differ_and_gaps_are_left_out() -> None:
    values = scores(12)
    assert wilcoxon_test(values, values).p_value == 1
    assert permutation_test(values, values, seed=0).p_value == 1
    assert wilcoxon_test([NAN, 1], [0, NAN]).tracks == 0
    assert permutation_test([NAN, 1], [0, NAN], seed=0).p_value == 1
    np.testing.assert_array_equal(paired_differences([3, NAN, INF, 5], [1, 1, 1, 2]), [2, 3])
    assert wilcoxon_test([3, NAN, 5], [1, 1, 2]).difference == 2.5


def test_tests_check_their_input() -> None:
    for test in (wilcoxon_test, lambda a, b: permutation_test(a, b, seed=0)):
        with pytest.raises(InputError, match="3 scores cannot be paired with 2; both need the same tracks"):
            test([1, 2, 3], [1, 2])
    with pytest.raises(InputError, match="permutations must be at least 1, got 0"):
        permutation_test([1], [2], seed=0, permutations=0)


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == pytest.approx([1, 1])
    assert holm([]).size == 0
    for bad in ([-0.1], [0.2, NAN]):
        with pytest.raises(InputError, match="p-values must lie between 0 and 1"):
            holm(bad)


@given(values=st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_rejects_what_the_stepwise_procedure_rejects(values: list[float]) -> None:
    adjusted = holm(values)
    order = np.argsort(values, kind="stable")
    rejected: set[int] = set()
    for step, index in enumerate(order):
        if values[index] * (len(values) - step) > 0.05:
            break
        rejected.add(int(index))
    assert {index for index, value in enumerate(adjusted) if value <= 0.05} == rejected


def test_verdicts() -> None:
    assert verdict((0.1, 0.5), 30) == "better"
    assert verdict((-0.5, -0.1), 6) == "worse"
    assert verdict((-0.1, 0.5), 30) == "undecided"
    assert verdict((0.1, 0.5), 5) == "undecided"
    assert verdict((NAN, NAN), 30) == "undecided"


def test_columns_are_averaged_without_what_is_missing() -> None:
    table = [[1.0, NAN, NAN], [2.0, 4.0, NAN], [6.0, NAN, NAN]]
    columns, overall = over_tracks(table, "mean")
    np.testing.assert_array_equal(columns, [3, 4, NAN])
    assert overall == 3.5
    assert over_tracks(table, "median")[1] == 3.0
    assert math.isnan(over_tracks([[NAN]], "mean")[1])


def test_intervals_of_columns_and_of_their_mean() -> None:
    table = np.column_stack([scores(40), scores(40, seed=1) + 5, np.full(40, NAN)])
    table[:30, 1] = NAN
    found = bootstrap_columns(table, seed=0, resamples=4000)
    assert found.shape == (4, 2)
    wanted = [bootstrap_interval(table[:, column], seed=3) for column in (0, 1)]
    np.testing.assert_allclose(found[:2], wanted, atol=0.08)
    assert np.isnan(found[2]).all()
    assert found[3, 0] < np.nanmean(np.nanmean(table[:, :2], axis=0)) < found[3, 1]
    np.testing.assert_array_equal(found, bootstrap_columns(table, seed=0, resamples=4000))


def test_opposite_columns_have_a_certain_mean() -> None:
    values = scores(20)
    found = bootstrap_columns(np.column_stack([values, -values]), seed=0)
    assert found[2] == pytest.approx([0, 0], abs=1e-12)
    assert found[0, 1] - found[0, 0] > 0.5


def test_one_track_has_no_interval() -> None:
    assert np.isnan(bootstrap_columns([[1.0, 2.0]], seed=0)).all()
    assert np.isnan(bootstrap_columns([[1.0], [NAN]], seed=0)).all()


@pytest.mark.parametrize("statistic", ["mean", "median"])
def test_intervals_of_tracks_without_error_reach_to_infinity(statistic: Statistic) -> None:
    table = np.array([[20.0, INF, -INF, NAN], [19.0, INF, 3.0, INF], [INF, INF, 4.0, INF]])
    found = bootstrap_columns(table, statistic, seed=0)
    low = 19.0 if statistic == "median" else pytest.approx(19.0, abs=1.0)
    assert found[0].tolist() == [low, INF]
    assert found[1].tolist() == [INF, INF]
    assert found[2].tolist() == [-INF, 4.0]
    assert found[3].tolist() == [INF, INF]
    finite = np.array([[20.0], [19.0], [21.0]])
    assert np.isfinite(bootstrap_columns(finite, statistic, seed=0)).all()


def test_unusable_settings_of_intervals_are_refused() -> None:
    with pytest.raises(InputError, match="level must lie between 0 and 1, got 1"):
        bootstrap_columns([[1.0]], seed=0, level=1)
    with pytest.raises(InputError, match="resamples must be at least 1, got 0"):
        bootstrap_columns([[1.0]], seed=0, resamples=0)
    with pytest.raises(InputError, match="statistic 'mode' is not known"):
        bootstrap_columns([[1.0]], "mode", seed=0)  # type: ignore[arg-type]
