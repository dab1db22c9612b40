"""One gain for all stems, sums that equal the mixture, and the level of a stream."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.dsp.levels import INTEGER_CEILING, RunningLevel, peak_level, shared_gain, spread_residual


@pytest.mark.parametrize("peak", [0.0, 0.3, 1.0])
def test_stems_below_full_scale_are_left_alone(peak: float) -> None:
    assert shared_gain(peak) == 1.0


def test_the_loudest_stem_ends_at_the_ceiling() -> None:
    assert 2.5 * shared_gain(2.5) == pytest.approx(INTEGER_CEILING)
    assert 2.5 * shared_gain(2.5, ceiling=0.5) == pytest.approx(0.5)


def test_peak() -> None:
    assert peak_level(torch.tensor([[0.25, -0.5]])) == 0.5
    assert peak_level(torch.zeros(2, 0)) == 0.0


@given(st.integers(1, 6), st.integers(1, 50), st.floats(1e-4, 10.0), st.integers(0, 2**31))
def test_spread_stems_sum_to_the_mixture(sources: int, length: int, scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    stems = torch.randn(sources, 2, length, generator=generator)
    mix = scale * torch.randn(2, length, generator=generator)
    spread = spread_residual(stems, mix)
    assert spread.dtype == torch.float32
    error = (spread.double().sum(0) - mix.double()).abs().numpy()
    # Half a step of the smallest stem of each sample is all that float32 can leave (one step where it has moved).
    assert (error <= np.spacing(spread.abs().amin(0).numpy())).all()
    ulp = np.spacing(np.maximum(mix.abs().numpy(), spread.abs().amax(0).numpy()))
    assert (np.abs(spread.sum(0).numpy() - mix.numpy()) <= sources * ulp).all()


def test_every_stem_gets_an_equal_part() -> None:
    stems = torch.tensor([[[0.5, 0.0]], [[0.25, 0.0]]])
    spread = spread_residual(stems, torch.tensor([[1.0, 0.5]]))
    assert spread.tolist() == [[[0.625, 0.25]], [[0.375, 0.25]]]


def test_stems_that_sum_to_the_mixture_are_left_alone() -> None:
    stems = torch.tensor([[[0.5, -0.25]], [[0.25, 1.0]]])
    assert torch.equal(spread_residual(stems, stems.sum(0)), stems)


def test_a_mixture_of_another_shape_is_refused() -> None:
    with pytest.raises(InputError, match=r"stems of shape \(4, 2, 9\) do not fit a mixture of shape \(2, 8\)"):
        spread_residual(torch.zeros(4, 2, 9), torch.zeros(2, 8))


@given(st.lists(st.integers(0, 40), min_size=1, max_size=5), st.floats(-100, 100), st.integers(0, 2**31))
def test_the_running_level_equals_that_of_the_whole(blocks: list[int], offset: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    wave = offset + torch.randn(2, sum(blocks), generator=generator)
    level = RunningLevel()
    for block in wave.split(blocks, dim=1):
        level.push(block)
    mono = wave.double().numpy().mean(0)
    assert level.count == mono.size
    assert level.mean == pytest.approx(mono.mean() if mono.size else 0.0, rel=1e-12, abs=1e-12)
    assert level.std == pytest.approx(mono.std(ddof=1) if mono.size > 1 else 0.0, rel=1e-9)


def test_a_constant_has_no_deviation_and_keeps_its_mean() -> None:
    level = RunningLevel()
    for _ in range(3):
        level.push(torch.full((2, 1000), 0.1))
    assert level.mean == pytest.approx(0.1, rel=1e-7)
    assert level.std < 1e-12
