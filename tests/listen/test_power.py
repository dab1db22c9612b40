"""Power against statsmodels, simulation and sums of the binomial distribution."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from scipy import stats

from polyres.core.errors import ConfigError
from polyres.listen.power import PowerOptions, abx_power, detectable, power_lines, power_of


@pytest.mark.parametrize("listeners", [2, 10, 14, 20])
@pytest.mark.parametrize("difference", [1.0, 4.0, 9.0])
def test_power_is_that_of_a_paired_t_test(listeners: int, difference: float) -> None:
    from statsmodels.stats.power import TTestPower

    options = PowerOptions(difference=difference, items=6, comparisons=3)
    spread = math.sqrt(2 * 5.0**2 + 2 * 10.0**2 / 6)
    expected = TTestPower().power(difference / spread, listeners, 0.05 / 3)
    assert power_of(options, listeners) == pytest.approx(expected, abs=1e-6)


def test_power_is_how_often_a_test_finds_the_difference() -> None:
    options = PowerOptions(difference=6.0, items=5, listener_sd=4.0, noise_sd=9.0)
    generator = np.random.default_rng(0)
    tastes = generator.normal(0.0, 4.0, (4000, 12, 2)).repeat(5, axis=1)
    ratings = tastes + generator.normal(0.0, 9.0, tastes.shape) + np.array([6.0, 0.0])
    means = (ratings[..., 0] - ratings[..., 1]).reshape(4000, 12, 5).mean(axis=2)
    found = stats.ttest_1samp(means, 0.0, axis=1).pvalue < 0.05
    assert found.mean() == pytest.approx(power_of(options, 12), abs=0.025)


def test_what_can_be_detected_has_a_chance_of_eighty_percent() -> None:
    options = PowerOptions()
    smallest = detectable(options, 15)
    assert power_of(options.with_values({"difference": smallest}), 15) == pytest.approx(0.8, abs=1e-6)


def test_more_listeners_find_more() -> None:
    lines = power_lines(PowerOptions())
    assert [line.listeners for line in lines] == list(range(10, 21))
    assert all(a.power < b.power and a.detectable > b.detectable for a, b in pairwise(lines))
    assert power_of(PowerOptions(difference=1000.0), 20) == pytest.approx(1.0)


def test_abx_power_is_a_sum_of_the_binomial_distribution() -> None:
    # 12 of 16 are needed for 5 %.
    expected = sum(math.comb(16, hits) * 0.8**hits * 0.2 ** (16 - hits) for hits in range(12, 17))
    assert abx_power(0.8, 16) == pytest.approx(expected)
    assert abx_power(1.0, 4) == 0.0  # even 4 of 4 have a chance of 1/16


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: power_of(PowerOptions(), 1), "listeners must be at least 2, got 1"),
        (lambda: power_lines(PowerOptions(), 9, 8), "listeners from 9 to 8 are none"),
        (lambda: abx_power(0.4, 5), "share_right must lie between 0.5 and 1, got 0.4"),
        (lambda: abx_power(0.6, 0), "trials must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_planned_is_refused(call, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConfigError, match=message):
        call()
