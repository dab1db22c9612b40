"""Segments that cover a signal, and the cross-fade that puts it together again."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import ConfigError, InputError
from polyres.dsp.overlap import OverlapAdd, centred_bounds, stride_samples, triangle_weight


@pytest.mark.parametrize(
    ("length", "weight"),
    [(1, [1.0]), (2, [1.0, 1.0]), (4, [0.5, 1.0, 1.0, 0.5]), (5, [1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3])],
)
def test_the_triangle_rises_by_equal_steps_and_never_reaches_zero(length: int, weight: list[float]) -> None:
    np.testing.assert_allclose(triangle_weight(length), weight, rtol=1e-6)


def test_neighbouring_segments_share_the_overlap() -> None:
    assert stride_samples(343_980, 0.25) == 257_985
    assert stride_samples(400, 0.25) == 300
    assert stride_samples(10, 0.999) == 1


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 7.0, float("nan")])
def test_an_overlap_out_of_range_is_refused(overlap: float) -> None:
    with pytest.raises(ConfigError, match=r"overlap .* is not possible; choose 0 <= overlap < 1"):
        stride_samples(100, overlap)


@pytest.mark.parametrize(("length", "bounds"), [(10, (50, 60)), (7, (49, 59)), (1, (46, 56))])
def test_a_short_piece_lies_in_the_middle(length: int, bounds: tuple[int, int]) -> None:
    assert centred_bounds(50, length, 10) == bounds


@given(st.integers(1, 60), st.integers(1, 25), st.floats(0.0, 0.95), st.integers(0, 2**31))
def test_overlapping_pieces_of_a_signal_give_it_back_at_once(
    length: int, segment: int, overlap: float, seed: int
) -> None:
    wave = np.random.default_rng(seed).standard_normal((2, length), np.float32)
    adder = OverlapAdd(triangle_weight(segment))
    starts = range(0, length, stride_samples(segment, overlap))
    out = []
    for start in starts:
        adder.add(wave[:, start : start + segment], start)
        done = adder.take(min(start + starts.step, length))
        assert done is not None
        out.append(done)
        assert sum(part.shape[-1] for part in out) == min(start + starts.step, length)
    np.testing.assert_allclose(np.concatenate(out, axis=-1), wave, rtol=1e-5, atol=1e-6)


def test_the_cross_fade_is_the_weighted_mean() -> None:
    adder = OverlapAdd(np.float32([1.0, 2.0, 1.0]))
    adder.add(np.float32([1.0, 1.0, 1.0]), 0)
    adder.add(np.float32([4.0, 4.0]), 2)
    assert adder.take(0) is None
    done = adder.take(4)
    assert done is not None
    assert done.tolist() == [1.0, 1.0, 2.5, 4.0]
    assert adder.take(4) is None


def test_a_segment_before_finished_samples_is_refused() -> None:
    adder = OverlapAdd(triangle_weight(4))
    adder.add(np.ones(4, np.float32), 0)
    adder.take(3)
    with pytest.raises(InputError, match="segment at sample 2 comes too late; samples before 3 are finished"):
        adder.add(np.ones(4, np.float32), 2)
