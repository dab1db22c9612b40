"""Mean and peak of a file, taken away and given back."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.ops.input_level import InputLevelMeter, level_of


@given(seed=st.integers(0, 999), peak=st.floats(1e-4, 4), mean=st.floats(-1, 1), samples=st.integers(1, 400))
def test_what_is_taken_is_given_back_bit_for_bit(seed: int, peak: float, mean: float, samples: int) -> None:
    gen = torch.Generator().manual_seed(seed)
    wave = ((torch.rand(2, samples, generator=gen) * 2 - 1) * peak + mean * peak).float()
    wave = (wave * 2**20).round() / 2**20  # as integer files hold them
    level = level_of(wave)
    assert torch.equal(level.undo(level.apply(wave.double())).float(), wave)
    single = level.undo(level.apply(wave))
    assert float((single - wave).abs().max()) <= 2.5e-7 * float(wave.abs().max() + level.mean.abs().max())


def test_mean_is_zero_and_peak_a_half_per_channel() -> None:
    wave = torch.randn(3, 5000, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [3], [0.01]]) + 0.2
    done = level_of(wave).apply(wave.double())
    torch.testing.assert_close(done.abs().amax(dim=1), torch.full((3,), 0.5).double(), rtol=1e-6, atol=0)
    torch.testing.assert_close(done.mean(dim=1), torch.zeros(3).double(), rtol=0, atol=1e-9)


def test_it_is_audioldms_formula() -> None:
    wave = torch.randn(4000, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.3
    centred = wave - wave.mean()
    torch.testing.assert_close(level_of(wave).apply(wave), centred / (centred.abs().max() + 1e-8) * 0.5)


@given(cuts=st.lists(st.integers(0, 1000), max_size=6))
def test_blocks_add_up_to_the_whole(cuts: list[int]) -> None:
    wave = torch.randn(2, 1000, generator=torch.Generator().manual_seed(2)) + 0.1
    meter = InputLevelMeter()
    edges = [0, *sorted(cuts), 1000]
    for start, stop in pairwise(edges):
        meter.push(wave[:, start:stop])
    torch.testing.assert_close(meter.level().mean, level_of(wave).mean, rtol=0, atol=1e-12)
    torch.testing.assert_close(meter.level().gain, level_of(wave).gain, rtol=1e-12, atol=0)


def test_silence_and_a_constant_come_back() -> None:
    for value in (0.0, 0.25):
        wave = torch.full((1, 64), value)
        level = level_of(wave)
        assert not bool(level.apply(wave).any())
        assert torch.equal(level.undo(level.apply(wave)), wave)


def test_no_samples_have_no_level() -> None:
    with pytest.raises(InputError, match="the signal has 0 samples; its level cannot be measured"):
        level_of(torch.zeros(2, 0))
