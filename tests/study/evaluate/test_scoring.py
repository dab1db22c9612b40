"""Scores of one track."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.study.evaluate.run import check_metrics, present_stems, score_track

RATE = 4000
NAMES = ("drums", "bass", "other")


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_known_error_has_its_ratio_everywhere() -> None:
    stems = noise(3, 2, 5 * RATE)
    error = 10 ** (-12.0 / 20)
    found = score_track(stems, stems * (1 + error), NAMES, ("nsdr", "sdr"), RATE)
    assert found.sources == NAMES
    for name in ("nsdr", "sdr"):
        assert list(found.values[name].values()) == pytest.approx([12.0] * 3, abs=1e-3)
    assert found.frames["sdr"].shape == (3, 5)


def test_the_track_value_is_the_median_over_windows_that_have_one() -> None:
    stems = noise(2, 1, 4 * RATE)
    estimates = stems.clone()
    for window, error_db in enumerate((-20.0, -10.0, -30.0)):  # the fourth window is exact: infinite
        part = slice(window * RATE, (window + 1) * RATE)
        estimates[..., part] *= 1 + 10 ** (error_db / 20)
    found = score_track(stems, estimates, ("a", "b"), ("sdr",), RATE)
    assert list(found.values["sdr"].values()) == pytest.approx([20.0] * 2, abs=1e-3)
    assert found.frames["sdr"].isinf().sum(dim=1).tolist() == [1, 1]


def test_stems_a_track_lacks_are_left_out_and_cost_the_others_nothing() -> None:
    stems = noise(3, 2, 3 * RATE)
    stems[1] = 0.0
    estimates = stems + 0.1 * noise(3, 2, 3 * RATE, seed=1)
    found = score_track(stems, estimates, NAMES, ("nsdr", "sdr", "isr", "sir", "sar"), RATE)
    assert found.sources == ("drums", "other")
    assert all(math.isfinite(value) for values in found.values.values() for value in values.values())
    assert all(set(values) == {"drums", "other"} for values in found.values.values())
    assert present_stems(stems) == [0, 2]


def test_silence_has_no_scores() -> None:
    found = score_track(torch.zeros(3, 2, RATE), torch.zeros(3, 2, RATE), NAMES, ("nsdr",), RATE)
    assert found.sources == ()
    assert found.values["nsdr"] == {}


def test_log_wmse_is_for_absent_stems_too() -> None:
    stems = noise(3, 2, RATE) * 0.1
    stems[1] = 0.0
    found = score_track(stems, stems + 0.01, NAMES, ("log_wmse", "nsdr"), RATE)
    assert set(found.values["log_wmse"]) == set(NAMES)
    assert set(found.values["nsdr"]) == {"drums", "other"}


def test_metric_names_in_any_case() -> None:
    assert check_metrics(["sdr", "NSDR", "SDR"]) == ("sdr", "nsdr")
    with pytest.raises(UnknownNameError, match="unknown metric 'sdq'; did you mean 'sdr'"):
        check_metrics(["SDQ"])
    for name in ("stoi", "PESQ"):
        with pytest.raises(ConfigError, match=f"{name} predicts what listeners say of speech .*; choose among sdr, "):
            check_metrics(["nsdr", name])
