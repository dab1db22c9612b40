from __future__ import annotations

import numpy as np
import pytest

from polyres.synth.instruments.drum_machine import play_drums, sweep
from polyres.synth.instruments.electronic import draw_patch, family_of, render_electronic
from polyres.synth.instruments.oscillators import (
    SAMPLE_RATE_HZ,
    Shape,
    envelope,
    frequency_modulated,
    harmonics,
    play_table,
    table_path,
    wavetable,
)
from polyres.synth.scores.composer import compose
from polyres.synth.scores.midi import Note, Score


def _spectrum(wave: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    window = np.hanning(wave.shape[-1])
    return np.fft.rfftfreq(wave.shape[-1], 1 / SAMPLE_RATE_HZ), np.abs(np.fft.rfft(wave * window))


def test_closed_forms_of_harmonics() -> None:
    assert np.allclose(harmonics(Shape("saw"), 4), [1, 1 / 2, 1 / 3, 1 / 4])
    assert np.allclose(harmonics(Shape("square"), 5), [1, 0, 1 / 3, 0, 1 / 5])
    assert np.allclose(harmonics(Shape("triangle"), 5), [1, 0, -1 / 9, 0, 1 / 25])
    assert np.allclose(harmonics(Shape("sine"), 3), [1, 0, 0])
    # A pulse is the difference of two shifted saws.
    width = 0.05 + 0.4 * 0.5
    number = np.arange(1, 9)
    expected = np.sin(np.pi * number * width) / number
    assert np.allclose(harmonics(Shape("pulse", 0.5), 8), expected / expected[0])


def test_an_open_filter_gives_the_plain_saw() -> None:
    tables, cutoffs = wavetable(Shape("saw"), 441.0, 0.0)
    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = play_table(tables, table_path(cutoffs, np.full(SAMPLE_RATE_HZ, 18_000.0)), 441.0 * time)
    frequency_hz, magnitude = _spectrum(wave)
    peaks = [magnitude[np.argmin(np.abs(frequency_hz - 441.0 * n))] for n in (1, 2, 4)]
    assert np.allclose(peaks[0] / np.array(peaks), [1, 2, 4], rtol=0.02)


def test_no_aliasing_of_high_notes() -> None:
    tables, cutoffs = wavetable(Shape("square"), 3000.0, 0.0)
    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = play_table(tables, table_path(cutoffs, np.full(SAMPLE_RATE_HZ, 18_000.0)), 3000.0 * time)
    frequency_hz, magnitude = _spectrum(wave)
    near = np.min(np.abs(frequency_hz[:, None] - 3000.0 * np.arange(1, 7)), axis=1) < 20.0
    assert 20 * np.log10(magnitude[~near].max() / magnitude.max()) < -50.0


def test_closing_the_filter_takes_the_treble() -> None:
    tables, cutoffs = wavetable(Shape("saw"), 110.0, 0.0, order=2)
    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    levels = []
    for cutoff_hz in (200.0, 18_000.0):
        frequency_hz, magnitude = _spectrum(
            play_table(tables, table_path(cutoffs, np.full(SAMPLE_RATE_HZ, cutoff_hz)), 110.0 * time)
        )
        levels.append(
            magnitude[np.argmin(np.abs(frequency_hz - 1760.0))] / magnitude[np.argmin(abs(frequency_hz - 110))]
        )
    # Three octaves above 220 Hz at 12 dB per octave, give or take the knee.
    assert -42 < 20 * np.log10(levels[0] / levels[1]) < -33


def test_frequency_modulation_has_bessel_sidebands() -> None:
    from scipy.special import jv

    time = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = frequency_modulated(2000.0 * time, 0.25, np.full(SAMPLE_RATE_HZ, 1.5))
    spectrum = np.abs(np.fft.rfft(wave)) * 2 / SAMPLE_RATE_HZ
    for order in range(4):
        assert spectrum[2000 + 500 * order] == pytest.approx(abs(jv(order, 1.5)), abs=1e-4)


def test_envelope_follows_its_times() -> None:
    shape = envelope(SAMPLE_RATE_HZ, SAMPLE_RATE_HZ // 2, 0.1, 0.05, 0.4, 0.02)
    at = lambda time_s: shape[round(time_s * SAMPLE_RATE_HZ)]  # noqa: E731
    assert at(0.0) == 0.0
    assert at(0.1) == pytest.approx(1.0, abs=1e-3)
    assert at(0.15) == pytest.approx(0.4 + 0.6 / np.e, abs=1e-3)
    assert at(0.49) == pytest.approx(0.4, abs=1e-2)
    assert at(0.52) == pytest.approx(0.4 / np.e, abs=1e-2)


def test_sweep_falls_to_its_end() -> None:
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    frequency_hz, magnitude = _spectrum(sweep(time_s, 400.0, 50.0, 0.02)[SAMPLE_RATE_HZ // 2 :])
    assert frequency_hz[np.argmax(magnitude)] == pytest.approx(50.0, abs=2.0)


def test_drums_sound_where_their_notes_are() -> None:
    notes = [Note(start_s, start_s + 0.1, 9, 0, 36, 110) for start_s in (0.5, 1.5)]
    wave = play_drums(notes, np.random.default_rng(0), 3 * SAMPLE_RATE_HZ)
    level = np.abs(wave).max(axis=0)
    assert level[: SAMPLE_RATE_HZ // 2].max() == 0.0
    assert level[SAMPLE_RATE_HZ // 2 : SAMPLE_RATE_HZ].max() > 0.3
    assert np.array_equal(wave[0], wave[1])  # kicks stand in the middle


def test_kicks_are_deep_and_hats_are_high() -> None:
    for seed in range(5):
        centres = []
        for pitch in (36, 42):
            wave = play_drums([Note(0.0, 0.1, 9, 0, pitch, 110)], np.random.default_rng(seed), SAMPLE_RATE_HZ)
            frequency_hz, magnitude = _spectrum(wave.mean(axis=0))
            centres.append((frequency_hz * magnitude**2).sum() / (magnitude**2).sum())
        assert centres[0] < 300.0
        assert centres[1] > 3000.0


@pytest.mark.parametrize(
    ("program", "family"),
    [(0, "keys"), (19, "organ"), (25, "pluck"), (33, "bass"), (48, "pad"), (81, "lead"), (120, "pluck")],
)
def test_programs_have_families(program: int, family: str) -> None:
    assert family_of(program) == family


def test_bass_notes_have_their_pitch() -> None:
    note = Note(0.0, 1.0, 0, 33, 33, 100)  # A1, 55 Hz
    hits = 0
    for seed in range(6):
        wave = render_electronic(Score("x", {"bass": (note,)}, (), 1.0), np.random.default_rng(seed), 1.0)["bass"]
        frequency_hz, magnitude = _spectrum(wave.mean(axis=0))
        below = frequency_hz < 2000.0
        comb = [magnitude[np.abs(frequency_hz - 55.0 * n) < 3.0].max() for n in (1, 2, 3)]
        hits += max(comb) >= 0.9 * magnitude[below].max()
    assert hits >= 5  # frequency modulation by a half may rule one of them


def test_songs_are_finite_centred_and_seeded() -> None:
    score = compose(np.random.default_rng(1), 10.0, "house")
    first = render_electronic(score, np.random.default_rng(2), 10.5, ducking=1.0)
    again = render_electronic(score, np.random.default_rng(2), 10.5, ducking=1.0)
    other = render_electronic(score, np.random.default_rng(3), 10.5, ducking=1.0)
    assert set(first) == set(score.stems) - {"vocals"}
    for stem, wave in first.items():
        assert wave.shape == (2, round(10.5 * SAMPLE_RATE_HZ))
        assert wave.dtype == np.float32
        assert np.isfinite(wave).all()
        assert np.abs(wave).max() > 0.01
        assert np.array_equal(wave, again[stem])
        assert not np.array_equal(wave, other[stem])


def test_the_kick_ducks_the_bass() -> None:
    kick = tuple(Note(beat / 2, beat / 2 + 0.1, 9, 0, 36, 110) for beat in range(8))
    held = (Note(0.0, 4.0, 0, 33, 40, 100),)
    score = Score("x", {"drums": kick, "bass": held}, (), 4.0)
    plain = render_electronic(score, np.random.default_rng(4), 4.0, ducking=0.0)["bass"]
    ducked = render_electronic(score, np.random.default_rng(4), 4.0, ducking=1.0)["bass"]
    gain = np.abs(ducked).sum(axis=0) / np.maximum(np.abs(plain).sum(axis=0), 1e-9)
    after_kick = gain[round(1.01 * SAMPLE_RATE_HZ)]
    before_kick = gain[round(0.99 * SAMPLE_RATE_HZ)]
    assert after_kick < before_kick - 0.1


def test_patches_come_from_their_generator() -> None:
    assert draw_patch(81, np.random.default_rng(1)) == draw_patch(81, np.random.default_rng(1))
    assert draw_patch(81, np.random.default_rng(1)) != draw_patch(81, np.random.default_rng(2))
