"""Learning-rate schedules by name: functions of the place in the run, so that a resumed run follows the same curve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polyres.core.catalogue import Catalogue

if TYPE_CHECKING:
    from polyres.training.config import ScheduleConfig

SCHEDULES: Catalogue[float] = Catalogue("schedule")
"""Every entry maps (Place, ScheduleConfig) to a factor on the learning rate, 0 to 1."""


@dataclass(frozen=True)
class Place:
    """A place in a run."""

    progress: float
    """Share of the run that is over, 0 to 1, by steps or by seconds, whichever is further."""
    epoch: int = 0
    """Number of the running epoch, from 0, counted from the start of the run whatever came between."""
    epochs: int | None = None
    """How many epochs the run has, where that is known."""
    reductions: int = 0
    """How often validation has stopped getting better."""


@dataclass
class Plateau:
    """Watches the validation score, and counts how often it stopped rising."""

    best: float | None = None
    waited: int = 0
    """Validations since the best."""
    reductions: int = 0

    def take(self, score: float, patience: int) -> None:
        """Take in the score of a validation.

        Args:
            score: the higher the better.
            patience: validations without a new best that are let pass; the next one counts as a reduction.
        """
        if self.best is None or score > self.best:
            self.best, self.waited = score, 0
            return
        self.waited += 1
        if self.waited > patience:
            self.reductions += 1
            self.waited = 0


@SCHEDULES.register("constant", "warm-up, then the full rate")
def _constant(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp, then 1."""
    return _ramp(place, config)


@SCHEDULES.register("cosine", "warm-up, then half a cosine down to final_ratio")
def _cosine(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp, then half a cosine that ends at the final ratio when the run does."""
    if place.progress < config.warmup:
        return _ramp(place, config)
    after = (min(place.progress, 1.0) - config.warmup) / (1.0 - config.warmup)
    return config.final_ratio + (1.0 - config.final_ratio) * _half_cosine(after)


@SCHEDULES.register("cosine_epochs", "by absolute epoch: warmup_epochs, then half a cosine, never below final_ratio")
def _cosine_epochs(place: Place, config: ScheduleConfig) -> float:
    """Return (epoch + 1) / warmup_epochs, then half a cosine over the rest, cut off at the final ratio."""
    if place.epoch < config.warmup_epochs:
        return (place.epoch + 1) / config.warmup_epochs
    rest = max((place.epochs or 0) - config.warmup_epochs, 1)
    return max(config.final_ratio, _half_cosine(min((place.epoch - config.warmup_epochs) / rest, 1.0)))


@SCHEDULES.register("step", "warm-up, then times factor after every so many epochs (every_epochs)")
def _step(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp times a power of the factor that grows with the epochs."""
    return _ramp(place, config) * _lowered(place.epoch // config.every_epochs, config)


@SCHEDULES.register("plateau", "warm-up, then times factor whenever the score has not risen for patience validations")
def _plateau(place: Place, config: ScheduleConfig) -> float:
    """Return the warm-up ramp times a power of the factor that grows with the reductions."""
    return _ramp(place, config) * _lowered(place.reductions, config)


def _ramp(place: Place, config: ScheduleConfig) -> float:
    """Return the straight line from 0 to 1 of the warm-up, then 1."""
    return place.progress / config.warmup if place.progress < config.warmup else 1.0


def _half_cosine(x: float) -> float:
    """Return the half period of a cosine from 1 at 0 down to 0 at 1."""
    return 0.5 * (1.0 + math.cos(math.pi * x))


def _lowered(times: int, config: ScheduleConfig) -> float:
    """Return the factor applied so many times, but not below the final ratio."""
    return max(config.factor**times, config.final_ratio)


def rate_factor(place: Place, config: ScheduleConfig) -> float:
    """Say by how much the learning rate is multiplied at a place of the run.

    Args:
        place: where the run stands.
        config: the schedule.

    Returns:
        The factor, 0 to 1.
    """
    return SCHEDULES.build(config.name, place, config)
