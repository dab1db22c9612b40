from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.datasets.augment.base import fast_fft_size
from polyres.datasets.augment.config import ReverbConfig
from polyres.datasets.augment.filters import room_response
from tests.datasets.augment.cases import RATE_HZ, batch, lag_samples, only, rms, rows, run


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


def response(settings: ReverbConfig, seed: int = 0, channels: int = 2, rate_hz: int = RATE_HZ) -> torch.Tensor:
    return room_response(settings, channels, rate_hz, torch.Generator().manual_seed(seed))


@given(
    decay_s=st.floats(0.01, 2.0),
    level_db=st.floats(-40.0, -1.0),
    delay_s=st.floats(0.0, 0.05),
    channels=st.integers(1, 3),
    seed=st.integers(0, 1000),
)
def test_a_room_answers_after_the_direct_sound_at_the_level_drawn(
    decay_s: float, level_db: float, delay_s: float, channels: int, seed: int
) -> None:
    settings = ReverbConfig(decay_s=(decay_s,) * 2, level_db=(level_db,) * 2, delay_s=(delay_s,) * 2)
    room = response(settings, seed, channels)
    assert (room[:, 0] == 1.0).all()
    silent = max(1, round(delay_s * RATE_HZ))
    assert (room[:, 1:silent] == 0.0).all()
    wet_db = 10 * torch.log10(room[:, 1:].square().sum(dim=1))
    assert torch.allclose(wet_db, torch.tensor(level_db), atol=0.01)
    assert torch.equal(response(settings, seed, channels), room)


@pytest.mark.parametrize("decay_s", [0.3, 0.6, 1.2])
def test_the_tail_decays_by_60_db_in_the_time_drawn(decay_s: float) -> None:
    settings = ReverbConfig(decay_s=(decay_s,) * 2, delay_s=(0.0, 0.0))
    rate_hz = 2000  # only bass, which is not damped
    power = torch.stack([response(settings, seed, 2, rate_hz)[:, 1:].square().mean(0) for seed in range(30)]).mean(0)
    first, last = round(0.1 * rate_hz), round(0.8 * decay_s * rate_hz)
    level_db = 10 * torch.log10(power[first:last]).numpy()
    slope = np.polyfit(np.arange(first, last) / rate_hz, level_db, 1)[0]
    assert -60 / slope == pytest.approx(decay_s, rel=0.15)


def test_treble_decays_faster_than_bass() -> None:
    rate_hz = 44_100
    settings = ReverbConfig(decay_s=(1.0, 1.0), delay_s=(0.0, 0.0))
    late = torch.stack([response(settings, seed, 2, rate_hz)[:, rate_hz // 10 : rate_hz // 2] for seed in range(5)])
    power = torch.fft.rfft(late).abs().square().mean((0, 1))
    frequency_hz = torch.fft.rfftfreq(late.shape[-1], 1 / rate_hz)
    bass, treble = power[frequency_hz < 800].mean(), power[frequency_hz > 10_000].mean()
    assert 10 * torch.log10(bass / treble) > 6.0


def test_channels_hear_the_room_from_different_places() -> None:
    left, right = response(ReverbConfig())[:, 1:]
    assert torch.corrcoef(torch.stack([left, right]))[0, 1].abs() < 0.3


@given(seed=st.integers(0, 1000), length=st.integers(400, 6000), channels=st.integers(1, 2))
def test_reverb_keeps_level_and_place(seed: int, length: int, channels: int) -> None:
    stems = batch(1, 2, channels, length, seed)
    wet = run(stems, only("reverb"), seed)
    assert torch.allclose(rms(rows(wet)), rms(rows(stems)), rtol=1e-4)
    for before, after in zip(rows(stems).flatten(0, 1), rows(wet).flatten(0, 1), strict=True):
        assert lag_samples(before, after) == 0


def test_reverb_is_linear_but_for_the_level_and_looks_only_back() -> None:
    first, second = torch.zeros(2, 1, 1, 1, 3000)
    first[..., 500], second[..., 1200] = 1.0, -0.5
    a, b, both = (run(stems, only("reverb"))[0, 0, 0] for stems in (first, second, first + second))
    assert a[:500].abs().max() < 1e-6
    a, b, both = a / a[500], -0.5 * b / b[1200], both / both[500]
    assert torch.allclose(both, a + b, atol=1e-5)
    assert torch.allclose(b[700:], -0.5 * a[:-700], atol=1e-5)


def test_a_distant_room_is_almost_dry() -> None:
    stems = batch(2, 2, 2, 2000)
    assert torch.allclose(run(stems, only("reverb", level_db=(-100.0, -90.0))), stems, atol=1e-4)
