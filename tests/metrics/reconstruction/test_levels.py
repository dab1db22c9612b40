from __future__ import annotations

import math

import numpy as np
import pyloudnorm
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics.reconstruction.levels import correlation, estimate_lag, gain_db, lag_samples, matched
from polyres.metrics.reconstruction.metrics import score


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def shifted(wave: Tensor, samples: int) -> Tensor:
    """Delay by zeros at the start; what leaves the end is lost."""
    return torch.roll(wave, samples, dims=-1) * (
        torch.arange(wave.shape[-1]) >= samples
        if samples >= 0
        else torch.arange(wave.shape[-1]) < wave.shape[-1] + samples
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(-50, 50), st.integers(1, 2), st.booleans())
def test_whole_delays_are_found(delay: int, channels: int, turned: bool) -> None:
    wave = noise(channels, 2000)
    given_wave = shifted(wave, delay) * (-0.3 if turned else 0.3)
    lag = estimate_lag(wave, given_wave, 60)
    assert lag.samples == pytest.approx(delay, abs=0.1)
    assert math.copysign(1, lag.correlation) == (-1 if turned else 1)
    assert abs(lag.correlation) > 0.9


def test_a_delay_is_that_of_a_plain_search() -> None:
    wave, other = noise(1, 400), noise(1, 400, seed=1) + shifted(noise(1, 400), 7)
    by_hand = {d: float((shifted(wave, d) * other).sum()) for d in range(-20, 21)}
    best = max(by_hand, key=lambda d: abs(by_hand[d]))
    lag = estimate_lag(wave, other, 20)
    assert best == 7
    assert round(lag.samples) == best
    energy = math.sqrt(float(wave.square().sum() * other.square().sum()))
    assert lag.correlation == pytest.approx(by_hand[best] / energy)


def test_fractions_of_a_sample_are_found() -> None:
    t = torch.arange(4000, dtype=torch.float64)
    envelope = torch.exp(-(((t - 2000) / 400) ** 2))
    late = torch.exp(-(((t - 2000.4) / 400) ** 2))
    lag = estimate_lag((envelope * torch.cos(0.05 * t))[None], (late * torch.cos(0.05 * (t - 0.4)))[None], 10)
    assert lag.samples == pytest.approx(0.4, abs=0.01)


def test_waveforms_with_nothing_in_common_have_no_delay() -> None:
    wave, other = noise(1, 16000), noise(1, 16000, seed=1)
    assert math.isnan(lag_samples(wave, other, 16000))
    assert lag_samples(wave, shifted(wave, 400), 16000) == pytest.approx(400, abs=0.1)
    assert math.isnan(estimate_lag(wave, wave * 0, 5).samples)
    assert estimate_lag(wave[:, :1], wave[:, :1], 5).samples == 0


def test_correlation_and_gain_have_their_closed_forms() -> None:
    wave, other = noise(2, 500), noise(2, 500, seed=1)
    one, two = wave.numpy().ravel(), other.numpy().ravel()
    cosine = np.dot(one, two) / np.linalg.norm(one) / np.linalg.norm(two)
    assert float(correlation(wave, other)) == pytest.approx(cosine)
    assert float(correlation(wave, -2 * wave)) == -1
    assert float(gain_db(wave, 10 * wave)) == pytest.approx(20)
    assert float(gain_db(wave, matched(wave, other))) == pytest.approx(0, abs=1e-12)
    assert torch.equal(matched(wave * 0, other), other)


@pytest.mark.parametrize(("rate", "channels"), [(48000, 1), (44100, 2), (16000, 1)])
def test_differences_of_loudness_are_those_of_pyloudnorm(rate: int, channels: int) -> None:
    wave = noise(channels, 3 * rate).numpy() * 0.1
    wave[:, :rate] *= 0.2
    other = 0.3 * np.cumsum(wave, axis=1) / 5 + 0.01 * noise(channels, 3 * rate, seed=1).numpy()
    meter = pyloudnorm.Meter(rate, filter_class="DeMan")
    wanted = meter.integrated_loudness(other.T) - meter.integrated_loudness(wave.T)
    assert score(wave, other, rate, ["lufs_difference"])["lufs_difference"] == pytest.approx(wanted, abs=0.02)


def test_unusable_searches_are_refused() -> None:
    with pytest.raises(InputError, match="most_samples must be at least 1, got 0"):
        estimate_lag(noise(1, 10), noise(1, 10), 0)
    with pytest.raises(InputError, match="shapes must match"):
        correlation(noise(1, 10), noise(1, 9))
