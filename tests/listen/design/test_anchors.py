"""Anchors that stay aligned, loudness that is matched, and peaks that do not clip."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import freqz

from polyres.core.errors import InputError
from polyres.listen.design.anchors import (
    LOW_HZ,
    MID_HZ,
    anchor_filter,
    faded,
    loudness_lufs,
    low_pass,
    margin_samples,
    match_loudness,
    true_peak,
)

RATE_HZ = 44_100


def noise(seconds: float = 2.0, level: float = 0.1, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.0, level, (2, round(seconds * RATE_HZ))).astype(np.float32)


@pytest.mark.parametrize("rate_hz", [22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("cutoff_hz", [LOW_HZ, MID_HZ])
def test_the_filter_keeps_to_the_mask_of_the_standard(cutoff_hz: int, rate_hz: int) -> None:
    frequencies, response = freqz(anchor_filter(cutoff_hz, rate_hz), worN=1 << 15, fs=rate_hz)
    level_db = 20 * np.log10(np.maximum(np.abs(response), 1e-9))
    assert np.abs(level_db[frequencies <= cutoff_hz]).max() < 0.1
    assert level_db[frequencies >= cutoff_hz + 500].max() < -50


@given(length=st.integers(1, 3000), at=st.floats(0, 1))
@settings(max_examples=25, deadline=None)
def test_nothing_moves_in_time(length: int, at: float) -> None:
    wave = np.zeros((1, length), np.float32)
    place = min(length - 1, int(at * length))
    wave[0, place] = 1.0
    filtered = low_pass(wave, LOW_HZ, RATE_HZ)
    assert filtered.shape == wave.shape
    assert int(np.argmax(filtered[0])) == place
    reach = min(place, length - 1 - place)
    around = filtered[0, place - reach : place + reach + 1]
    np.testing.assert_allclose(around, around[::-1], atol=1e-7)


def test_low_tones_pass_and_high_ones_do_not() -> None:
    time_s = np.arange(RATE_HZ) / RATE_HZ
    low, high = (np.sin(2 * np.pi * hz * time_s)[None].astype(np.float32) for hz in (1000, 6000))
    middle = slice(margin_samples(RATE_HZ), -margin_samples(RATE_HZ))
    filtered = low_pass(low + high, LOW_HZ, RATE_HZ)
    np.testing.assert_allclose(filtered[0, middle], low[0, middle], atol=2e-3)


def test_an_anchor_above_the_band_is_refused() -> None:
    with pytest.raises(InputError, match="an anchor of 7000 Hz does not fit a sample rate of 8000 Hz"):
        low_pass(noise(0.1), MID_HZ, 8000)


def test_all_sounds_end_at_the_target() -> None:
    waves = {"a": noise(level=0.2), "b": noise(level=0.01, seed=1), "c": low_pass(noise(level=0.1), LOW_HZ, RATE_HZ)}
    matched = match_loudness(waves, RATE_HZ, -30.0, 40.0, -1.0)
    assert matched.target_lufs == -30.0
    assert not matched.off_lu
    for name, wave in waves.items():
        assert loudness_lufs(wave * 10 ** (matched.gains_db[name] / 20), RATE_HZ) == pytest.approx(-30.0, abs=0.05)


def test_one_peak_makes_the_whole_page_softer() -> None:
    waves = {"a": noise(level=0.05), "b": noise(level=0.05, seed=1)}
    waves["b"][0, 1000] = 0.9
    matched = match_loudness(waves, RATE_HZ, -10.0, 40.0, -1.0)
    assert matched.target_lufs < -10.0
    levels = [loudness_lufs(waves[n] * 10 ** (matched.gains_db[n] / 20), RATE_HZ) for n in "ab"]
    assert levels[0] == pytest.approx(levels[1], abs=0.05)
    peaks = [true_peak(waves[n] * np.float32(10 ** (matched.gains_db[n] / 20))) for n in "ab"]
    assert max(peaks) == pytest.approx(10 ** (-1 / 20), rel=1e-3)


def test_what_is_almost_silent_is_not_blown_up() -> None:
    waves = {"a": noise(level=0.1), "b": noise(level=1e-3, seed=1), "c": np.zeros((2, 2 * RATE_HZ), np.float32)}
    matched = match_loudness(waves, RATE_HZ, -30.0, 20.0, -1.0)
    assert matched.gains_db["b"] == pytest.approx(matched.gains_db["a"] + 20.0)
    assert matched.off_lu["b"] == pytest.approx(20.0, abs=0.5)
    assert set(matched.off_lu) == {"b", "c"}


def test_silence_alone_is_refused() -> None:
    with pytest.raises(InputError, match="every sound of the page is silent; choose another excerpt"):
        match_loudness({"a": np.zeros((2, RATE_HZ), np.float32)}, RATE_HZ, -23.0, 20.0, -1.0)


def test_true_peaks_lie_between_samples() -> None:
    # A quarter of the sample rate, sampled 45 degrees off its peaks.
    wave = np.sin(2 * np.pi * np.arange(4000) / 4 + np.pi / 4)[None].astype(np.float32)
    assert np.abs(wave).max() == pytest.approx(math.sqrt(0.5))
    assert true_peak(wave[:, 1000:-1000]) == pytest.approx(1.0, abs=0.06)
    assert true_peak(np.zeros((2, 0), np.float32)) == 0.0


def test_fades() -> None:
    wave = np.ones((2, 1000), np.float32)
    result = faded(wave, 1000, 0.1)
    np.testing.assert_allclose(result[:, :100] + result[:, 99::-1], 1.0, atol=1e-6)
    assert (result[:, 100:-100] == 1.0).all()
    np.testing.assert_array_equal(result, result[:, ::-1])
    assert faded(wave, 1000, 0.0) is wave
