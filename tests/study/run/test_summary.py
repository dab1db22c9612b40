"""What the rows of a study say, against closed forms."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from polyres.core.errors import InputError
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.paper.data import read_paper_study
from polyres.study.run.files import Arm, Cost, Study, run_folder, write_study
from polyres.study.run.summary import (
    arm_scores,
    cost_scores,
    curves,
    style_of,
    style_scores,
)
from tests.study.cases import RECIPE

STEMS = ("bass", "vocals")


def rows_of(arm: str, seed: int, values: np.ndarray, metric: str = "nsdr") -> list[ScoreRow]:
    """Two stems whose mean is the value, one track per value; the first half of the tracks is loud."""
    half = len(values) // 2
    return [
        ScoreRow(f"{arm}/seed{seed}", "all", f"{'loud' if number < half else 'soft'}/{number}", source, metric, "dB",
                 float(value + offset), weights_id=f"{arm}{seed}", seed=seed)
        for number, value in enumerate(values)
        for source, offset in zip(STEMS, (1.0, -1.0), strict=True)
    ]  # fmt: skip


def base(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).normal(5.0, 3.0, count)


def test_means_over_tracks_and_deviation_over_seeds() -> None:
    values = base()
    (score,) = arm_scores(rows_of("a", 1, values) + rows_of("a", 2, values + 0.5))
    assert score.by_source == pytest.approx({"bass": values.mean() + 1.25, "vocals": values.mean() - 0.75})
    assert score.overall == pytest.approx(values.mean() + 0.25)
    assert score.deviation == pytest.approx(0.5 / math.sqrt(2))
    assert (score.seeds, score.tracks, score.metric) == ((1, 2), 8, "nsdr")
    (score,) = arm_scores(rows_of("a", 1, values))
    assert math.isnan(score.deviation)


def test_scores_that_a_track_lacks_are_left_out() -> None:
    rows = rows_of("a", 1, np.array([1.0, 3.0]))
    rows[0] = replace(rows[0], value=None)  # bass of the first track
    (score,) = arm_scores(rows)
    assert score.by_source == pytest.approx({"bass": 4.0, "vocals": 1.0})
    (score,) = arm_scores([replace(row, value=None) for row in rows])
    assert math.isnan(score.overall)


def test_rows_of_other_models_are_refused() -> None:
    with pytest.raises(InputError, match="'default' is no run of a study"):
        arm_scores([replace(rows_of("a", 1, base())[0], model="default")])


@pytest.mark.parametrize(
    ("track", "style"), [("loud/3", "loud"), ("a/b/c", "a"), ("plain", "all"), ("", "all"), ("/x", "")]
)
def test_the_style_is_the_folder(track: str, style: str) -> None:
    assert style_of(track) == style


def test_scores_by_style() -> None:
    values = np.array([1.0, 2.0, 5.0, 8.0])
    scores = style_scores(rows_of("a", 1, values) + rows_of("a", 1, values, "sdr"), "nsdr")
    assert [(score.arm, score.style, score.tracks) for score in scores] == [("a", "loud", 2), ("a", "soft", 2)]
    assert [score.score for score in scores] == pytest.approx([1.5, 6.5])


def cost(arm: str, seed: int, macs_per_s: float | None, train_s: float = 10.0) -> Cost:
    return Cost(arm, seed, "f", 1000, macs_per_s, train_s, 2 * train_s, 5, train_s / 100, 10.0, "cpu", 1.0)


def test_costs_beside_quality() -> None:
    rows = []
    for arm, gain in (("cheap", 0.0), ("worse", -1.0), ("best", 2.0), ("same", 0.0)):
        rows += rows_of(arm, 1, base() + gain)
    costs = [cost("cheap", 1, 1e9, 10), cost("cheap", 2, 1e9, 20), cost("worse", 1, 2e9), cost("best", 1, 3e9)]
    costs += [cost("same", 1, 4e9), cost("uncounted", 1, None)]
    lines = {line.arm: line for line in cost_scores(rows, costs, "nsdr")}
    assert (lines["cheap"].train_s, lines["cheap"].cpu_s, lines["cheap"].energy_wh) == pytest.approx((15, 30, 0.15))
    assert lines["best"].score == pytest.approx(base().mean() + 2)
    assert {arm for arm, line in lines.items() if line.on_front} == {"cheap", "best"}
    assert lines["uncounted"].macs_per_s is None
    assert math.isnan(lines["uncounted"].score)


def test_for_metrics_where_less_is_better_the_front_is_below() -> None:
    rows = (
        rows_of("cheap", 1, base(), "l1") + rows_of("dear", 1, base() - 1, "l1") + rows_of("bad", 1, base() + 1, "l1")
    )
    costs = [cost("cheap", 1, 1e9), cost("dear", 1, 2e9), cost("bad", 1, 2e9)]
    assert [line.arm for line in cost_scores(rows, costs, "l1") if line.on_front] == ["cheap", "dear"]


def write_run(folder: Path, arm: str, seed: int, points: list[tuple[int, float, float]]) -> None:
    run = run_folder(folder, arm, seed)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(RECIPE)
    lines = [{"step": step, "elapsed_s": at, "valid": {"raw": {"score": score}}} for step, at, score in points]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_scores_after_equal_seconds_and_steps(tmp_path: Path) -> None:
    write_run(tmp_path, "fast", 1, [(1, 1.0, 1.0), (2, 2.0, 3.0), (3, 3.0, 2.0), (4, 4.0, 5.0)])
    write_run(tmp_path, "fast", 2, [(1, 1.0, 2.0), (2, 2.0, 4.0), (3, 3.0, 4.0), (4, 4.0, 7.0)])
    write_run(tmp_path, "slow", 1, [(1, 2.0, 1.5), (2, 4.0, 3.5), (3, 6.0, 4.5), (4, 8.0, 8.0)])
    arms = (Arm("fast", {}), Arm("slow", {}), Arm("unseen", {}))
    about = Study("s", "t", "q?", "b", None, "nsdr", ("nsdr",), {}, arms, (1, 2), None, {})
    write_study(tmp_path, about)
    study = read_paper_study(tmp_path)
    rows = curves(study, "seconds")
    assert [row.at for row in rows] == [1.0, 2.0, 3.0, 4.0]
    assert [row.scores["fast"] for row in rows] == [1.5, 3.5, 3.5, 6.0]
    assert [row.scores["slow"] for row in rows] == [None, 1.5, 1.5, 3.5]
    rows = curves(study, "steps")
    assert [row.at for row in rows] == [1, 2, 3, 4]
    assert [row.scores["slow"] for row in rows] == [1.5, 3.5, 4.5, 8.0]
    assert "unseen" not in rows[0].scores
    assert curves(replace(study, arms=study.arms[:1]), "steps") == []
