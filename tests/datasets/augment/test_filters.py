from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.datasets.augment.base import fast_fft_size
from tests.datasets.augment.cases import RATE_HZ, batch, only, run


@given(seed=st.integers(0, 1000), max_db=st.floats(0.0, 12.0))
def test_eq_is_linear_zero_phase_and_limited(seed: int, max_db: float) -> None:
    impulse = torch.zeros(2, 2, 1, 4001)
    impulse[..., 2000] = 1.0
    config = only("eq", max_db=max_db, shelf_db=20.0, peak_db=20.0)
    response = run(impulse, config, seed)
    assert torch.allclose(response, response.flip(-1), atol=1e-4)
    level_db = 20 * torch.log10(torch.fft.rfft(response).abs())
    assert level_db.abs().max() < max_db + 0.6
    noise = batch(2, 2, 1, 4001, seed)
    both = run(noise + impulse, config, seed)
    assert torch.allclose(both, run(noise, config, seed) + response, atol=1e-4)


def test_eq_changes_the_balance_audibly() -> None:
    impulse = torch.zeros(4, 4, 1, 4001)
    impulse[..., 2000] = 1.0
    response = run(impulse, only("eq", max_db=6.0, shelf_db=20.0, peak_db=20.0), 1)
    level_db = 20 * torch.log10(torch.fft.rfft(response).abs())
    assert (level_db.amax(-1) - level_db.amin(-1)).mean() > 6.0


@given(cutoff_hz=st.floats(300.0, 1500.0), seed=st.integers(0, 1000))
def test_low_pass_cuts_above_and_keeps_below(cutoff_hz: float, seed: int) -> None:
    noise = batch(1, 2, 1, 8000, seed)
    dull = run(noise, only("low_pass", cutoff_hz=(cutoff_hz, cutoff_hz)))
    ratio_db = 20 * torch.log10(torch.fft.rfft(dull).abs() / torch.fft.rfft(noise).abs())
    frequency_hz = torch.fft.rfftfreq(8000, 1 / RATE_HZ)
    assert ratio_db[..., (frequency_hz > 50) & (frequency_hz < 0.9 * cutoff_hz)].abs().median() < 0.2
    assert ratio_db[..., frequency_hz > 1.6 * cutoff_hz].median() < -36.0


@pytest.mark.parametrize("length", [1, 2, 7, 97, 100, 1021, 264_600, 265_482, 300_007])
def test_fft_sizes_are_smooth_even_and_close(length: int) -> None:
    size = fast_fft_size(length)
    rest = size
    for prime in (2, 3, 5):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert size % 2 == 0
    assert max(2, length) <= size <= max(4, 1.1 * length + 2)
