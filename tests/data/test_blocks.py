from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from polyres.data.blocks import BlockBuffer, rechunk, skip_samples, trim_excess

SIZES = st.lists(st.integers(0, 50), max_size=12)


def pieces(sizes: list[int]) -> tuple[np.ndarray, list[np.ndarray]]:
    total = sum(sizes)
    wave = np.arange(2 * total, dtype=np.float32).reshape(2, total)
    return wave, np.split(wave, np.cumsum(sizes)[:-1], axis=1) if sizes else []


def joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.zeros((2, 0), np.float32), *parts], axis=1)


@given(SIZES, st.integers(1, 60))
def test_rechunk_keeps_the_signal_in_equal_blocks(sizes: list[int], block: int):
    wave, parts = pieces(sizes)
    out = list(rechunk(parts, block))
    assert np.array_equal(joined(out), wave)
    assert [part.shape[1] for part in out[:-1]] == [block] * (len(out) - 1)
    assert all(0 < part.shape[1] <= block and part.flags.c_contiguous for part in out)


@given(SIZES, st.integers(0, 300))
def test_skip_samples_leaves_out_the_start(sizes: list[int], count: int):
    wave, parts = pieces(sizes)
    assert np.array_equal(joined(list(skip_samples(parts, count))), wave[:, count:])


@given(SIZES, st.integers(0, 300), st.integers(0, 100))
def test_trim_excess_cuts_a_little_and_never_a_lot(sizes: list[int], length: int, excess: int):
    wave, parts = pieces(sizes)
    total = wave.shape[1]
    wanted = wave[:, :length] if total <= length + excess else wave
    assert np.array_equal(joined(list(trim_excess(parts, length, excess))), wanted)


def test_buffer_is_empty_after_its_rest():
    buffer = BlockBuffer(4)
    assert [block.shape for block in buffer.push(np.ones((1, 9), np.float32))] == [(1, 4), (1, 4)]
    rest = buffer.rest()
    assert rest is not None
    assert rest.shape == (1, 1)
    assert buffer.rest() is None
