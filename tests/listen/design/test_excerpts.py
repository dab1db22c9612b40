"""Excerpts lie where all sources sound, do not overlap and follow the seed."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.audio.track_files import Part
from polyres.core.errors import InputError
from polyres.datasets.stem_files import StemFile
from polyres.listen.design.conditions import choose_excerpts, shared_activity


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
