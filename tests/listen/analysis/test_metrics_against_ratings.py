"""Metrics against ears: perfect, opposite and unrelated ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from polyres.core.errors import InputError
from polyres.listen.analysis.metrics_against_ratings import correlate, read_metric_rows
from polyres.listen.analysis.statistics import Scores, scores_of
from polyres.listen.design.files import ListenStudy
from tests.listen.studies import a_study, some_ratings

LABELS = {"c0": "good", "c1": "fair"}


def rows_of(study: ListenStudy, scores: Scores, metric: str, change: Any) -> list[dict[str, Any]]:
    return [
        {
            "model": label,
            "track": page.track,
            "source": page.stem,
            "metric": metric,
            "value": change(float(scores.of(condition)[:, number].mean()), number),
        }
        for condition, label in LABELS.items()
        for number, page in enumerate(study.pages)
    ]


def test_metrics_are_ranked_by_how_close_they_come() -> None:
    study = a_study()
    scores = scores_of(study, some_ratings(study, 6), "quality")
    luck = np.random.default_rng(0).normal(size=6)
    rows = [
        *rows_of(study, scores, "luck", lambda value, number: luck[number]),
        *rows_of(study, scores, "opposite", lambda value, number: -(value**3)),
        *rows_of(study, scores, "offset", lambda value, number: value + 1000 * luck[number]),
    ]
    lines = {line.metric: line for line in correlate(study, scores, rows, seed=0, resamples=200)}
    assert next(iter(lines)) == "opposite"
    assert (lines["opposite"].spearman, lines["opposite"].kendall) == pytest.approx((-1.0, -1.0))
    assert (lines["opposite"].low, lines["opposite"].high) == pytest.approx((-1.0, -1.0))
    assert lines["offset"].within == pytest.approx(1.0)
    assert lines["offset"].pearson < 0.9
    points = lines["luck"].values
    expected = stats.spearmanr([point[2] for point in points], [point[3] for point in points]).statistic
    assert lines["luck"].spearman == pytest.approx(expected)
    assert lines["luck"].low < lines["luck"].spearman < lines["luck"].high
    assert math.isnan(lines["luck"].within)
    assert lines["luck"].points == 12


def test_too_few_points_say_nothing() -> None:
    study = a_study(pages=1)
    scores = scores_of(study, some_ratings(study, 3), "quality")
    assert correlate(study, scores, rows_of(study, scores, "m", lambda value, number: value), seed=0) == []


def test_rows_of_other_systems_are_refused() -> None:
    study = a_study()
    scores = scores_of(study, some_ratings(study, 3), "quality")
    rows = rows_of(study, scores, "m", lambda value, number: value)
    with pytest.raises(InputError, match=r"no objective score is of a system \(good, fair\)"):
        correlate(study, scores, [{**row, "model": "x"} for row in rows], seed=0)


def test_rows_are_read_as_evaluate_writes_them(tmp_path: Path) -> None:
    row = {"model": "a", "part": "all", "track": "t", "source": "s", "metric": "sdr", "value": 1.0}
    others = [{**row, "part": "only 4096"}, {**row, "value": None}]
    path = tmp_path / "scores.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in (row, *others)) + "\n\n")
    assert read_metric_rows(path) == [row]
    path.write_text('{"model": 1}')
    with pytest.raises(InputError, match=r"scores.jsonl, line 1: 'metric' is missing"):
        read_metric_rows(path)
    path.write_text("no")
    with pytest.raises(InputError, match=r"scores.jsonl, line 1: no JSON"):
        read_metric_rows(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_metric_rows(tmp_path / "gone.jsonl")
