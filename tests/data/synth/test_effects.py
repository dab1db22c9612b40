from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.data.synth.effects import echo, place, reverberate, tilt_eq

RATE_HZ = 16_000


def sine(frequency_hz: float, length: int = RATE_HZ) -> np.ndarray:
    return np.sin(2 * np.pi * frequency_hz * np.arange(length) / RATE_HZ).astype(np.float32)


def level_db(wave: np.ndarray) -> float:
    return float(10 * np.log10(np.mean(wave[..., 2000:-2000] ** 2) + 1e-20))


@pytest.mark.parametrize(("frequency_hz", "octaves"), [(250.0, -2.0), (1000.0, 0.0), (4000.0, 2.0)])
def test_tilt_is_in_db_per_octave(frequency_hz: float, octaves: float) -> None:
    wave = sine(frequency_hz)
    assert level_db(tilt_eq(wave, RATE_HZ, 1.5)) - level_db(wave) == pytest.approx(1.5 * octaves, abs=0.1)


def test_low_cut_takes_the_lowest_octaves() -> None:
    for frequency_hz, loss_db in ((50.0, 12.3), (100.0, 3.0), (1000.0, 0.0)):
        wave = sine(frequency_hz, 4 * RATE_HZ)
        assert level_db(wave) - level_db(tilt_eq(wave, RATE_HZ, 0.0, 100.0)) == pytest.approx(loss_db, abs=0.2)


@given(st.floats(-1.0, 1.0))
def test_placing_keeps_the_power(pan: float) -> None:
    left, right = place(np.ones(4), pan)
    assert left[0] ** 2 + right[0] ** 2 == pytest.approx(1.0, abs=1e-5)
    assert (right[0] - left[0]) * pan >= -1e-6


def test_echo_repeats_on_the_other_side_and_decays() -> None:
    wave = np.zeros((2, 100), np.float32)
    wave[0, 0] = 1.0
    heard = echo(wave, 30, 0.5, 0.4)
    expected = np.zeros((2, 100))
    expected[0, [0, 60]] = 1.0, 0.2
    expected[1, [30, 90]] = 0.4, 0.1
    assert heard == pytest.approx(expected)


def test_reverberation_has_the_asked_energy_and_decay() -> None:
    wave = np.zeros((2, 2 * RATE_HZ), np.float32)
    wave[:, 0] = 1.0
    tail = reverberate(wave, RATE_HZ, 1.0, 0.1, np.random.default_rng(0)) - wave
    assert (tail**2).sum(axis=1) == pytest.approx([0.1, 0.1], rel=0.01)
    early, late = ((tail[:, s : s + RATE_HZ // 10] ** 2).sum() for s in (RATE_HZ // 5, 7 * RATE_HZ // 10))
    assert 10 * np.log10(early / late) == pytest.approx(30.0, abs=2.0)
    assert np.abs(tail[:, RATE_HZ:]).max() < 1e-5
    assert np.corrcoef(tail)[0, 1] == pytest.approx(0.0, abs=0.1)
