"""Coalitions of resolutions, and their Shapley values as rows."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest
import torch

from polyres.core.errors import ConfigError
from polyres.study.evaluate.rows import RowFile, ScoreRow
from polyres.study.evaluate.run import EvaluateOptions, evaluate
from polyres.study.evaluate.shapley import SilentSubject, add_shapley, coalition_name, coalitions_of, shapley_rows
from polyres.study.evaluate.subjects import parts_of
from tests.study.evaluate.test_run import RATE, SOURCES, silent, small, tracks_of, write_tracks

SIZES = (512, 1024, 2048)
NAMES = ["none", "only 512", "only 1024", "without 2048", "only 2048", "without 1024", "without 512", "all"]


def rows_of(values: list[float | None], track: str = "a", metric: str = "nsdr") -> list[ScoreRow]:
    return [
        ScoreRow("m", name, track, "bass", metric, "dB", value, frames=4, frames_invalid=1, window_mean=0.5)
        for name, value in zip(NAMES, values, strict=True)
    ]


def test_names_of_coalitions() -> None:
    assert [coalition_name(SIZES, coalition) for coalition in range(8)] == NAMES
    four = (512, *SIZES[1:], 4096)
    assert coalition_name(four, 0b1010) == "with 1024 4096"
    assert coalition_name((512, 1024), 0b01) == "only 512"


def test_values_are_the_mean_gain_over_all_orders() -> None:
    scores = np.random.default_rng(0).normal(3, 2, 8).tolist()
    found = shapley_rows(rows_of(scores), SIZES)
    assert [row.part for row in found] == ["shapley 512", "shapley 1024", "shapley 2048"]
    for player, row in enumerate(found):
        gains = []
        for order in permutations(range(3)):
            before = sum(1 << other for other in order[: order.index(player)])
            gains.append(scores[before | 1 << player] - scores[before])
        assert row.value == pytest.approx(np.mean(gains))
        assert (row.frames, row.frames_invalid, row.window_mean) == (None, None, None)
    assert sum(row.value or 0 for row in found) == pytest.approx(scores[-1] - scores[0])


def test_a_coalition_without_score_leaves_no_value() -> None:
    broken = rows_of([None, 1, 2, 3, 4, 5, 6, 7], metric="sdr")
    assert shapley_rows(broken, SIZES) == []
    assert shapley_rows(rows_of([0, 1, 2, 3, 4, 5, 6, 7])[:-1], SIZES) == []
    both = shapley_rows(broken + rows_of([0, 1, 2, 3, 4, 5, 6, 7], "b"), SIZES)
    assert {row.track for row in both} == {"b"}


def test_every_coalition_is_a_subject() -> None:
    whole = small()
    found = coalitions_of(whole)
    assert sorted(subject.part for subject in found) == sorted(NAMES[:-1])
    parts = {subject.part: subject for subject in parts_of(whole)}
    mixture = torch.randn(2, RATE, generator=torch.Generator().manual_seed(0))
    for subject in found:
        estimate = subject.estimate("t", mixture, SOURCES, RATE)
        if subject.part in parts:
            assert torch.equal(estimate, parts[subject.part].estimate("t", mixture, SOURCES, RATE))
        else:
            assert isinstance(subject, SilentSubject)
            assert not estimate.any()
            assert estimate.shape == (4, 2, RATE)


def test_values_are_kept_once(tmp_path: Path) -> None:
    whole, out = small((512, 1024)), tmp_path / "out"
    tracks = tracks_of(write_tracks(tmp_path / "data", names=("a",)))
    rows = evaluate([whole, *coalitions_of(whole)], tracks, out, EvaluateOptions(("nsdr", "sdr")), silent)
    assert len(rows) == 4 * 4 * 2
    found = add_shapley(out, whole, rows)
    assert {(row.part, row.metric) for row in found} == {("shapley 512", "nsdr"), ("shapley 1024", "nsdr")}
    gained = {(row.part, row.source): row.value for row in rows if row.metric == "nsdr"}
    for source in SOURCES:
        shared = sum(row.value or 0 for row in found if row.source == source)
        assert shared == pytest.approx(gained["all", source] - gained["none", source])
        assert gained["none", source] == pytest.approx(0, abs=1e-6)
    stored = RowFile(out / "scores.jsonl").rows
    assert stored[-8:] == found
    assert add_shapley(out, whole, rows) == found
    assert RowFile(out / "scores.jsonl").rows == stored


def test_too_few_and_too_many_resolutions_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="small has no resolutions to take apart; leave out --parts and --shapley"):
        coalitions_of(small((1024,)))
    monkeypatch.setattr("polyres.study.evaluate.shapley.MAX_RESOLUTIONS", 2)
    with pytest.raises(ConfigError, match=r"small has 3 resolutions, so 8 coalitions; .* up to 2 resolutions"):
        coalitions_of(small())
