"""Differences between arms, and how sure they are."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from polyres.study.claims.contrasts import Term, contrast
from polyres.study.paper.data import PaperStudy, read_paper_study, seed_means, track_means
from tests.study.studies import Made, MadeArm, write_made


def study_of(folder: Path, made: Made) -> PaperStudy:
    return read_paper_study(write_made(folder, made))


def test_one_decibel_on_every_track_is_one_decibel_without_doubt(tmp_path: Path) -> None:
    study = study_of(tmp_path, Made([MadeArm("base"), MadeArm("better", gain=1.0)]))
    found = contrast(study, [Term(1, study.arms[1]), Term(-1, study.arms[0])], "nsdr")
    assert found is not None
    assert (found.value, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))
    assert (found.tracks, found.seeds, found.unit) == (8, 3, "dB")


def test_seeds_that_differ_widen_the_interval(tmp_path: Path) -> None:
    made = Made([MadeArm("base", wobble=0.2), MadeArm("better", gain=1.0, wobble=0.6)], seeds=(1, 2, 3))
    study = study_of(tmp_path, made)
    found = contrast(study, [Term(1, study.arms[1]), Term(-1, study.arms[0])], "nsdr")
    assert found is not None
    first, second = np.array([-0.6, 0, 0.6]), np.array([-0.2, 0, 0.2])
    interval = stats.ttest_ind(first + 1, second, equal_var=False).confidence_interval(0.95)
    assert found.high - found.low == pytest.approx(interval.high - interval.low, rel=0.15)
    assert found.low < found.inner[0] < 1 < found.inner[1] < found.high


def test_parts_of_one_run_share_its_seed(tmp_path: Path) -> None:
    arm = MadeArm("base", {"n_fft": [2048, 4096]}, wobble=1.0, parts={"without 2048": 0.7})
    study = study_of(tmp_path, Made([arm]))
    found = contrast(study, [Term(1, study.arms[0]), Term(-1, study.arms[0], None, "without 2048")], "nsdr")
    assert found is not None
    assert (found.low, found.high) == pytest.approx((0.7, 0.7))
    assert study.parts(study.arms[0], "nsdr") == ["without 2048"]


def test_where_lower_is_better_the_sign_is_turned(tmp_path: Path) -> None:
    made = Made([MadeArm("base"), MadeArm("better", gain=0.5)], metrics=("attack_time_error",))
    study = study_of(tmp_path, made)
    found = contrast(study, [Term(1, study.arms[1]), Term(-1, study.arms[0])], "attack_time_error")
    assert found is not None
    assert (found.value, found.unit) == (pytest.approx(0.5), "ms")


def test_stems_by_choice(tmp_path: Path) -> None:
    study = study_of(tmp_path, Made([MadeArm("base"), MadeArm("drummer", gains={"drums": 2.0})]))
    base, drummer = study.arms
    for sources, wanted in ((("drums",), 2.0), (("bass",), 0.0), (None, 0.5), (("drums", "bass"), 1.0)):
        found = contrast(study, [Term(1, drummer, sources), Term(-1, base, sources)], "nsdr")
        assert found is not None
        assert found.value == pytest.approx(wanted)
    assert contrast(study, [Term(1, base, ("violin",)), Term(-1, base)], "nsdr") is None


def test_what_is_not_scored_has_no_difference(tmp_path: Path) -> None:
    study = study_of(tmp_path, Made([MadeArm("base"), MadeArm("later", scored=False)]))
    assert contrast(study, [Term(1, study.arms[1]), Term(-1, study.arms[0])], "nsdr") is None


def test_one_track_has_no_interval(tmp_path: Path) -> None:
    study = study_of(tmp_path, Made([MadeArm("base"), MadeArm("better", gain=1)], tracks=1, seeds=(1,)))
    found = contrast(study, [Term(1, study.arms[1]), Term(-1, study.arms[0])], "nsdr")
    assert found is not None
    assert math.isnan(found.low)
    assert math.isnan(found.high)


def test_means_of_stems_then_tracks() -> None:
    values = {1: {"a": {"drums": 1.0, "bass": 3.0}, "b": {"drums": 5.0}}}
    assert track_means(values) == {1: {"a": 2.0, "b": 5.0}}
    assert track_means(values, ("bass",)) == {1: {"a": 3.0}}
    assert seed_means(values) == [3.0]  # drums 3, bass 3
    assert seed_means(values, ("vocals",)) == []
