from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.synth.scores.composer import SCALES, Key, draw_key, draw_melody, key_of


def test_steps_climb_the_scale_from_the_tonic_below_the_centre() -> None:
    d_minor = Key(2, "minor")
    assert [d_minor.pitch(step, 60) for step in range(-1, 8)] == [48, 50, 52, 53, 55, 57, 58, 60, 62]


@given(tonic=st.integers(0, 11), scale=st.sampled_from(["major", "minor"]))
def test_the_key_of_a_tonic_triad_heavy_scale_is_found(tonic: int, scale: str) -> None:
    pitches = [48 + tonic + step for step in SCALES[scale]] + 2 * [
        60 + tonic,
        67 + tonic,
        60 + tonic + SCALES[scale][2],
    ]
    assert key_of(pitches) == Key(tonic, scale)


@given(seed=st.integers(0, 200), length_s=st.floats(0.0, 60.0), tempo_bpm=st.floats(60.0, 160.0))
def test_melodies_stay_in_key_range_and_time(seed: int, length_s: float, tempo_bpm: float) -> None:
    rng = np.random.default_rng(seed)
    key = draw_key(rng)
    melody = draw_melody(rng, key, length_s, 62, tempo_bpm, span=7)
    scale = {(key.tonic + step) % 12 for step in SCALES[key.scale]}
    for note in melody:
        assert note.pitch % 12 in scale
        assert note.pitch == key.pitch(note.degree, 62)
        assert note.start_s + note.duration_s <= length_s + 1e-9
    for note, following in pairwise(melody):
        assert following.start_s >= note.start_s + note.duration_s - 1e-9


def test_melodies_sing_and_rest() -> None:
    melody = draw_melody(np.random.default_rng(0), Key(0, "major"), 120.0, 60, 100.0)
    sung_s = sum(note.duration_s for note in melody)
    assert 40.0 < sung_s < 115.0
    assert len({note.pitch for note in melody}) >= 4
    assert max(abs(note.pitch - 60) for note in melody) <= 14


def test_the_same_seed_gives_the_same_melody() -> None:
    first, again = (draw_melody(np.random.default_rng(5), Key(4, "dorian"), 30.0, 60, 90.0) for _ in range(2))
    assert first == again
    assert first != draw_melody(np.random.default_rng(6), Key(4, "dorian"), 30.0, 60, 90.0)


@pytest.mark.parametrize("scale", sorted(SCALES))
def test_scales_rise_within_an_octave(scale: str) -> None:
    steps = SCALES[scale]
    assert list(steps) == sorted(set(steps))
    assert steps[0] == 0
    assert steps[-1] < 12
