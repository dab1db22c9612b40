"""Noise that keeps to its levels: closer to them than it was drawn, where something lacks and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.codec.wave.floor import evened, floor_wave, level_magnitude
from polyres.codec.wave.step import noise
from polyres.dsp.stft import stft

BLOCK, BANDS, BLOCKS, N_FFT = 256, 8, 24, 512
LENGTH = BLOCK * BLOCKS


def sloped(seed: int = 0) -> np.ndarray:
    """Levels that fall over frequency and swing over time, `[1, blocks, bands]`."""
    swing = np.random.default_rng(seed).uniform(0.7, 1.4, (1, BLOCKS, 1))
    return 0.1 * swing * 10 ** (-np.arange(BANDS) / 10)


def drawn(rms: np.ndarray, seed: int = 1) -> np.ndarray:
    return floor_wave(rms, BLOCK, noise(seed, LENGTH * len(rms)).reshape(len(rms), BLOCKS, BLOCK))


def strays(wave: np.ndarray, wanted: torch.Tensor) -> float:
    """RMS difference from wanted magnitudes, in natural logarithms, away from the ends."""
    found = stft(torch.from_numpy(wave), N_FFT, N_FFT // 8).abs()
    return float((found / wanted).log()[..., 4:-4, 16:-16].square().mean().sqrt())


def test_the_magnitudes_of_noise_are_those_of_its_levels() -> None:
    rms = np.full((1, 200, BANDS), 0.3)
    wave = floor_wave(rms, BLOCK, noise(3, 200 * BLOCK).reshape(1, 200, BLOCK))
    power = stft(torch.from_numpy(wave), N_FFT, N_FFT // 8).abs().square().mean()
    assert float(power) == pytest.approx(float(level_magnitude(rms, BLOCK, N_FFT).square().mean()), rel=0.05)


def test_levels_are_joined_by_straight_lines_in_decibels() -> None:
    rms = np.ones((1, 2, 1))
    rms[0, 1] = 1e-4
    db = 20 * torch.log10(level_magnitude(rms, 256, 64))[0, 5]
    slope = db[17:47].diff()
    assert torch.allclose(slope, slope[:1].expand_as(slope), atol=1e-9)
    assert float(slope[0]) == pytest.approx(-80 / 32)  # 256 samples are 32 hops


def test_every_round_brings_the_magnitudes_closer() -> None:
    rms = sloped()
    wanted, silence = level_magnitude(rms, BLOCK, N_FFT), np.zeros((1, LENGTH))
    found = [strays(evened(silence, drawn(rms), rms, BLOCK, N_FFT, rounds), wanted) for rounds in (0, 1, 3, 8)]
    assert found == sorted(found, reverse=True)
    assert found[0] > 0.5  # Rayleigh magnitudes stray by 0.64
    assert found[-1] < 0.5 * found[0]


def test_what_is_carried_counts() -> None:
    rms = sloped()
    tone = np.sin(2 * np.pi * 0.1 * np.arange(LENGTH))[None]
    wanted = (
        stft(torch.from_numpy(tone), N_FFT, N_FFT // 8).abs() ** 2 + level_magnitude(rms, BLOCK, N_FFT) ** 2
    ).sqrt()
    added = evened(tone, drawn(rms), rms, BLOCK, N_FFT, 6)
    assert strays(tone + added, wanted) < 0.6 * strays(tone + drawn(rms), wanted)
    assert np.square(added).mean() == pytest.approx(np.square(drawn(rms)).mean(), rel=0.3)


def test_nothing_is_added_where_nothing_lacks() -> None:
    wave = np.random.default_rng(0).standard_normal((2, LENGTH))
    added = evened(wave, np.zeros_like(wave), np.zeros((2, BLOCKS, BANDS)), BLOCK, N_FFT, 4)
    assert np.abs(added).max() < 1e-12


def test_no_round_leaves_the_noise_as_it_is() -> None:
    rms = sloped()
    assert np.array_equal(evened(np.zeros((1, LENGTH)), drawn(rms), rms, BLOCK, N_FFT, 0), drawn(rms))


@settings(max_examples=8)
@given(st.floats(1e-6, 1e4), st.integers(0, 9))
def test_level_makes_no_difference(gain: float, seed: int) -> None:
    rms = sloped(seed)
    carried = 0.01 * np.random.default_rng(seed).standard_normal((1, LENGTH))
    one = evened(carried, drawn(rms), rms, BLOCK, N_FFT, 2)
    other = evened(gain * carried, gain * drawn(rms), gain * rms, BLOCK, N_FFT, 2)
    assert np.allclose(other, gain * one, rtol=1e-6, atol=1e-9 * gain)


def test_a_sample_depends_on_no_more_than_its_surroundings() -> None:
    rms = np.tile(sloped(), (1, 2, 1))
    carried, rounds = np.random.default_rng(0).standard_normal((1, 2 * LENGTH)) * 0.05, 3
    plain = floor_wave(rms, BLOCK, noise(1, 2 * LENGTH).reshape(1, 2 * BLOCKS, BLOCK))
    whole = evened(carried, plain, rms, BLOCK, N_FFT, rounds)
    part = evened(carried[:, :LENGTH], plain[:, :LENGTH], rms[:, :BLOCKS], BLOCK, N_FFT, rounds)
    safe = LENGTH - rounds * N_FFT - BLOCK
    assert np.allclose(part[:, :safe], whole[:, :safe], atol=1e-12)
    assert not np.allclose(part[:, -BLOCK:], whole[:, LENGTH - BLOCK : LENGTH], atol=1e-6)
