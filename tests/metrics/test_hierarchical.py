"""Intervals over tracks and seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from polyres.metrics.hierarchical import resample


def test_equal_differences_are_without_doubt() -> None:
    base = np.random.default_rng(0).normal(5, 3, (3, 8))
    found = resample([base + 1, -base[[1, 0, 2]]])
    assert found.value == pytest.approx(1.0)
    found = resample([np.tile(base[0] + 1, (3, 1)), np.tile(-base[0], (2, 1))])
    assert (found.value, *found.interval()) == pytest.approx((1.0, 1.0, 1.0))


def test_one_seed_knows_of_tracks_alone() -> None:
    scores = np.random.default_rng(1).normal(0.4, 1, (1, 60))
    low, high = resample([scores]).interval()
    wanted = stats.ttest_1samp(scores[0], 0).confidence_interval(0.95)
    assert (low, high) == pytest.approx((wanted.low, wanted.high), abs=0.03)


def test_seeds_alone_give_nearly_welchs_interval() -> None:
    first, second = np.array([0.4, 1.0, 1.6]), np.array([-0.2, 0.0, 0.2])
    low, high = resample([np.tile(first[:, None], 40), -np.tile(second[:, None], 40)]).interval()
    wanted = stats.ttest_ind(first, second, equal_var=False).confidence_interval(0.95)
    assert (low + high) / 2 == pytest.approx(1.0, abs=0.05)
    assert high - low == pytest.approx(wanted.high - wanted.low, rel=0.15)  # resampling three seeds knows few values


def test_three_seeds_and_twenty_tracks_cover_the_truth_as_often_as_said() -> None:
    rng = np.random.default_rng(2)
    inside = {0.95: 0, 0.9: 0}
    for _ in range(150):
        tracks = rng.normal(0, 0.3, 20)  # how much the arms differ on a track
        arms = [rng.normal(0, 0.1, (3, 1)) + rng.normal(0, 0.2, (3, 20)) for _ in range(2)]
        found = resample([arms[0] + 0.5 + tracks, -arms[1]], resamples=300)
        for level in inside:
            low, high = found.interval(level)
            inside[level] += low <= 0.5 <= high
    assert 0.91 <= inside[0.95] / 150 <= 0.99
    assert 0.85 <= inside[0.9] / 150 <= 0.96


def test_one_track_has_no_interval() -> None:
    low, high = resample([np.ones((3, 1))]).interval()
    assert math.isnan(low)
    assert math.isnan(high)
