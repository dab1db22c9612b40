"""Bands that add up to a delay."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import ConfigError
from polyres.dsp.filters import identity_bank

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
