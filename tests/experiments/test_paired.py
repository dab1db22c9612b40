"""Paired differences between models."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from polyres.core.errors import ConfigError
from polyres.experiments.paired import paired, paired_markdown
from polyres.experiments.rows import ScoreRow


def rows_of(model: str, values: np.ndarray, metric: str = "nsdr") -> list[ScoreRow]:
    """Rows of two stems whose mean is the value, one track per value."""
    return [
        ScoreRow(model, "all", f"track {number}", source, metric, "dB", float(value + offset))
        for number, value in enumerate(values)
        for source, offset in (("bass", 1.0), ("vocals", -1.0))
    ]


def base(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(5.0, 3.0, count)


def test_a_constant_difference_has_no_width() -> None:
    values = base(12)
    (line,) = paired(rows_of("old", values) + rows_of("new", values + 0.5), "old")
    assert (line.model, line.tracks, line.verdict) == ("new", 12, "better")
    assert [line.mean_difference, line.low, line.high] == pytest.approx([0.5] * 3)
    (line,) = paired(rows_of("old", values) + rows_of("new", values - 0.5), "old")
    assert line.verdict == "worse"


def test_p_values_are_wilcoxons_and_holms() -> None:
    values, rng = base(20), np.random.default_rng(1)
    changes = {"a": 0.3 + rng.normal(0, 0.4, 20), "b": 0.2 + rng.normal(0, 1.0, 20), "c": rng.normal(0, 1.0, 20)}
    rows = rows_of("old", values)
    for name, change in changes.items():
        rows += rows_of(name, values + change)
    lines = {line.model: line for line in paired(rows, "old")}
    raw = sorted((stats.wilcoxon(change).pvalue, name) for name, change in changes.items())
    highest = 0.0
    for rank, (p_value, name) in enumerate(raw):
        highest = max(highest, min(1.0, p_value * (3 - rank)))
        assert lines[name].p_value == pytest.approx(highest, rel=1e-6)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    hits = 0
    for trial in range(60):
        change = np.random.default_rng(trial).normal(0.7, 1.0, 30)
        (line,) = paired(rows_of("old", base(30)) + rows_of("new", base(30) + change), "old", seed=trial)
        hits += line.low <= 0.7 <= line.high
    assert 50 <= hits <= 60


def test_few_tracks_are_undecided_whatever_the_difference() -> None:
    (line,) = paired(rows_of("old", base(5)) + rows_of("new", base(5) + 9.0), "old")
    assert line.p_value is None
    assert line.verdict == "undecided"
    assert "| - | 5 | undecided |" in paired_markdown([line], "old")


def test_equal_models_are_undecided() -> None:
    (line,) = paired(rows_of("old", base(9)) + rows_of("new", base(9)), "old")
    assert (line.mean_difference, line.p_value, line.verdict) == (0.0, 1.0, "undecided")


def test_only_shared_tracks_count_and_metrics_stay_apart() -> None:
    rows = rows_of("old", base(8)) + rows_of("new", base(6) + 1.0) + rows_of("old", base(8), "sdr")
    (line,) = paired(rows, "old")
    assert (line.tracks, line.metric) == (6, "nsdr")


def test_the_same_seed_gives_the_same_interval() -> None:
    rows = rows_of("old", base(9)) + rows_of("new", base(9)[::-1])
    assert paired(rows, "old", 3) == paired(rows, "old", 3)
    assert paired(rows, "old", 3) != paired(rows, "old", 4)


def test_where_less_is_better_less_is_better() -> None:
    (line,) = paired(rows_of("old", base(9), "l1") + rows_of("new", base(9) - 0.5, "l1"), "old")
    assert line.verdict == "better"


def test_a_missing_reference_is_an_error() -> None:
    with pytest.raises(ConfigError, match="no scores of 'older' to compare with"):
        paired(rows_of("old", base(3)), "older")


def test_both_tests_are_corrected_over_the_lines_of_a_metric() -> None:
    values = base(9)
    rows = rows_of("old", values) + rows_of("new", values + 0.5) + rows_of("newer", values + 0.25)
    lines = paired(rows, "old")
    # Of 2^9 combinations of signs two are as large as nine gains: p = 1/256, twice that for two lines.
    assert [line.p_permutation for line in lines] == pytest.approx([2 / 256] * 2)
    assert [line.p_value for line in lines] == pytest.approx([2 / 256] * 2, rel=0.01)  # equal ranks: asymptotic
    assert "| 7.8e-03 | 7.8e-03 | 9 | better |" in paired_markdown(lines, "old")
    (few,) = paired(rows_of("old", base(5)) + rows_of("new", base(5) + 9.0), "old")
    assert (few.p_value, few.p_permutation) == (None, None)


def test_shapley_values_are_not_compared() -> None:
    rows = rows_of("old", base(9)) + [replace(row, part="shapley 512") for row in rows_of("old", base(9))]
    assert paired(rows, "old") == []
