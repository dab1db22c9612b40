"""Orders are balanced, seeded and complete."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.listen.design.conditions import TIE, TrialPlan, plan_for, williams_square
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
