"""Moving features between grids."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from polyres.ops.grid import reference_index, resample_grid


@pytest.mark.parametrize(
    ("n_fft", "index"),
    [
        ((4096,), 0),
        ((512,), 0),
        ((2048, 4096, 8192), 1),
        ((8192, 1024, 4096), 2),
        ((1024, 2048, 8192), 1),
        ((8192, 16384), 0),
        ((2048, 6144), 0),
        ((6144, 2048), 1),
    ],
)
def test_reference_is_4096_else_the_nearest_else_the_smaller(n_fft: tuple[int, ...], index: int) -> None:
    assert reference_index(n_fft) == index


@given(old=st.tuples(st.integers(1, 20), st.integers(1, 20)), new=st.tuples(st.integers(1, 20), st.integers(1, 20)))
def test_a_constant_stays_constant(old: tuple[int, int], new: tuple[int, int]) -> None:
    moved = resample_grid(torch.full((2, 3, *old), 1.7), new)
    torch.testing.assert_close(moved, torch.full((2, 3, *new), 1.7))


def test_the_right_size_is_handed_back() -> None:
    features = torch.randn(1, 2, 4, 6)
    assert resample_grid(features, (4, 6)) is features


@pytest.mark.parametrize("factor", [2, 4, 0.5])
def test_cells_are_areas(factor: float) -> None:
    """A ramp over cell centres stays the same ramp away from the ends, whatever the number of cells."""
    old, new = 64, int(64 * factor)
    ramp = ((torch.arange(old) + 0.5) / old)[None, None, None].expand(1, 1, 3, old)
    wanted = (torch.arange(new) + 0.5) / new
    for features, size in ((ramp, (3, new)), (ramp.transpose(2, 3), (new, 3))):
        moved = (
            resample_grid(features, size).reshape(-1, new) if size[0] == 3 else resample_grid(features, size)[0, 0].T
        )
        inner = slice(new // 8, -new // 8)
        torch.testing.assert_close(moved[0, inner], wanted[inner], atol=1e-5, rtol=0)


@pytest.mark.parametrize("axis", [2, 3])
@pytest.mark.parametrize("period", [2.3, 3.1, 4.7])
def test_fast_modulation_is_removed_not_folded(axis: int, period: float) -> None:
    """Down to an eighth of the cells: what the coarse grid cannot hold goes, where plain interpolation folds it."""
    wave = torch.cos(2 * torch.pi * torch.arange(256) / period)
    shape, size = [1, 1, 1, 1], [1, 1]
    shape[axis], size[axis - 2] = 256, 32
    features = wave.reshape(shape)
    moved = resample_grid(features, (size[0], size[1]))
    folded = F.interpolate(features, size=size, mode="bilinear", align_corners=False)
    assert float(moved.square().mean()) < 0.005 * 0.5
    assert float(folded.square().mean()) > 0.02 * 0.5


def test_slow_modulation_survives_both_ways() -> None:
    wave = torch.cos(2 * torch.pi * torch.arange(64) / 64)[None, None, None]
    back = resample_grid(resample_grid(wave, (1, 256)), (1, 64))
    torch.testing.assert_close(back, wave, atol=0.02, rtol=0)


def test_half_precision_is_kept() -> None:
    features = torch.randn(1, 2, 4, 16, generator=torch.Generator().manual_seed(0))
    moved = resample_grid(features.bfloat16(), (8, 4))
    assert moved.dtype == torch.bfloat16
    torch.testing.assert_close(moved.float(), resample_grid(features, (8, 4)), atol=0.02, rtol=0.02)
