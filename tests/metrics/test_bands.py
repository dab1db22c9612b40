from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics.bands import BANDS_HZ, band_sdr, bin_energies

RATE = 8000


def tone(frequency_hz: float, amplitude: float = 0.5) -> Tensor:
    """Two channels of a tone with a whole number of periods."""
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    return amplitude * torch.sin(2 * math.pi * frequency_hz * time).repeat(2, 1)


def test_bands_touch_and_cover_everything() -> None:
    edges = list(BANDS_HZ.values())
    assert edges[0][0] == 0
    assert edges[-1][1] == math.inf
    assert all(left[1] == right[0] for left, right in pairwise(edges))


def test_an_error_counts_in_its_own_band() -> None:
    reference = tone(100) + tone(1000) + tone(3000)
    ratios = band_sdr(reference, tone(100) + tone(1000, 0.25) + tone(3000, 0.45), RATE)
    assert ratios["mid"].item() == pytest.approx(20 * math.log10(2), abs=1e-6)
    assert ratios["presence"].item() == pytest.approx(20, abs=1e-6)
    assert ratios["bass"] > 90
    assert all(ratios[name].isnan() for name in ("sub", "low_mid", "air"))


def test_silence_as_the_estimate_is_zero_and_as_the_reference_nan() -> None:
    assert band_sdr(tone(100), torch.zeros(2, RATE), RATE)["bass"].item() == 0
    assert all(value.isnan() for value in band_sdr(torch.zeros(2, RATE), tone(100), RATE).values())


@given(channels=st.integers(1, 3), length=st.integers(1, 60))
def test_energies_of_bins_add_up_to_those_of_samples(channels: int, length: int) -> None:
    wave = torch.randn(channels, length, generator=torch.Generator().manual_seed(length), dtype=torch.float64)
    assert bin_energies(wave).sum().item() == pytest.approx(wave.square().sum().item(), rel=1e-12)


def test_unusable_input_is_refused() -> None:
    with pytest.raises(InputError, match="sample_rate_hz must be above 0, got -1"):
        band_sdr(tone(100), tone(100), -1)
    with pytest.raises(InputError, match="shapes must match"):
        band_sdr(tone(100), tone(100)[:, 1:], RATE)
