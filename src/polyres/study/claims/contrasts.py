"""Differences between arms over the same tracks, and what an arm needs before a difference means anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from polyres.metrics.aggregate import MIN_TRACKS
from polyres.metrics.catalogue import METRICS
from polyres.metrics.hierarchical import resample
from polyres.study.paper.data import BASELINES, WHOLE, Arm, PaperRun, PaperStudy, baseline_arm, track_means

MIN_SEEDS = 3
MIN_STEPS = 1000
"""A run of so many steps counts as trained, flat or not."""
FEWEST_STEPS, FLAT_DB, FLAT_SHARE, FLAT_POINTS = 100, 0.1, 0.75, 4
"""So does a shorter one whose best validation score rises by less than this in the last quarter of its steps."""


@dataclass(frozen=True)
class Term:
    """One mean score and its factor."""

    factor: float  # it is multiplied by
    arm: Arm  # whose score
    sources: tuple[str, ...] | None = None  # stems that count; all if None
    part: str = WHOLE  # which resolutions listened


@dataclass(frozen=True)
class Contrast:
    """A weighted sum of mean scores; positive is better, for every metric."""

    value: float  # mean over tracks and seeds
    low: float  # lower end of the 95 % interval; NaN with fewer than two tracks
    high: float  # upper end
    tracks: int  # how many
    seeds: int  # fewest seeds of an arm
    metric: str  # name
    unit: str  # of the metric
    inner: tuple[float, float] = (float("nan"), float("nan"))  # the 90 % interval, for tests of equivalence


def contrast(study: PaperStudy, terms: Sequence[Term], metric: str) -> Contrast | None:
    """Add up mean scores of the tracks that all terms have; None without such a track. Positive is better.

    The interval is that of tracks and seeds drawn anew (`polyres.metrics.hierarchical`); terms of one arm share its
    seeds.
    """
    sign = 1.0 if METRICS.build(metric).direction == "higher" else -1.0
    means = [track_means(study.values(term.arm, metric, term.part), term.sources) for term in terms]
    if not all(means):
        return None
    seeds_of: dict[str, set[int]] = {}
    for term, of in zip(terms, means, strict=True):
        seeds_of[term.arm.name] = seeds_of.get(term.arm.name, set(of)) & set(of)
    kept = [[of[seed] for seed in sorted(seeds_of[term.arm.name])] for term, of in zip(terms, means, strict=True)]
    shared = [track for track in study.tracks if all(track in of for seeds in kept for of in seeds)]
    if not shared or not all(kept):
        return None
    arms: dict[str, np.ndarray] = {}
    for term, seeds in zip(terms, kept, strict=True):
        table = sign * term.factor * np.array([[of[track] for track in shared] for of in seeds])
        arms[term.arm.name] = arms[term.arm.name] + table if term.arm.name in arms else table
    found = resample(list(arms.values()))
    fewest = min(len(table) for table in arms.values())
    unit, inner = METRICS.build(metric).unit, found.interval(0.9)
    return Contrast(found.value, *found.interval(), len(shared), fewest, metric, unit, inner)


def doubts(study: PaperStudy, *arms: Arm) -> tuple[str, ...]:
    """Say why nothing about these arms can be decided yet; nothing where all is as it should be.

    A difference counts from three seeds and six tracks on, between arms that have learned something (each above
    silence and above an equal share of the mixture, with its interval) and that have been trained for 1000 steps, or
    for 100 and until their validation score was flat.
    """
    return tuple(dict.fromkeys(reason for arm in arms for reason in _doubts(study, arm.name)))


@lru_cache(maxsize=512)
def _doubts(study: PaperStudy, name: str) -> tuple[str, ...]:
    arm = study.arm(name)
    values = {} if arm is None else study.values(arm, study.primary)
    if arm is None or not values:
        return (f"{name} has no scores",)
    reasons = []
    if len(values) < MIN_SEEDS:
        reasons.append(f"fewer than {MIN_SEEDS} seeds")
    if min(len(tracks) for tracks in values.values()) < MIN_TRACKS:
        reasons.append(f"fewer than {MIN_TRACKS} tracks")
    trained = [_short(run) for run in arm.runs if run.seed in values]
    reasons += [f"{name}: {reason}" for reason in dict.fromkeys(trained) if reason is not None]
    for baseline, label in BASELINES.items():
        found = contrast(study, [Term(1, arm), Term(-1, baseline_arm(study, baseline))], study.primary)
        if found is None:
            reasons.append(f"no scores of {label} (give the command of the study again)")
        elif not found.low > 0:
            reasons.append(
                f"{name} is not surely above {label} ({found.value:+.2f}, {found.low:+.2f} to {found.high:+.2f})"
            )
    return tuple(reasons)


def _short(run: PaperRun) -> str | None:
    """Say why a run counts as too short; None where it does not."""
    steps = None if run.cost is None else run.cost.steps
    if steps is None:
        return "it is not known how many steps it took"
    if steps >= MIN_STEPS:
        return None
    points = run.validations()
    flat = len(points) >= FLAT_POINTS and (
        max(one.score for one in points)
        - max((one.score for one in points if one.step <= FLAT_SHARE * steps), default=-np.inf)
        < FLAT_DB
    )
    if steps >= FEWEST_STEPS and flat:
        return None
    why = "its validation score still rises" if points else "there is no learning curve"
    return f"{steps} steps, fewer than {MIN_STEPS}, and {why if steps >= FEWEST_STEPS else 'too few to be flat'}"
