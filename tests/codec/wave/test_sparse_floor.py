"""Levels of what is left out: powers come back within half a level, in the numbers given."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.codec.wave.contexts import plain_tables
from polyres.codec.wave.floor import STEPS_DB, decode_floor, encode_floor, floor_edges, floor_power, floor_wave
from polyres.codec.wave.step import noise
from polyres.core.errors import InputError
from polyres.dsp.mdct import unlapped

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
