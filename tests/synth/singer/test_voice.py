from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ
from polyres.synth.scores.midi import Note
from polyres.synth.singer.voice import VOWELS, Voice, draw_voice, formant_response, pitch_curve, sing_formants

STILL = Voice(
    octave=0,
    size=1.0,
    tilt=-9.0,
    breath=0.0,
    vibrato_hz=5.0,
    vibrato_cents=0.0,
    drift_cents=0.0,
    consonants=0.0,
    doubled=False,
)


def note(start_s: float, end_s: float, pitch: int) -> Note:
    return Note(start_s, end_s, 4, 53, pitch, 100)


def measured_hz(wave: np.ndarray, lowest_hz: float = 60.0) -> float:
    """Fundamental frequency: the highest pitch whose period repeats the wave almost perfectly."""
    wave = wave - wave.mean()
    lags = np.arange(SAMPLE_RATE_HZ // 1000, round(SAMPLE_RATE_HZ / lowest_hz))
    length = len(wave) - lags[-1] - 1
    match = np.array([np.corrcoef(wave[:length], wave[lag : lag + length])[0, 1] for lag in lags])
    first = int(np.argmax(match > 0.97 * match.max()))
    best = first + int(np.argmax(match[first : first + 20]))
    a, b, c = match[best - 1 : best + 2]
    return float(SAMPLE_RATE_HZ / (lags[best] + 0.5 * (a - c) / (a - 2 * b + c)))


@pytest.mark.parametrize("pitch", [45, 57, 64, 71])
def test_steady_notes_are_in_tune(pitch: int) -> None:
    wave = sing_formants([note(0.0, 1.0, pitch)], np.random.default_rng(1), 1.2, STILL).mean(axis=0)
    found_hz = measured_hz(wave[round(0.4 * SAMPLE_RATE_HZ) : round(0.8 * SAMPLE_RATE_HZ)])
    wanted_hz = 440.0 * 2 ** ((pitch - 69) / 12)
    assert abs(1200 * np.log2(found_hz / wanted_hz)) < 10.0


@pytest.mark.parametrize("vowel", list(VOWELS))
def test_each_resonance_peaks_at_its_formant(vowel: str) -> None:
    frequency_hz = np.arange(10.0, 8000.0)
    assert formant_response(np.array([0.0]), VOWELS[vowel])[0] == pytest.approx(1.0)
    for centre_hz, width_hz in VOWELS[vowel]:
        level = np.abs(formant_response(frequency_hz, [(centre_hz, width_hz)]))
        # Closed form of a resonator: the peak stands a little below its centre and is centre / width high.
        assert frequency_hz[np.argmax(level)] == pytest.approx(np.sqrt(centre_hz**2 - width_hz**2 / 2), abs=1.0)
        assert level.max() == pytest.approx(centre_hz / width_hz, rel=0.04)


def test_larger_voices_have_lower_formants() -> None:
    centres = []
    for size in (0.8, 1.25):
        voice = replace(STILL, size=size, tilt=-6.0)
        wave = sing_formants([note(0.0, 1.0, 48)], np.random.default_rng(3), 1.0, voice).mean(axis=0)
        power = np.abs(np.fft.rfft(wave)) ** 2
        frequency_hz = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE_HZ)
        treble = frequency_hz > 2000.0
        centres.append((frequency_hz * power)[treble].sum() / power[treble].sum())
    assert centres[1] > 1.2 * centres[0]


def test_vibrato_starts_late_and_swings_as_far_as_asked() -> None:
    voice = replace(STILL, vibrato_cents=50.0)
    curve = pitch_curve(2 * SAMPLE_RATE_HZ, 60.0, 60.0, voice, np.random.default_rng(0))
    cents = 1200 * np.log2(curve / (440 * 2 ** ((60 - 69) / 12)))
    assert np.abs(cents[: round(0.19 * SAMPLE_RATE_HZ)]).max() < 1e-9
    late = cents[SAMPLE_RATE_HZ:]
    assert late.max() == pytest.approx(50.0, abs=0.5)
    crossings = np.count_nonzero(np.diff(np.signbit(late)))
    assert crossings in (9, 10, 11)  # 5 Hz for one second


def test_notes_glide_from_the_one_before() -> None:
    curve = pitch_curve(SAMPLE_RATE_HZ, 64.0, 60.0, STILL, np.random.default_rng(0))
    semitones = 69 + 12 * np.log2(curve / 440)
    assert semitones[0] == pytest.approx(60.0)
    assert semitones[round(0.02 * SAMPLE_RATE_HZ)] == pytest.approx(64 - 4 / np.e, abs=0.01)
    assert semitones[-1] == pytest.approx(64.0, abs=1e-6)


def test_rests_are_silent_and_consonants_come_first() -> None:
    voice = replace(STILL, consonants=1.0)
    wave = sing_formants([note(1.0, 1.5, 60)], np.random.default_rng(2), 2.5, voice)
    assert np.abs(wave[:, : round(0.9 * SAMPLE_RATE_HZ)]).max() == 0.0
    assert np.abs(wave[:, round(1.6 * SAMPLE_RATE_HZ) :]).max() == 0.0
    assert np.abs(wave[:, round(0.97 * SAMPLE_RATE_HZ) : SAMPLE_RATE_HZ]).max() > 1e-3


def test_doubling_widens_the_voice() -> None:
    notes = [note(0.0, 1.0, 60)]
    plain = sing_formants(notes, np.random.default_rng(4), 1.2, STILL)
    doubled = sing_formants(notes, np.random.default_rng(4), 1.2, replace(STILL, doubled=True, drift_cents=10.0))
    assert np.array_equal(plain[0], plain[1])
    assert np.abs(doubled[0] - doubled[1]).max() > 0.01


@settings(max_examples=15, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    length_s=st.floats(0.01, 3.0),
    melody=st.lists(st.tuples(st.floats(0.0, 3.0), st.floats(0.01, 1.0), st.integers(50, 76)), max_size=6),
)
def test_any_melody_can_be_sung(seed: int, length_s: float, melody: list[tuple[float, float, int]]) -> None:
    notes = [note(start_s, start_s + held_s, pitch) for start_s, held_s, pitch in melody]
    wave = sing_formants(notes, np.random.default_rng(seed), length_s)
    assert wave.shape == (2, round(length_s * SAMPLE_RATE_HZ))
    assert wave.dtype == np.float32
    assert np.isfinite(wave).all()
    assert np.array_equal(wave, sing_formants(notes, np.random.default_rng(seed), length_s))


def test_singers_differ() -> None:
    voices = [draw_voice(np.random.default_rng(seed)) for seed in range(8)]
    assert len({voice.size for voice in voices}) == 8
    assert {voice.octave for voice in voices} == {-1, 0}
