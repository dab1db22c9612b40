"""Estimate how many listeners a study needs, and simulate listeners with known effects."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from pydantic import Field

from polyres.core.catalogue import nearest
from polyres.core.config import Config
from polyres.core.errors import ConfigError
from polyres.core.whole_files import write_whole
from polyres.listen.analysis.ratings import SIMULATED_PREFIX, Rating
from polyres.listen.design.conditions import TrialPlan, plan_for
from polyres.listen.design.files import PAIR_KINDS, Attribute, Condition, ListenStudy

_WANTED_POWER = 0.8


class PowerOptions(Config):
    """Assumptions about a study in which every listener rates two systems on every item."""

    difference: float = Field(5.0, gt=0)  # true difference of two systems, in points of 100
    items: int = Field(8, ge=1)  # excerpts that a listener rates
    # how much listeners differ in what they make of one system, standard deviation in points
    listener_sd: float = Field(5.0, ge=0)
    noise_sd: float = Field(10.0, gt=0)  # of a single rating, in points
    alpha: float = Field(0.05, gt=0, lt=1)  # two-sided level before correction
    comparisons: int = Field(1, ge=1)  # pairs of systems that are tested; alpha is divided by it (Holm's first step)

    @property
    def sd_of_differences(self) -> float:
        """Standard deviation over listeners of the mean difference over the items."""
        return math.sqrt(2 * self.listener_sd**2 + 2 * self.noise_sd**2 / self.items)


@dataclass(frozen=True)
class PowerLine:
    """Power of a study with a given number of listeners."""

    listeners: int  # how many
    power: float  # chance that the test finds the difference
    detectable: float  # difference in points that it finds with a chance of 80 %


def power_of(options: PowerOptions, listeners: int) -> float:
    """Return the chance that a paired t-test over listeners finds the difference.

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
        fewest: first number, >= 2.

    Raises:
        ConfigError: if the range is empty or begins below 2.
    """
    if fewest > most:
        raise ConfigError(f"listeners from {fewest} to {most} are none; give the smaller number first")
    return [PowerLine(count, power_of(options, count), detectable(options, count)) for count in range(fewest, most + 1)]


def detectable(options: PowerOptions, listeners: int) -> float:
    """Return the smallest difference in points that is found with a chance of 80 %."""

    def enough(difference: float) -> bool:
        return power_of(options.with_values({"difference": difference}), listeners) >= _WANTED_POWER

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


SIMULATED_NAME = "simulated_ratings.jsonl"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_TYPICAL = {"reference": 100.0, "mid_anchor": 45.0, "low_anchor": 22.0, "interference_anchor": 30.0}
_BEST_SYSTEM, _STEP_DOWN = 75.0, 7.0
_POINTS_PER_LOGIT, _POINTS_TO_HEAR = 10.0, 20.0


class SimulateOptions(Config):
    """Simulated listeners and their effects.

    All but `seed` and counts are points of a scale of 100, whatever the scale of the study.
    """

    listeners: int = Field(12, ge=1)  # how many careful ones
    careless: int = Field(0, ge=0)  # how many more who answer at random
    seed: int = Field(0, ge=0)  # of everything
    # label of a condition (or "attribute:label") -> true score; others get typical ones, systems from 75 downwards by 7
    effects: dict[str, float] = {}
    listener_sd: float = Field(5.0, ge=0)  # how much higher or lower a listener rates everything
    item_sd: float = Field(6.0, ge=0)  # the same of an item
    listener_condition_sd: float = Field(3.0, ge=0)  # how much listeners differ about a condition
    item_condition_sd: float = Field(3.0, ge=0)  # how much a condition differs between items
    # of a single rating; the hidden reference has a quarter of it and none of the others
    noise_sd: float = Field(7.0, ge=0)


def true_scores(study: ListenStudy, attribute: Attribute, effects: dict[str, float]) -> dict[str, float]:
    """Return the score of every condition in points of 100."""
    labels = [condition.label for condition in study.conditions]
    names = [*labels, *(f"{known.name}:{label}" for known in study.attributes for label in labels)]
    unknown = next((name for name in effects if name not in names), None)
    if unknown is not None:
        near = nearest(unknown, names)
        hint = f"; did you mean {near!r}?" if near else ""
        raise ConfigError(f"effect of {unknown!r}, which is no condition; there are {', '.join(labels)}{hint}")
    scores, systems = {}, 0
    for condition in study.conditions:
        typical = _TYPICAL.get(condition.role, _BEST_SYSTEM - _STEP_DOWN * systems)
        systems += condition.role == "system"
        given = effects.get(condition.label, typical)
        scores[condition.id] = effects.get(f"{attribute.name}:{condition.label}", given)
    return scores


def simulate(study: ListenStudy, options: SimulateOptions) -> list[Rating]:
    """Simulate the ratings of a whole study, each listener in the order that the design gives.

    Scores add up from true effect, listener, item, their interactions and noise, rounded and kept on the scale.
    Preferences follow a logistic law (10 points per logit), ABX answers are right with 1 − exp(−|difference| / 20) / 2.

    Returns:
        Ratings of listeners whose names begin with "simulated-"; the same for the same study and options.

    Raises:
        ConfigError: if an effect names no condition.
    """
    everyone = range(options.listeners + options.careless)
    people = [_Person(single, options, number) for number in everyone for single in study.singles()]
    return [rating for person in people for rating in person.ratings()]


def write_simulated(ratings: list[Rating], folder: Path) -> Path:
    """Write simulated ratings as JSON lines beside a study, never into its database.

    Args:
        ratings: of `simulate`.

    Raises:
        OutputError: when it cannot be written.
    """
    lines = "".join(json.dumps(rating.to_dict()) + "\n" for rating in ratings)
    return write_whole(folder / SIMULATED_NAME, lines)


class _Person:
    """One simulated listener."""

    def __init__(self, study: ListenStudy, options: SimulateOptions, number: int) -> None:
        self._study, self._options, self._number = study, options, number
        self._generator = np.random.default_rng((options.seed, 100, number))
        self._level = self._generator.normal(0.0, options.listener_sd)
        self._is_careless = number >= options.listeners
        word = "careless" if self._is_careless else "listener"
        self._name = f"{SIMULATED_PREFIX}{word}-{number + 1:03d}"
        self._tastes: dict[tuple[str, str], float] = {}
        self._scores = {known.name: true_scores(study, known, options.effects) for known in study.attributes}

    def ratings(self) -> Iterator[Rating]:
        """Yield the answers in the order of the plan."""
        for trial in plan_for(self._study, self._number):
            for attribute in self._study.attributes[: 1 if self._study.kind == "abx" else None]:
                if self._study.kind in PAIR_KINDS:
                    yield self._choice(trial, attribute)
                else:
                    for condition_id in trial.stimuli:
                        condition = self._study.condition(condition_id)
                        yield self._rating(trial, attribute, condition_id, self._value(trial, attribute, condition))

    def _value(self, trial: TrialPlan, attribute: Attribute, condition: Condition) -> float:
        low, high, is_whole = self._study.scale_of(attribute.name)
        if self._is_careless:
            points = float(self._generator.uniform(0.0, 100.0))
        else:
            points = self._points(trial, attribute, condition)
        value = low + (high - low) * min(100.0, max(0.0, points)) / 100.0
        return float(round(value)) if is_whole else round(value, 1)

    def _points(self, trial: TrialPlan, attribute: Attribute, condition: Condition) -> float:
        truth, noise = self._scores[attribute.name][condition.id], self._generator.normal(0.0, self._options.noise_sd)
        if condition.role == "reference":
            return float(truth - abs(noise) / 4)
        key = (attribute.name, condition.id)
        if key not in self._tastes:
            self._tastes[key] = float(self._generator.normal(0.0, self._options.listener_condition_sd))
        return float(truth + self._level + self._tastes[key] + self._of_item(trial.page, *key) + noise)

    def _of_item(self, page: str, attribute: str, condition: str) -> float:
        """Return the offset of an item, the same for every listener."""
        item = self._study.page(page).item
        words = [int(hashlib.sha256(text.encode()).hexdigest()[:16], 16) for text in (item, attribute, condition)]
        shared = np.random.default_rng((self._options.seed, 200, words[0])).normal(0.0, self._options.item_sd)
        own = np.random.default_rng((self._options.seed, 300, *words)).normal(0.0, self._options.item_condition_sd)
        return float(shared + own)

    def _choice(self, trial: TrialPlan, attribute: Attribute) -> Rating:
        scores = self._scores[attribute.name]
        first, second = trial.stimuli
        gap = scores[first] - scores[second]
        luck = float(self._generator.uniform())
        if trial.x is not None:
            knows = 0.0 if self._is_careless else 1.0 - math.exp(-abs(gap) / _POINTS_TO_HEAR)
            other = second if trial.x == first else first
            answer = trial.x if luck < 0.5 + knows / 2 else other
        else:
            own = 0.0 if self._is_careless else gap + float(self._generator.normal(0.0, self._options.noise_sd))
            answer = first if luck < 1.0 / (1.0 + math.exp(-own / _POINTS_PER_LOGIT)) else second
        return self._rating(trial, attribute, trial.pair, trial.pair_value(answer), answer)

    def _rating(self, trial: TrialPlan, attribute: Attribute, condition: str, value: float, answer: str = "") -> Rating:
        begun = _LONG_AGO + timedelta(days=self._number, minutes=2 * trial.index)
        start, end = (moment.strftime("%Y-%m-%dT%H:%M:%SZ") for moment in (begun, begun + timedelta(seconds=90)))
        return Rating(
            self._name,
            self._name,
            trial.page,
            trial.repeat,
            condition,
            attribute.name,
            value,
            self._study.kind,
            answer,
            start,
            end,
            1,
            len(trial.stimuli),
        )
