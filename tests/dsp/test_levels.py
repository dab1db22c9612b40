"""One gain for all stems, sums that equal the mixture, and the level of a stream."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.signal import freqz_sos

from polyres.core.errors import InputError
from polyres.dsp.levels import (
    INTEGER_CEILING,
    SILENCE_LUFS,
    LoudnessMeter,
    RunningLevel,
    k_weighting,
    peak_level,
    shared_gain,
    spread_residual,
)


@pytest.mark.parametrize("peak", [0.0, 0.3, 1.0])
def test_stems_below_full_scale_are_left_alone(peak: float) -> None:
    assert shared_gain(peak) == 1.0


def test_the_loudest_stem_ends_at_the_ceiling() -> None:
    assert 2.5 * shared_gain(2.5) == pytest.approx(INTEGER_CEILING)
    assert 2.5 * shared_gain(2.5, ceiling=0.5) == pytest.approx(0.5)


def test_peak() -> None:
    assert peak_level(np.float32([[0.25, -0.5]])) == 0.5
    assert peak_level(np.zeros((2, 0), np.float32)) == 0.0


@given(st.integers(1, 6), st.integers(1, 50), st.floats(1e-4, 10.0), st.integers(0, 2**31))
def test_spread_stems_sum_to_the_mixture(sources: int, length: int, scale: float, seed: int) -> None:
    generator = np.random.default_rng(seed)
    stems = generator.standard_normal((sources, 2, length), np.float32)
    mix = np.float32(scale) * generator.standard_normal((2, length), np.float32)
    spread = spread_residual(stems, mix)
    assert spread.dtype == np.float32
    error = np.abs(spread.sum(axis=0, dtype=np.float64) - mix)
    # Half a step of the smallest stem of each sample is all that float32 can leave (one step where it has moved).
    assert (error <= np.spacing(np.abs(spread).min(axis=0))).all()
    ulp = np.spacing(np.maximum(np.abs(mix), np.abs(spread).max(axis=0)))
    assert (np.abs(spread.sum(axis=0) - mix) <= sources * ulp).all()


def test_every_stem_gets_an_equal_part() -> None:
    stems = np.float32([[[0.5, 0.0]], [[0.25, 0.0]]])
    spread = spread_residual(stems, np.float32([[1.0, 0.5]]))
    assert spread.tolist() == [[[0.625, 0.25]], [[0.375, 0.25]]]


def test_stems_that_sum_to_the_mixture_are_left_alone() -> None:
    stems = np.float32([[[0.5, -0.25]], [[0.25, 1.0]]])
    assert np.array_equal(spread_residual(stems, stems.sum(axis=0)), stems)


def test_a_mixture_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"stems of shape \(4, 2, 9\) do not fit a mixture of shape \(2, 8\)"):
        spread_residual(np.zeros((4, 2, 9), np.float32), np.zeros((2, 8), np.float32))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.floats(-100, 100), st.integers(0, 2**31))
def test_the_running_level_equals_that_of_the_whole(blocks: list[int], offset: float, seed: int) -> None:
    wave = np.float32(offset) + np.random.default_rng(seed).standard_normal((2, sum(blocks)), np.float32)
    level = RunningLevel()
    for block in np.split(wave, np.cumsum(blocks)[:-1], axis=1):
        level.push(block)
    mono = wave.mean(axis=0, dtype=np.float64)
    assert level.count == mono.size
    assert level.mean == pytest.approx(mono.mean() if mono.size else 0.0, rel=1e-12, abs=1e-12)
    assert level.std == pytest.approx(mono.std(ddof=1) if mono.size > 1 else 0.0, rel=1e-9)


def test_a_constant_has_no_deviation_and_keeps_its_mean() -> None:
    level = RunningLevel()
    for _ in range(3):
        level.push(np.full((2, 1000), 0.1, np.float32))
    assert level.mean == pytest.approx(0.1, rel=1e-7)
    assert level.std < 1e-12


RATE_HZ = 48_000


def tone(level_dbfs: float, seconds: float, rate_hz: int = RATE_HZ, channels: int = 2) -> np.ndarray:
    """A sine at 1 kHz whose peak is at the level, as in EBU Tech 3341."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    return np.tile(10 ** (level_dbfs / 20) * np.sin(2 * np.pi * 1000 * t), (channels, 1)).astype(np.float32)


def loudness(wave: np.ndarray, rate_hz: int = RATE_HZ, block_samples: int = 10_000) -> float:
    meter = LoudnessMeter(rate_hz, len(wave))
    for at in range(0, wave.shape[1], block_samples):
        meter.push(wave[:, at : at + block_samples])
    return meter.integrated_lufs()


def test_the_weighting_at_48_khz_is_that_of_the_standard() -> None:
    shelf = [1.53512485958697, -2.69169618940638, 1.19839281085285, 1.0, -1.69065929318241, 0.73248077421585]
    high_pass = [1.0, -2.0, 1.0, 1.0, -1.99004745483398, 0.99007225036621]
    assert k_weighting(48_000) == pytest.approx(np.array([shelf, high_pass]), abs=1e-7)


@pytest.mark.parametrize("rate_hz", [22_050, 44_100, 96_000])
def test_the_weighting_is_the_same_curve_at_every_rate(rate_hz: int) -> None:
    frequencies_hz = np.array([20.0, 50.0, 200.0, 1000.0, 3000.0])
    curves = [freqz_sos(k_weighting(r), worN=frequencies_hz, fs=r)[1] for r in (48_000, rate_hz)]
    decibels = 20 * np.log10(np.abs(curves))
    assert decibels[1] == pytest.approx(decibels[0], abs=0.3)


# Signals and expected values of EBU Tech 3341, cases 1 to 5; the standard allows 0.1 LU.
CASES = [
    ([(-23.0, 20)], -23.0),
    ([(-33.0, 20)], -33.0),
    ([(-36.0, 10), (-23.0, 60), (-36.0, 10)], -23.0),
    ([(-72.0, 10), (-36.0, 10), (-23.0, 60), (-36.0, 10), (-72.0, 10)], -23.0),
    ([(-26.0, 20), (-20.0, 20.1), (-26.0, 20)], -23.0),
]


@pytest.mark.parametrize(("parts", "expected"), CASES)
def test_the_signals_of_the_broadcast_union(parts: list[tuple[float, float]], expected: float) -> None:
    wave = np.concatenate([tone(*part) for part in parts], axis=1)
    assert loudness(wave) == pytest.approx(expected, abs=0.1)


def test_one_channel_is_3_db_below_two() -> None:
    assert loudness(tone(-20.0, 3, channels=1)) == pytest.approx(loudness(tone(-20.0, 3)) - 3.01, abs=0.01)


def test_nothing_and_silence_have_the_lowest_loudness() -> None:
    assert loudness(np.zeros((2, 0), np.float32)) == SILENCE_LUFS
    assert loudness(np.zeros((2, RATE_HZ), np.float32)) == SILENCE_LUFS
    assert loudness(tone(-80.0, 3)) == SILENCE_LUFS


def test_a_signal_shorter_than_a_block_counts_as_one() -> None:
    assert loudness(tone(-20.0, 0.25)) == pytest.approx(-20.0, abs=0.5)
    assert loudness(tone(-20.0, 0.05)) == pytest.approx(-20.0, abs=1.5)


@given(st.integers(1, 9000))
def test_the_size_of_the_blocks_does_not_matter(block_samples: int) -> None:
    rng = np.random.default_rng(block_samples)
    wave = rng.standard_normal((2, 9000)).astype(np.float32) * np.linspace(0, 0.3, 9000, dtype=np.float32)
    assert loudness(wave, 8000, max(100, block_samples)) == pytest.approx(loudness(wave, 8000, 9000), abs=1e-9)


@pytest.mark.parametrize("rate_hz", [200, 1000, 4000, 8000])
def test_low_rates_give_finite_values(rate_hz: int) -> None:
    wave = 0.1 * np.random.default_rng(0).standard_normal((2, 3 * rate_hz)).astype(np.float32)
    assert -40.0 < loudness(wave, rate_hz) < -10.0
