"""Noise that keeps to its levels: closer to them than it was drawn, where something lacks and nowhere else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.codec.wave.floor import (
    STEPS_DB,
    decode_floor,
    encode_floor,
    evened,
    floor_edges,
    floor_power,
    floor_wave,
    level_magnitude,
)
from polyres.codec.wave.step import noise, plain_tables
from polyres.core.errors import InputError
from polyres.dsp.mdct import unlapped
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


TABLE = plain_tables(1).floor


@settings(max_examples=20)
@given(st.integers(1, 2), st.integers(1, 6), st.integers(1, 12), st.integers(0, 99))
def test_powers_come_back_within_half_a_level(channels: int, blocks: int, bands: int, seed: int) -> None:
    power = 10 ** (-np.random.default_rng(seed).uniform(0, 8, (channels, blocks, bands)))
    budget = 4 + channels * blocks * bands  # more than 5 bits for each
    scalars = encode_floor(power, 1.0, TABLE, budget)
    assert scalars.shape == (budget,)
    assert np.array_equal(scalars, scalars.astype(np.float16).astype(np.float32))
    rms = decode_floor(scalars, power.shape, 1.0, TABLE)
    assert np.abs(20 * np.log10(rms) - 10 * np.log10(power)).max() <= STEPS_DB[0] / 2 + 1e-9


def test_fewer_numbers_make_coarser_levels_that_still_fit() -> None:
    power = 10 ** (-np.random.default_rng(0).uniform(0, 8, (1, 16, 64)))
    errors = []
    table = np.full_like(TABLE, 1024)
    for rough, expected in np.ndindex(table.shape[:2]):  # a table that bets on what is expected
        node = 1
        for place in reversed(range(5)):
            bit = expected >> place & 1
            table[rough, expected, node] = 1900 if bit else 148
            node = 2 * node + bit
    for budget in (1200, 700, 300):
        rms = decode_floor(encode_floor(power, 1.0, table, budget), power.shape, 1.0, table)
        errors.append(np.abs(20 * np.log10(rms) - 10 * np.log10(power)).mean())
    assert errors == sorted(errors)
    assert errors[0] < 1
    assert errors[-1] < 30


def test_levels_that_do_not_fit_are_left_out() -> None:
    power = np.random.default_rng(0).random((1, 16, 64))
    assert not decode_floor(encode_floor(power, 1.0, TABLE, 1), power.shape, 1.0, TABLE).any()


def test_nothing_stays_nothing() -> None:
    scalars = encode_floor(np.zeros((1, 4, 8)), 1.0, TABLE, 40)
    assert not decode_floor(scalars, (1, 4, 8), 1.0, TABLE).any()


def test_noise_of_measured_levels_has_these_levels() -> None:
    rng = np.random.default_rng(0)
    rest = rng.standard_normal((1, 512 * 40)) * 0.1
    power = floor_power(rest, 512, 8)
    assert power.shape == (1, 40, 8)
    wave = floor_wave(np.sqrt(power), 512, noise(1, 512 * 40).reshape(1, 40, 512))
    assert np.square(wave).sum() == pytest.approx(np.square(rest).sum(), rel=0.05)


@pytest.mark.parametrize(("bins", "bands"), [(512, 64), (64, 64), (33, 5), (8, 1)])
def test_bands_cover_all_bins(bins: int, bands: int) -> None:
    edges = floor_edges(bins, bands)
    assert edges[0] == 0
    assert edges[-1] == bins
    assert (np.diff(edges) >= 1).all()


def test_more_bands_than_bins_are_refused() -> None:
    with pytest.raises(InputError, match="9 bands do not fit into 8 bins"):
        floor_edges(8, 9)


def test_a_band_with_a_few_lines_counts_for_less_than_their_energy() -> None:
    coefficients = np.zeros(512)
    coefficients[100] = 1.0
    wave = unlapped([np.zeros((1, 512)), coefficients[None], np.zeros((1, 512))])
    alone = floor_power(wave, 512, 8)[0, 1].max()
    assert 0 < alone < 0.01 * (1 / 64)
