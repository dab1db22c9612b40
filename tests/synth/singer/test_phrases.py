from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from polyres.synth.scores.composer import Key, MelodyNote
from polyres.synth.scores.midi import Note, Score
from polyres.synth.singer.phrases import (
    SingerStyle,
    degree_of,
    draw_style,
    sing_melody,
    sing_note,
    sing_notes,
    sing_track,
    stretched,
)
from polyres.synth.singer.recordings import SAMPLE_RATE_HZ, Marked, VoiceBank, frequency_of, mark_periods, track_pitch

PLAIN = SingerStyle(
    centre=60,
    size=1.0,
    tempo_bpm=100.0,
    vibrato_cents=0.0,
    vibrato_hz=5.0,
    glide_cents=0.0,
    breath=0.0,
    voices=((0, 0.0, 0.0, 1.0),),
    tilt_db=0.0,
    reverb=None,
    echo_beats=None,
)


def voice(pitch: float, seconds: float) -> np.ndarray:
    """Harmonics with falling level: something with a clear period."""
    time_s = np.arange(round(seconds * SAMPLE_RATE_HZ)) / SAMPLE_RATE_HZ
    partials = [np.sin(2 * np.pi * n * frequency_of(pitch) * time_s + 0.1 * n) / n for n in range(1, 12)]
    return (0.3 * np.sum(partials, axis=0)).astype(np.float32)


def marked(wave: np.ndarray, pitch: float) -> Marked:
    return mark_periods(wave, SAMPLE_RATE_HZ, frequency_of(pitch))


def sung_pitch(wave: np.ndarray) -> float:
    frequency_hz, strength = track_pitch(wave, SAMPLE_RATE_HZ)
    return 69 + 12 * float(np.log2(np.median(frequency_hz[strength > 0.8]) / 440.0))


@pytest.fixture
def bank(tmp_path: Path) -> VoiceBank:
    for name, pitch in (("A3", 57), ("D4", 62), ("A4", 69)):
        (tmp_path / name).mkdir()
        for number in range(2):
            wave = np.concatenate([np.zeros(4000), voice(pitch, 1.2), np.zeros(4000)]) + 0.2
            soundfile.write(tmp_path / name / f"{number}.wav", wave, SAMPLE_RATE_HZ)
    return VoiceBank.open(tmp_path)


@pytest.mark.parametrize("semitones", [-7.0, 0.0, 3.5])
@pytest.mark.parametrize("size", [0.8, 1.15])
def test_notes_are_sung_at_the_wanted_pitch_whatever_the_size(semitones: float, size: float) -> None:
    style = SingerStyle(**{**PLAIN.__dict__, "size": size})
    note = sing_note(marked(voice(57, 2.0), 57), 57 + semitones, 1.0, style, np.random.default_rng(0))
    assert len(note) == SAMPLE_RATE_HZ
    assert sung_pitch(note) == pytest.approx(57 + semitones, abs=0.15)
    assert note[0] == note[-1] == 0.0


def test_short_syllables_are_held_to_a_limit_and_empty_ones_are_silent() -> None:
    note = sing_note(marked(voice(57, 0.5), 57), 60, 1.0, PLAIN, np.random.default_rng(0))
    assert len(note) == SAMPLE_RATE_HZ
    assert sung_pitch(note) == pytest.approx(60, abs=0.15)
    long = sing_note(marked(voice(57, 0.5), 57), 60, 9.0, PLAIN, np.random.default_rng(0))
    assert len(long) == round(0.5 * 2.5 * SAMPLE_RATE_HZ)
    assert len(sing_note(marked(np.zeros(0, np.float32), 57), 60, 1.0, PLAIN, np.random.default_rng(0))) == 0


@given(st.integers(1, 40_000), st.integers(0, 120_000))
def test_stretching_keeps_beginning_and_end_at_their_speed(length: int, wanted: int) -> None:
    heard = stretched(length, wanted)
    assert len(heard) == min(wanted, int(2.5 * length))
    assert np.all(np.diff(heard) >= 0)
    if len(heard):
        assert heard[0] == 0
        assert heard[-1] < length
        onset = min(length // 3, round(0.15 * SAMPLE_RATE_HZ), len(heard))
        assert heard[:onset] == pytest.approx(np.arange(onset))
    if len(heard) == wanted > length > 100:
        assert np.diff(heard[-20:]) == pytest.approx(np.ones(19))


def test_breath_follows_the_note() -> None:
    sound = marked(voice(57, 2.0), 57)
    airy = SingerStyle(**{**PLAIN.__dict__, "breath": 0.5})
    notes = [sing_note(sound, 57, 1.0, style, np.random.default_rng(0)) for style in (PLAIN, airy)]
    air = notes[1] - notes[0]
    assert 0.05 < np.std(air) / np.std(notes[0]) < 0.5
    assert np.std(air[:100]) < 0.3 * np.std(air)


def test_a_vibrato_swings_late_and_as_far_as_asked() -> None:
    style = SingerStyle(**{**PLAIN.__dict__, "vibrato_cents": 60.0, "vibrato_hz": 5.0})
    note = sing_note(marked(voice(57, 3.0), 57), 57, 2.5, style, np.random.default_rng(0))
    frequency_hz, strength = track_pitch(note, SAMPLE_RATE_HZ, 150.0, 320.0)
    semitones = 69 + 12 * np.log2(frequency_hz / 440.0)
    late = semitones[160:440]
    assert np.ptp(late) == pytest.approx(1.2, abs=0.25)
    assert np.ptp(semitones[8:30]) < 0.4
    turns = np.sum(np.diff(np.sign(late - np.median(late))) != 0)
    assert turns / 2 / (len(late) * 0.005) == pytest.approx(5.0, abs=1.0)


@pytest.mark.parametrize("size", [1.0, 0.8])
def test_a_melody_is_sung_in_time_and_tune(bank: VoiceBank, size: float) -> None:
    key = Key(0, "major")
    style = SingerStyle(**{**PLAIN.__dict__, "size": size})
    melody = [MelodyNote(0.5, 0.5, 60, 0), MelodyNote(1.5, 0.5, 64, 2)]
    wave = sing_melody(bank, melody, key, 2.5, style, 0)
    assert wave.shape == (2, round(2.5 * SAMPLE_RATE_HZ))
    for note in melody:
        start = round((note.start_s + 0.1) * SAMPLE_RATE_HZ)
        assert sung_pitch(wave[0, start : start + 15_000]) == pytest.approx(note.pitch, abs=0.2)
    assert np.abs(wave[:, : round(0.4 * SAMPLE_RATE_HZ)]).max() == 0.0
    assert np.abs(wave[:, round(1.15 * SAMPLE_RATE_HZ) : round(1.4 * SAMPLE_RATE_HZ)]).max() == 0.0


def test_harmonies_move_by_steps_of_the_scale(bank: VoiceBank) -> None:
    style = SingerStyle(**{**PLAIN.__dict__, "voices": ((2, 0.0, 0.0, 1.0),)})
    melody = [MelodyNote(0.5, 0.6, 60, 0), MelodyNote(1.5, 0.6, 62, 1)]
    wave = sing_melody(bank, melody, Key(0, "major"), 2.5, style, 0)
    for start_s, pitch in ((0.6, 64), (1.6, 65)):  # a major and a minor third
        start = round(start_s * SAMPLE_RATE_HZ)
        assert sung_pitch(wave[0, start : start + 15_000]) == pytest.approx(pitch, abs=0.2)


@given(st.integers(30, 90), st.integers(0, 11), st.sampled_from(["major", "minor", "pentatonic"]))
def test_degrees_are_those_of_the_key(degree: int, tonic: int, scale: str) -> None:
    key = Key(tonic, scale)
    assert degree_of(key.pitch(degree, 60), key, 60) == degree


@pytest.mark.parametrize(("centre", "octave"), [(50, -12), (65, 0)])
def test_the_vocals_of_a_score_are_sung(bank: VoiceBank, centre: int, octave: int) -> None:
    notes = tuple(Note(t, t + 0.6, 4, 53, pitch, 90) for t, pitch in ((0.5, 67), (1.5, 71), (9.0, 67)))
    style = SingerStyle(**{**PLAIN.__dict__, "centre": centre})
    wave = sing_notes(bank, Score("song", {"vocals": notes}, (), 2.0), 2.5, style, np.random.default_rng(0))
    assert wave.shape == (2, round(2.5 * SAMPLE_RATE_HZ))
    for note in notes[:2]:
        start = round((note.start_s + 0.12) * SAMPLE_RATE_HZ)
        assert sung_pitch(wave[0, start : start + 15_000]) == pytest.approx(note.pitch + octave, abs=0.2)


def test_tracks_depend_on_the_seed_alone(bank: VoiceBank) -> None:
    wave, manifest = sing_track(bank, 3, 8.0)
    again, _ = sing_track(VoiceBank(bank.paths), 3, 8.0)
    other, _ = sing_track(bank, 4, 8.0)
    assert np.array_equal(wave, again)
    assert not np.array_equal(wave, other)
    assert wave.shape == (2, 8 * SAMPLE_RATE_HZ)
    assert wave.dtype == np.float32
    assert np.abs(wave).max() == pytest.approx(0.7, rel=1e-3)
    assert manifest["seed"] == 3


def test_tracks_take_the_given_key(bank: VoiceBank) -> None:
    _, manifest = sing_track(bank, 3, 4.0, Key(7, "dorian"))
    assert manifest["key"] == {"tonic": 7, "scale": "dorian"}


def test_styles_vary() -> None:
    styles = [draw_style(np.random.default_rng(seed)) for seed in range(60)]
    assert {len(style.voices) for style in styles} >= {1, 2, 3}
    assert min(style.centre for style in styles) < 55
    assert max(style.centre for style in styles) > 65
    assert any(style.vibrato_cents for style in styles)
    assert any(style.reverb is None for style in styles)
