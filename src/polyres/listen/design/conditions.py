"""Plan trials per listener: balanced, seeded and reproducible."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from polyres.core.errors import InputError
from polyres.datasets.stem_files import StemFile
from polyres.listen.design.files import PAIR_KINDS, SINGLE_KINDS, ListenStudy, Page

PAIR_MARK = "+"
TIE = "tie"


@dataclass(frozen=True)
class TrialPlan:
    """One trial of one listener; `polyres.listen.design.conditions.plan_for` lists them in order."""

    index: int  # position in the listener's test from 0; enough to name the trial to a page
    page: str  # id of the page
    repeat: int  # 0 for the first time that the page comes, then 1, 2, …
    training: bool  # whether it counts for nothing
    # condition ids in the order of their buttons: all of the page for mushra and bs2132, two for abx and ab (A, B), one
    # for acr and dcr
    stimuli: tuple[str, ...]
    x: str | None = None  # abx only, the condition that X is

    @property
    def pair(self) -> str:
        """The `condition` of a rating of a pair: both ids in alphabetical order."""
        return PAIR_MARK.join(sorted(self.stimuli))

    def pair_value(self, answer: str) -> float:
        """Return the `value` of an answer: abx 1 if right, else 0; ab 1 if the first id of `pair`, 0.5 for a tie."""
        if answer == TIE and self.x is None:
            return 0.5
        if answer not in self.stimuli:
            raise InputError(f"answer {answer!r} is none of {', '.join(self.stimuli)}")
        return float(answer == (self.x if self.x is not None else min(self.stimuli)))


def williams_square(size: int) -> list[list[int]]:
    """Rows in which every number stands in every place equally often and follows every other equally often.

    Source: Williams 1949, Experimental Designs Balanced for the Estimation of Residual Effects of Treatments.
    """
    if size < 1:
        raise InputError(f"size must be at least 1, got {size}")
    zigzag = [(number + 1) // 2 if number % 2 else (size - number // 2) % size for number in range(size)]
    rows = [[(number + shift) % size for number in zigzag] for shift in range(size)]
    return rows if size % 2 == 0 else [*rows, *(row[::-1] for row in rows)]


def plan_for(study: ListenStudy, listener_index: int) -> list[TrialPlan]:
    """Lay out the whole test of one listener: training, then the pages, then those that come again, part by part."""
    if listener_index < 0:
        raise InputError(f"listener_index must be at least 0, got {listener_index}")
    plans = [_plan(single, listener_index) for single in study.singles()]
    return [replace(trial, index=index) for index, trial in enumerate(trial for plan in plans for trial in plan)]


def _plan(study: ListenStudy, listener_index: int) -> list[TrialPlan]:
    chosen = _subset(study, listener_index)
    heard: list[TrialPlan] = []
    for number in range(study.design.rounds + 1):
        given = study.design.order == "given"
        pages = chosen if given else _order(chosen, study.design.seed, listener_index + number)
        if number == study.design.rounds:
            pages = pages[: study.design.repeats]
        groups = [_trials(study, page, number, listener_index) for page in pages]
        if not given:
            groups = [[trial for group in groups for trial in group]]
        if study.kind in (*PAIR_KINDS, *SINGLE_KINDS):
            groups = [_mixed(group, study.design.seed, listener_index, number) for group in groups]
        heard += [trial for group in groups for trial in group]
    heard = _coins(study, heard, listener_index, 0)
    first = [trial for page in study.training for trial in _trials(study, page, 0, listener_index)]
    training = _coins(study, first, listener_index, 1)
    counted = [*((trial, True) for trial in training), *((trial, False) for trial in heard)]
    return [
        TrialPlan(index, trial.page, trial.repeat, is_training, trial.stimuli, trial.x)
        for index, (trial, is_training) in enumerate(counted)
    ]


def _subset(study: ListenStudy, listener: int) -> list[Page]:
    """Return the next pages of a cyclic sequence, so that each is used equally often."""
    pages = list(study.pages)
    wanted = study.design.pages_per_listener
    if wanted is None or wanted >= len(pages):
        return pages
    round_of = np.random.default_rng((study.design.seed, 1)).permutation(len(pages))
    return [pages[round_of[(listener * wanted + number) % len(pages)]] for number in range(wanted)]


def _order(pages: list[Page], seed: int, listener: int) -> list[Page]:
    square = williams_square(len(pages))
    names = np.random.default_rng((seed, 2)).permutation(len(pages))
    return [pages[names[number]] for number in square[listener % len(square)]]


def _trials(study: ListenStudy, page: Page, repeat: int, listener: int) -> list[TrialPlan]:
    """Return the trials of a page: one for all sounds, one per pair, or one per sound."""
    ids = sorted(page.audio)
    number = [known.id for known in (*study.training, *study.pages)].index(page.id)
    if study.kind in PAIR_KINDS:
        groups = [tuple(pair) for pair in combinations(ids, 2)]
    elif study.kind in SINGLE_KINDS:
        groups = [(name,) for name in ids]
    else:
        square = williams_square(len(ids))
        generator = np.random.default_rng((study.design.seed, 3, number))
        names, offset = generator.permutation(len(ids)), int(generator.integers(len(square)))
        # A page that comes again has its sounds in other places.
        row = square[(listener + offset + repeat * (len(square) // 2 or 1)) % len(square)]
        groups = [tuple(ids[names[place]] for place in row)]
    return [TrialPlan(0, page.id, repeat, False, group) for group in groups]


def _mixed(trials: list[TrialPlan], seed: int, listener: int, number: int) -> list[TrialPlan]:
    order = np.random.default_rng((seed, 4, listener, number)).permutation(len(trials))
    return [trials[place] for place in order]


def _coins(study: ListenStudy, trials: list[TrialPlan], listener: int, part: int) -> list[TrialPlan]:
    """Draw which of a pair is A and which is X, balanced and unpredictable."""
    if study.kind not in PAIR_KINDS:
        return trials
    generator = np.random.default_rng((study.design.seed, 5, listener, part))
    swaps, picks = (generator.permutation((np.arange(len(trials)) + listener) % 2) for _ in range(2))
    tossed = []
    for trial, swap, pick in zip(trials, swaps, picks, strict=True):
        stimuli = trial.stimuli[::-1] if swap else trial.stimuli
        x = stimuli[pick] if study.kind == "abx" else None
        tossed.append(TrialPlan(0, trial.page, trial.repeat, False, stimuli, x))
    return tossed


@dataclass(frozen=True)
class Excerpt:
    """A part of a song."""

    start_s: float  # in seconds of the song
    active_share: float  # share of its seconds in which all sources sound, 0 to 1


def shared_activity(stems: Mapping[str, StemFile]) -> np.ndarray:
    """Return bool per second of the song: whether every stem is active in it. `stems`: name -> measured stem."""
    masks = [stem.active for stem in stems.values()]
    length = min(len(mask) for mask in masks)
    return np.logical_and.reduce([mask[:length] for mask in masks])


def choose_excerpts(
    active: np.ndarray, *, count: int, length_s: float, min_share: float, generator: np.random.Generator
) -> list[Excerpt]:
    """Draw excerpts that do not overlap from all that are active enough, each with the same chance."""
    seconds = int(np.ceil(length_s))
    if len(active) < seconds:
        raise InputError(f"only {len(active)} s long, excerpts are {length_s:g} s; make them shorter")
    sums = np.concatenate([[0], np.cumsum(active)])
    shares = (sums[seconds:] - sums[:-seconds]) / seconds
    if shares.max() < min_share:
        raise InputError(
            f"no {length_s:g} s in which all sources sound for {min_share:.0%} of the time (best: {shares.max():.0%}); "
            "lower excerpts.min_active_share, make excerpts shorter or name fewer sources"
        )
    free = np.flatnonzero(shares >= min_share - 1e-9)
    chosen: list[int] = []
    while len(chosen) < count and len(free):
        start = int(free[generator.integers(len(free))])
        chosen.append(start)
        free = free[np.abs(free - start) >= seconds]
    return [Excerpt(float(start), float(shares[start])) for start in sorted(chosen)]
