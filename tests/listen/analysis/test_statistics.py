"""Scores, cluster bootstrap and tests against closed forms, slow loops and scipy."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from polyres.core.errors import InputError
from polyres.listen.analysis.ratings import Rating
from polyres.listen.analysis.statistics import (
    Scores,
    _means,
    cluster_bootstrap,
    compare,
    excluded,
    listener_means,
    scores_of,
    screen,
    summarise,
    t_test,
)
from polyres.listen.design.files import Attribute, Design
from tests.listen.studies import a_study, fixed_ratings, normal_scores, some_ratings

VALUES = {"c0": 70.0, "c1": 60.0, "c2": 100.0, "c3": 20.0, "c4": 45.0}


def test_scores_are_arranged_and_repeats_averaged() -> None:
    study = a_study(design=Design(repeats=6))
    rows = fixed_ratings(study, "anna", VALUES)
    rows = [row if not row.repeat else type(row).from_dict({**row.to_dict(), "value": 0.0}) for row in rows]
    scores = scores_of(study, rows, "quality")
    assert (scores.listeners, scores.items) == (("anna",), tuple(page.item for page in study.pages))
    np.testing.assert_array_equal(scores.of("c0"), [[35.0] * 6])


def test_training_other_attributes_and_the_excluded_do_not_count() -> None:
    study = a_study()
    rows = [*fixed_ratings(study, "anna", VALUES), *fixed_ratings(study, "bert", dict.fromkeys(VALUES, 1.0), 1)]
    rows.append(type(rows[0]).from_dict({**rows[0].to_dict(), "attribute": "other", "value": 7.0}))
    scores = scores_of(study, rows, "quality", without={"bert"}, stem="drums")
    assert scores.items == ("song1/drums", "song3/drums", "song5/drums")
    np.testing.assert_array_equal(scores.of("c4"), [[45.0] * 3])
    with pytest.raises(InputError, match="no ratings of 'quality' are left"):
        scores_of(study, rows, "quality", without={"anna", "bert"})
    with pytest.raises(InputError, match="condition 'c9' has no ratings; there are c0, c1"):
        scores.of("c9")
    with pytest.raises(InputError, match="a study of kind 'ab' compares pairs and has no scores"):
        scores_of(a_study("ab"), rows, "quality")


def test_drawn_means_are_means_of_drawn_tables() -> None:
    generator = np.random.default_rng(0)
    table = generator.normal(size=(5, 4))
    table[1, 2] = table[3, 0] = np.nan
    rows, columns = generator.integers(5, size=(50, 5)), generator.integers(4, size=(50, 4))
    slow = [np.nanmean(table[np.ix_(row, column)]) for row, column in zip(rows, columns, strict=True)]
    np.testing.assert_allclose(_means(table, rows, columns), slow)


def test_the_interval_of_independent_listeners_is_that_of_their_mean() -> None:
    # Items all alike: only listeners differ, so the width is known.
    table = np.repeat(np.random.default_rng(1).normal(0.0, 10.0, (200, 1)), 5, axis=1)
    low, high = cluster_bootstrap(table, seed=0)
    error = table[:, 0].std() / math.sqrt(200)
    assert high - low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_items_are_drawn_too() -> None:
    table = np.repeat(np.random.default_rng(1).normal(0.0, 10.0, (1, 100)), 5, axis=0)
    low, high = cluster_bootstrap(table, seed=0)
    assert high - low == pytest.approx(2 * 1.96 * table[0].std() / 10, rel=0.07)


def test_gaps_and_few_listeners() -> None:
    assert all(math.isnan(end) for end in cluster_bootstrap(np.array([[1.0, 2.0], [np.nan, np.nan]]), seed=0))
    gaps = np.array([[1.0, np.nan], [np.nan, 1.0]])
    assert cluster_bootstrap(gaps, seed=0) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"level": 1.0}, "level must lie between 0 and 1, got 1.0"), ({"resamples": 0}, "resamples must be at least 1")],
)
def test_options_out_of_range_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        cluster_bootstrap(np.ones((3, 3)), seed=0, **options)  # type: ignore[arg-type]


def test_summaries() -> None:
    values = np.array([[[1.0], [2.0], [3.0]], [[4.0], [np.nan], [6.0]]])
    line = summarise(Scores(("a", "b"), ("x", "y", "z"), ("c",), values), seed=0, resamples=200)[0]
    assert (line.mean, line.median, line.ratings, line.listeners, line.items) == (3.2, 3.0, 5, 2, 3)
    assert line.quartiles == (2.0, 4.0)


def test_t_tests_are_those_of_scipy() -> None:
    scores = normal_scores(np.random.default_rng(2), {"listener:condition": 3, "residual": 8}, (12, 6, 2), [60, 56])
    tests = compare(scores, "c0", "c1", seed=0, resamples=200)
    first, second = (scores.of(name).mean(axis=1) for name in ("c0", "c1"))
    assert tests.t_p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    pooled = stats.ttest_rel(scores.of("c0").ravel(), scores.of("c1").ravel()).pvalue
    assert tests.pooled_t_p == pytest.approx(pooled)
    assert tests.wilcoxon_p == pytest.approx(stats.wilcoxon(first, second).pvalue)
    assert tests.difference == pytest.approx((first - second).mean())
    assert tests.low < tests.difference < tests.high


def test_t_tests_of_next_to_nothing() -> None:
    assert math.isnan(t_test(np.array([1.0])))
    assert t_test(np.array([1.0, 1.0])) == 0.0
    assert t_test(np.zeros(3)) == 1.0


def test_listener_means_leave_out_who_has_none() -> None:
    np.testing.assert_array_equal(listener_means(np.array([[1.0, 3.0], [np.nan, np.nan], [np.nan, 5.0]])), [2.0, 5.0])


@pytest.mark.slow
def test_intervals_cover_the_truth_as_often_as_they_say() -> None:
    sds = {"listener": 5, "item": 5, "listener:condition": 4, "item:condition": 4, "residual": 8}
    covered = 0
    for seed in range(300):
        scores = normal_scores(np.random.default_rng(seed), sds, (14, 10, 2), [60, 55])
        low, high = cluster_bootstrap(scores.of("c0") - scores.of("c1"), seed=seed, resamples=500)
        covered += low <= 5.0 <= high
    assert 0.90 <= covered / 300 <= 0.995


def test_a_simulated_study_gives_back_its_effects() -> None:
    study = a_study(pages=8)
    scores = scores_of(study, some_ratings(study, 14, seed=5), "quality")
    tests = compare(scores, "c0", "c1", seed=0, resamples=1000)
    assert tests.low < 10.0 < tests.high
    assert tests.low > 0.0


GOOD = {"c0": 70.0, "c1": 60.0, "c2": 100.0, "c3": 20.0, "c4": 45.0}


def with_values(rows: list[Rating], condition: str, value: float, pages: int) -> list[Rating]:
    """Give a condition another score on so many pages."""
    chosen = list(dict.fromkeys(row.page for row in rows if row.page != "p0"))[:pages]
    return [replace(row, value=value) if row.condition == condition and row.page in chosen else row for row in rows]


@pytest.mark.parametrize(("pages", "out"), [(0, False), (3, False), (4, True), (20, True)])
def test_the_reference_may_be_missed_on_fifteen_percent_of_the_items(pages: int, out: bool) -> None:
    study = a_study(pages=20)  # 15 % are three
    line = screen(study, with_values(fixed_ratings(study, "anna", GOOD), "c2", 89.9, pages))[0]
    assert (line.reference_low, line.trials) == (pages, 20)
    assert bool(line.excluded_by) == out
    assert line.excluded_by in ("", f"hidden reference below 90 on {pages} of 20")


def test_ninety_itself_is_not_below_ninety() -> None:
    study = a_study(pages=20)
    assert not screen(study, with_values(fixed_ratings(study, "anna", GOOD), "c2", 90.0, 20))[0].excluded_by


@pytest.mark.parametrize(("pages", "out"), [(3, False), (4, True)])
def test_the_mid_anchor_may_be_praised_on_fifteen_percent_of_the_items(pages: int, out: bool) -> None:
    study = a_study(pages=20)
    rows = [row for number in range(8) for row in fixed_ratings(study, f"l{number}", GOOD, number)]
    rows += with_values(fixed_ratings(study, "anna", GOOD), "c4", 91.0, pages)
    lines = {line.listener: line for line in screen(study, rows)}
    assert bool(lines["anna"].excluded_by) == out
    assert not any(line.excluded_by for who, line in lines.items() if who != "anna")
    assert excluded(list(lines.values()), "quality") == ({"anna"} if out else set())


def test_an_anchor_that_more_than_a_quarter_praise_says_nothing() -> None:
    study = a_study(pages=20)
    rows = []
    for number in range(8):
        mine = fixed_ratings(study, f"l{number}", GOOD, number)
        rows += with_values(mine, "c4", 91.0, 20 if number < 3 else 0)  # 3 of 8 are more than a quarter
    lines = screen(study, rows)
    assert not any(line.excluded_by for line in lines)
    assert {line.anchor_trials for line in lines} == {0}


def test_the_low_anchor_and_other_anchors_are_not_part_of_the_rule() -> None:
    study = a_study(pages=20)
    rows = [row for number in range(8) for row in fixed_ratings(study, f"l{number}", GOOD, number)]
    rows += fixed_ratings(study, "anna", {**GOOD, "c3": 95.0})
    assert not excluded(screen(study, rows), "quality")
    unanchored = study.with_values({"attributes": (Attribute(anchors=()).to_dict(),)})
    rows += fixed_ratings(study, "bert", {**GOOD, "c4": 95.0})
    assert excluded(screen(study, rows), "quality") == {"bert"}
    assert not excluded(screen(unanchored, rows), "quality")


def test_training_does_not_count_and_repeats_do() -> None:
    study = a_study(pages=10, design=Design(repeats=10))
    rows = fixed_ratings(study, "anna", GOOD)
    rows = [replace(row, value=0.0) if row.page == "p0" else row for row in rows]
    line = screen(study, rows)[0]
    assert (line.trials, line.reference_low, line.excluded_by) == (20, 0, "")


def test_order_and_steadiness_are_told() -> None:
    study = a_study(pages=4, design=Design(repeats=4))
    rows = fixed_ratings(study, "anna", GOOD)
    rows = [replace(row, value=row.value + 4.0 * row.repeat) for row in rows]
    line = screen(study, rows)[0]
    assert (line.inversions, line.repeat_difference) == (0.0, 4.0)
    turned = screen(study, fixed_ratings(study, "anna", {**GOOD, "c3": 50.0}))[0]
    assert turned.inversions == 1.0
    assert math.isnan(screen(a_study(), fixed_ratings(a_study(), "anna", GOOD))[0].repeat_difference)


def test_studies_without_a_hidden_reference_leave_nobody_out() -> None:
    study = a_study("bs2132")
    assert not excluded(screen(study, fixed_ratings(study, "anna", dict.fromkeys(GOOD, 0.0))), "quality")


def test_careless_simulated_listeners_are_found_and_careful_ones_kept() -> None:
    study = a_study(pages=10)
    assert excluded(screen(study, some_ratings(study, 10, careless=3)), "quality") == {
        f"simulated-careless-{number:03d}" for number in (11, 12, 13)
    }
