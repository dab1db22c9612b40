"""How many listeners a study needs, before anybody has listened."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from pydantic import Field

from polyres.core.config import Config
from polyres.core.errors import ConfigError

_WANTED_POWER = 0.8


class PowerOptions(Config):
    """What is expected of a study in which every listener rates two systems on every item.

    Attributes:
        difference: true difference of two systems, in points of 100.
        items: excerpts that a listener rates.
        listener_sd: how much listeners differ in what they make of one system, standard deviation in points.
        noise_sd: of a single rating, in points.
        alpha: two-sided level before correction.
        comparisons: pairs of systems that are tested; alpha is divided by it (Holm's first step).
    """

    difference: float = Field(5.0, gt=0)
    items: int = Field(8, ge=1)
    listener_sd: float = Field(5.0, ge=0)
    noise_sd: float = Field(10.0, gt=0)
    alpha: float = Field(0.05, gt=0, lt=1)
    comparisons: int = Field(1, ge=1)

    @property
    def sd_of_differences(self) -> float:
        """Standard deviation over listeners of the mean difference over the items."""
        return math.sqrt(2 * self.listener_sd**2 + 2 * self.noise_sd**2 / self.items)


@dataclass(frozen=True)
class PowerLine:
    """What so many listeners can show.

    Attributes:
        listeners: how many.
        power: chance that the test finds the difference.
        detectable: difference in points that it finds with a chance of 80 %.
    """

    listeners: int
    power: float
    detectable: float


def power_of(options: PowerOptions, listeners: int) -> float:
    """Return the chance that a paired t-test over listeners finds the difference.

    Wilcoxon's test needs about 5 % more listeners where ratings are normal (asymptotic efficiency 3/pi).

    Args:
        options: what is expected.
        listeners: how many, >= 2.

    Raises:
        ConfigError: with fewer than two listeners.

    Source: Cohen 1988, Statistical Power Analysis, chapter 2; noncentral t distribution.
    """
    from scipy import stats

    if listeners < 2:
        raise ConfigError(f"listeners must be at least 2, got {listeners}")
    degrees = listeners - 1
    shift = options.difference / options.sd_of_differences * math.sqrt(listeners)
    limit = float(stats.t.ppf(1 - options.alpha / options.comparisons / 2, degrees))
    upper, lower = float(stats.nct.sf(limit, degrees, shift)), float(stats.nct.cdf(-limit, degrees, shift))
    # Far from zero the far tail underflows to NaN; it is nothing there.
    return min(1.0, (1.0 if math.isnan(upper) else upper) + (0.0 if math.isnan(lower) else lower))


def power_lines(options: PowerOptions, fewest: int = 10, most: int = 20) -> list[PowerLine]:
    """Return power and detectable difference for every number of listeners of a range.

    Args:
        options: what is expected.
        fewest: first number, >= 2.
        most: last number.

    Raises:
        ConfigError: if the range is empty or begins below 2.
    """
    if fewest > most:
        raise ConfigError(f"listeners from {fewest} to {most} are none; give the smaller number first")
    return [PowerLine(count, power_of(options, count), detectable(options, count)) for count in range(fewest, most + 1)]


def detectable(options: PowerOptions, listeners: int, power: float = _WANTED_POWER) -> float:
    """Return the smallest difference in points that is found with a given chance.

    Args:
        options: what is expected; its own difference does not matter.
        listeners: how many, >= 2.
        power: wanted, between alpha and 1.

    Raises:
        ConfigError: with fewer than two listeners.
    """

    def enough(difference: float) -> bool:
        return power_of(options.with_values({"difference": difference}), listeners) >= power

    return _smallest(enough, 20.0 * options.sd_of_differences)


def _smallest(enough: Callable[[float], bool], most: float) -> float:
    low, high = 0.0, most
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def abx_power(share_right: float, trials: int, alpha: float = 0.05) -> float:
    """Return the chance that an exact one-sided ABX test of so many answers shows a difference that is heard.

    Args:
        share_right: true share of right answers, 0.5 to 1.
        trials: answers, >= 1.
        alpha: level.

    Raises:
        ConfigError: if share or trials are out of range.
    """
    from scipy import stats

    if not 0.5 <= share_right <= 1:
        raise ConfigError(f"share_right must lie between 0.5 and 1, got {share_right}")
    if trials < 1:
        raise ConfigError(f"trials must be at least 1, got {trials}")
    needed = next((hits for hits in range(trials + 1) if stats.binom.sf(hits - 1, trials, 0.5) <= alpha), None)
    return 0.0 if needed is None else float(stats.binom.sf(needed - 1, trials, share_right))
