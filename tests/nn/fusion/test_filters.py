"""Bands that add up to a delay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import ConfigError, InputError
from polyres.nn.fusion.base import filter_and_sum, identity_bank

EDGES = (250.0, 1000.0, 4000.0)


def response(bank: torch.Tensor, frequency_hz: float, rate_hz: int) -> torch.Tensor:
    turns = torch.arange(bank.shape[1], dtype=torch.float64) * frequency_hz / rate_hz
    return (bank.double() * torch.exp(-2j * torch.pi * turns)).sum(dim=1).abs()


@given(
    edges=st.lists(st.floats(20, 20000), max_size=6, unique=True),
    half=st.integers(1, 600),
    rate_hz=st.sampled_from([44100, 48000]),
)
def test_sum_is_an_impulse(edges: list[float], half: int, rate_hz: int) -> None:
    bank = identity_bank(sorted(edges), 2 * half + 1, rate_hz)
    impulse = torch.zeros(2 * half + 1)
    impulse[half] = 1
    assert bank.shape == (len(edges) + 1, 2 * half + 1)
    assert float((bank.sum(dim=0) - impulse).abs().max()) <= 1e-6


@pytest.mark.parametrize(("band", "frequency_hz"), [(0, 30.0), (0, 120.0), (1, 500.0), (2, 2000.0), (3, 10000.0)])
def test_a_band_passes_its_own_sine_and_stops_the_others(band: int, frequency_hz: float) -> None:
    level = response(identity_bank(EDGES, 1025, 44100), frequency_hz, 44100)
    assert float(level[band]) == pytest.approx(1, abs=0.02)
    others = [float(level[k]) for k in range(4) if k != band]
    assert max(others) < 0.02


def test_neighbours_meet_at_half_at_the_edge() -> None:
    level = response(identity_bank(EDGES, 4097, 44100), 1000.0, 44100)
    assert float(level[1]) == pytest.approx(0.5, abs=0.02)
    assert float(level[2]) == pytest.approx(0.5, abs=0.02)


def test_a_constant_is_all_in_the_lowest_band() -> None:
    total = identity_bank((60.0, *EDGES), 129, 44100).sum(dim=1)
    torch.testing.assert_close(total, torch.tensor([1.0, 0, 0, 0, 0]), atol=1e-6, rtol=0)


def test_filters_are_linear_phase() -> None:
    bank = identity_bank(EDGES, 513, 44100)
    torch.testing.assert_close(bank, bank.flip(1), atol=1e-7, rtol=0)


@pytest.mark.parametrize("edges", [(1000.0, 250.0), (500.0, 500.0), (0.0, 100.0), (100.0, 22050.0), (-5.0,)])
def test_edges_out_of_range_are_refused(edges: tuple[float, ...]) -> None:
    with pytest.raises(ConfigError, match=r"bands_hz \[.*\] must rise and lie between 0 and 22050 Hz"):
        identity_bank(edges, 129, 44100)


@pytest.mark.parametrize("taps", [128, 1, 0, -3])
def test_even_or_too_few_taps_are_refused(taps: int) -> None:
    with pytest.raises(ConfigError, match=f"band_taps is {taps}; an odd number of 3 or more is needed"):
        identity_bank(EDGES, taps, 44100)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv1d(x.flatten(1, 2), kernel, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 4),
    rows=st.integers(1, 3),
    length=st.integers(1, 700),
    half=st.integers(0, 150),
)
def test_equals_a_grouped_convolution(batch: int, groups: int, rows: int, length: int, half: int) -> None:
    x, kernel = noise(batch, groups, rows, length), noise(groups, rows, 2 * half + 1, seed=1)
    assert torch.allclose(filter_and_sum(x, kernel), by_convolution(x, kernel), atol=1e-10)


def test_gradients_equal_those_of_a_grouped_convolution() -> None:
    x, kernel = noise(2, 3, 2, 500).requires_grad_(), noise(3, 2, 129, seed=1).requires_grad_()
    weights = noise(2, 3, 500, seed=2)
    found = torch.autograd.grad((filter_and_sum(x, kernel) * weights).sum(), (x, kernel))
    expected = torch.autograd.grad((by_convolution(x, kernel) * weights).sum(), (x, kernel))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, expected, strict=True))


def test_a_delayed_impulse_moves_the_signal() -> None:
    x = noise(1, 1, 1, 300)
    kernel = torch.zeros(1, 1, 5, dtype=torch.float64)
    kernel[..., 4] = 2.0  # looks two samples ahead
    y = filter_and_sum(x, kernel)
    assert torch.equal(y[..., :-2], 2.0 * x[0, :, :, 2:])
    assert torch.equal(y[..., -2:], torch.zeros(1, 1, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("x", "kernel"),
    [((1, 2, 1, 9), (2, 1, 4)), ((1, 2, 1, 9), (3, 1, 5)), ((1, 2, 9), (2, 1, 5)), ((1, 2, 1, 9), (2, 5))],
)
def test_shapes_that_do_not_fit_are_refused(x: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"cannot filter \[1, 2.*odd K"):
        filter_and_sum(torch.zeros(x), torch.zeros(kernel))
