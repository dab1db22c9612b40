"""Orders are balanced, seeded and complete."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.audio.track_files import Part
from polyres.core.errors import InputError
from polyres.datasets.stem_files import StemFile
from polyres.listen.design.conditions import TIE, TrialPlan, choose_excerpts, plan_for, shared_activity, williams_square
from polyres.listen.design.files import Design
from tests.listen.studies import a_study


@pytest.mark.parametrize("size", range(1, 13))
def test_every_number_stands_everywhere_and_follows_every_other_equally_often(size: int) -> None:
    square = williams_square(size)
    times = len(square) // size
    assert all(Counter(column) == dict.fromkeys(range(size), times) for column in zip(*square, strict=True))
    followers = Counter(pair for row in square for pair in pairwise(row))
    assert followers == {(a, b): times for a in range(size) for b in range(size) if a != b}


def test_a_square_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="size must be at least 1, got 0"):
        williams_square(0)


def test_a_listener_before_the_first_is_refused() -> None:
    with pytest.raises(InputError, match="listener_index must be at least 0, got -1"):
        plan_for(a_study(), -1)


def test_sounds_take_every_place_of_every_page_equally_often() -> None:
    study = a_study()
    places: dict[str, Counter[tuple[str, int]]] = {}
    for listener in range(20):  # 5 sounds: a square of 10 rows, twice
        for trial in plan_for(study, listener):
            places.setdefault(trial.page, Counter()).update((name, place) for place, name in enumerate(trial.stimuli))
    assert all(set(counts.values()) == {4} and len(counts) == 25 for counts in places.values())


def test_pages_take_every_place_equally_often() -> None:
    study = a_study(pages=6, training=0)
    counts = Counter((trial.page, trial.index) for listener in range(12) for trial in plan_for(study, listener))
    assert set(counts.values()) == {2}


def test_subsets_cover_all_pages_equally() -> None:
    study = a_study(pages=6, training=0, design=Design(pages_per_listener=4))
    counts = Counter(trial.page for listener in range(3) for trial in plan_for(study, listener))
    assert counts == dict.fromkeys((page.id for page in study.pages), 2)
    assert len(plan_for(study, 1)) == 4


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from(["mushra", "bs2132", "abx", "ab", "acr", "dcr"]),
    pages=st.integers(1, 5),
    rounds=st.integers(1, 3),
    repeats=st.integers(0, 6),
    listener=st.integers(0, 500),
)
def test_plans_are_complete_and_the_same_every_time(
    kind: str, pages: int, rounds: int, repeats: int, listener: int
) -> None:
    study = a_study(kind, pages, 1, Design(rounds=rounds, repeats=repeats, seed=3))  # type: ignore[arg-type]
    plan = plan_for(study, listener)
    assert plan == plan_for(study, listener)
    assert [trial.index for trial in plan] == list(range(len(plan)))
    assert all(trial.training == (trial.page == "p0") for trial in plan)
    assert [trial.training for trial in plan] == sorted((trial.training for trial in plan), reverse=True)
    keys = [(trial.page, trial.repeat, frozenset(trial.stimuli)) for trial in plan]
    assert len(set(keys)) == len(keys)
    assert len({trial.page for trial in plan if trial.repeat == rounds}) == min(repeats, pages)
    sounds = Counter(name for trial in plan if trial.repeat == 0 and not trial.training for name in trial.stimuli)
    assert set(sounds.values()) == {pages * (2 if kind in ("ab", "abx") else 1)}
    assert all((trial.x in trial.stimuli) == (kind == "abx") for trial in plan)


def test_a_and_x_are_evened_out_and_cannot_be_guessed() -> None:
    study = a_study("abx", pages=4, training=0, design=Design(rounds=2))
    plans = [plan_for(study, listener) for listener in range(4)]
    for plan in plans:
        assert sum(trial.x == trial.stimuli[0] for trial in plan) == len(plan) // 2
        assert sum(trial.stimuli[0] < trial.stimuli[1] for trial in plan) == len(plan) // 2
    assert len({tuple(trial.x == trial.stimuli[0] for trial in plan) for plan in plans}) == 4


def test_another_seed_is_another_order() -> None:
    first, second = (a_study(design=Design(seed=seed)) for seed in (0, 1))
    assert [trial.stimuli for trial in plan_for(first, 0)] != [trial.stimuli for trial in plan_for(second, 0)]


def test_a_page_that_comes_again_has_its_sounds_elsewhere() -> None:
    study = a_study(training=0, design=Design(repeats=6))
    plan = plan_for(study, 0)
    first = {trial.page: trial.stimuli for trial in plan if not trial.repeat}
    assert all(trial.stimuli != first[trial.page] for trial in plan if trial.repeat)


def test_answers_become_values() -> None:
    abx = TrialPlan(0, "p", 0, False, ("c2", "c1"), "c2")
    assert (abx.pair, abx.pair_value("c2"), abx.pair_value("c1")) == ("c1+c2", 1.0, 0.0)
    ab = TrialPlan(0, "p", 0, False, ("c2", "c1"))
    assert [ab.pair_value(answer) for answer in ("c1", "c2", TIE)] == [1.0, 0.0, 0.5]
    for trial, answer in ((abx, TIE), (ab, "c3")):
        with pytest.raises(InputError, match=f"answer '{answer}' is none of c2, c1"):
            trial.pair_value(answer)


def stem(levels_db: list[float]) -> StemFile:
    return StemFile((Part(Path("x.wav")),), 100, 100 * len(levels_db), np.array(levels_db))


def test_all_have_to_sound() -> None:
    stems = {"a": stem([-20, -20, -90, -20]), "b": stem([-20, -90, -20, -20, -20])}
    assert shared_activity(stems).tolist() == [True, False, False, True]


@settings(max_examples=60, deadline=None)
@given(
    active=st.lists(st.booleans(), min_size=12, max_size=80),
    length_s=st.integers(1, 12),
    share=st.floats(0, 1),
    seed=st.integers(0, 100),
)
def test_excerpts_are_active_enough_apart_and_as_many_as_fit(
    active: list[bool], length_s: int, share: float, seed: int
) -> None:
    mask = np.array(active)

    def draw() -> list[tuple[float, float]]:
        generator = np.random.default_rng(seed)
        found = choose_excerpts(mask, count=3, length_s=length_s, min_share=share, generator=generator)
        return [(excerpt.start_s, excerpt.active_share) for excerpt in found]

    shares = [mask[start : start + length_s].mean() for start in range(len(mask) - length_s + 1)]
    if max(shares) < share:
        with pytest.raises(InputError, match=r"no \d+ s in which all sources sound for .*lower excerpts.min_active"):
            draw()
        return
    found = draw()
    assert found == draw()
    assert 1 <= len(found) <= 3
    for start, active_share in found:
        assert active_share == pytest.approx(shares[int(start)])
        assert active_share >= share - 1e-9
    starts = [start for start, _ in found]
    assert all(b - a >= length_s for a, b in pairwise(starts))


def test_every_place_has_the_same_chance() -> None:
    generator = np.random.default_rng(0)
    starts = [
        choose_excerpts(np.ones(14, bool), count=1, length_s=10, min_share=1.0, generator=generator)[0].start_s
        for _ in range(1000)
    ]
    assert np.bincount(np.array(starts, int)).min() > 150


def test_short_songs_are_refused() -> None:
    with pytest.raises(InputError, match="only 3 s long, excerpts are 10 s; make them shorter"):
        choose_excerpts(np.ones(3, bool), count=1, length_s=10, min_share=0.5, generator=np.random.default_rng(0))
