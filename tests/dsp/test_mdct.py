"""The lapped transform: exact inverse, one energy, the slow formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.dsp.mdct import lapped, unlapped

sizes = st.lists(st.sampled_from([1, 2, 8, 16, 32]), min_size=1, max_size=6)


@given(sizes, st.integers(0, 99))
def test_the_inverse_is_exact_and_energy_is_kept(blocks: list[int], seed: int) -> None:
    wave = np.random.default_rng(seed).standard_normal((2, sum(blocks)))
    found = lapped(wave, blocks)
    assert [block.shape for block in found] == [(2, size) for size in blocks]
    assert np.allclose(unlapped(found), wave, atol=1e-12)
    assert sum(float(np.square(block).sum()) for block in found) == pytest.approx(float(np.square(wave).sum()))


def test_equal_blocks_are_the_windowed_cosine_transform() -> None:
    size, rng = 16, np.random.default_rng(0)
    wave = rng.standard_normal(4 * size)
    window = np.sin(np.pi * (np.arange(2 * size) + 0.5) / (2 * size))
    time, bins = np.arange(2 * size), np.arange(size)
    angles = np.pi / size * np.outer(bins + 0.5, time + 0.5 - size / 2)
    # A block overlaps by half of it on each side, so its window starts half a block before it.
    piece = wave[size // 2 : size // 2 + 2 * size] * window
    wanted = np.sqrt(2 / size) * np.cos(angles) @ piece
    found = lapped(wave, [size] * 4)[1]
    assert np.allclose(found, wanted, atol=1e-12)


def test_a_steady_tone_needs_few_coefficients_of_a_long_block() -> None:
    wave = np.sin(2 * np.pi * 0.05 * np.arange(4096))
    energies = [np.sort(np.square(block))[::-1] for block in lapped(wave, [512] * 8)[2:6]]
    assert all(energy[:8].sum() > 0.995 * energy.sum() for energy in energies)


def test_blocks_that_do_not_fill_the_wave_are_refused() -> None:
    with pytest.raises(InputError, match=r"blocks of \[8, 8\] samples do not make up 20 samples"):
        lapped(np.zeros(20), [8, 8])
