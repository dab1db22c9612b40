from __future__ import annotations

import itertools
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.core.errors import UnknownNameError
from polyres.synth.scores.composer import SCALES, Key, compose, draw_key, draw_melody, key_of
from polyres.synth.scores.midi import DRUM_CHANNEL, Note
from polyres.synth.scores.styles import STYLES


def _all_notes(seed: int, length_s: float, style: str | None = None) -> list[Note]:
    score = compose(np.random.default_rng(seed), length_s, style)
    return [note for notes in score.stems.values() for note in notes]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), length_s=st.floats(1.0, 60.0), style=st.sampled_from(STYLES.names()))
def test_scores_are_playable(seed: int, length_s: float, style: str) -> None:
    score = compose(np.random.default_rng(seed), length_s, style)
    notes = [note for part in score.stems.values() for note in part]
    assert score.name == f"composed_{style}"
    assert notes
    assert set(score.stems) <= {"drums", "bass", "other", "vocals"}
    assert all(part for part in score.stems.values())
    for note in notes:
        assert 0.0 <= note.start_s < note.end_s
        assert 0 <= note.pitch <= 127
        assert 1 <= note.velocity <= 127
    for stem, part in score.stems.items():
        assert all((note.channel == DRUM_CHANNEL) == (stem == "drums") for note in part)
        assert list(part) == sorted(part, key=lambda note: (note.start_s, note.channel, note.pitch))


@pytest.mark.parametrize("length_s", [8.0, 30.0, 61.0])
def test_length_is_whole_bars_within_the_wish(length_s: float) -> None:
    score = compose(np.random.default_rng(3), length_s, "trance")
    assert length_s - 4 * 60 / 132 <= score.length_s <= length_s + 1e-6
    assert max(note.start_s for part in score.stems.values() for note in part) < score.length_s


def test_the_seed_decides() -> None:
    assert _all_notes(5, 20.0) == _all_notes(5, 20.0)
    assert _all_notes(5, 20.0) != _all_notes(6, 20.0)


def test_unknown_style_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'house'"):
        compose(np.random.default_rng(0), 10.0, "hous")


def test_house_has_a_kick_on_every_beat() -> None:
    rng = np.random.default_rng(11)
    score = compose(rng, 60.0, "house")
    kicks = np.array([note.start_s for note in score.stems["drums"] if note.pitch == 36])
    bars = round(score.length_s / (4 * 60 / 134), 6)
    beat_s = score.length_s / round(score.length_s / 4 / np.median(np.diff(kicks))) / 4
    assert bars > 0
    assert np.allclose(np.median(np.diff(kicks)), beat_s, rtol=1e-6)
    phases = kicks / beat_s % 1.0
    assert np.mean(np.minimum(phases, 1.0 - phases) < 1e-6) > 0.9


def test_bass_stays_below_and_the_singer_within_range() -> None:
    for seed in range(12):
        score = compose(np.random.default_rng(seed), 40.0)
        assert all(28 <= note.pitch <= 60 for note in score.stems.get("bass", ()))
        assert all(55 <= note.pitch <= 74 for note in score.stems.get("vocals", ()))


def test_the_singer_sings_one_note_at_a_time() -> None:
    for seed in range(12):
        notes = compose(np.random.default_rng(seed), 40.0).stems.get("vocals", ())
        assert all(a.end_s <= b.start_s + 1e-9 for a, b in itertools.pairwise(notes))


def test_tonal_notes_keep_to_one_scale() -> None:
    for seed in range(8):
        score = compose(np.random.default_rng(seed), 40.0)
        heard = {note.pitch % 12 for part in ("bass", "vocals") for note in score.stems.get(part, ())}
        steps = {0, 2, 4, 5, 7, 9, 11}
        assert any(heard <= {(root + step) % 12 for step in steps} for root in range(12))


def test_swing_delays_the_off_beats() -> None:
    score = compose(np.random.default_rng(2), 60.0, "swing")
    starts = np.array([note.start_s for note in score.stems["drums"]])
    beat_s = min(np.diff(np.unique(np.round(starts, 9))).max(), 1.0)
    assert beat_s > 0
    walking = score.stems["bass"]
    gaps = np.diff([note.start_s for note in walking])
    beat_s = float(np.median(gaps))
    phases = np.round(starts / beat_s % 1.0, 3)
    late = phases[(phases > 0.45) & (phases < 0.9)]
    assert late.size
    assert (late > 0.6).all()  # straight eighths would stand at 0.5


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
