from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import medfilt2d
from torch import Tensor

from polyres.codec.post_filter import POST_FILTERS, _median, post_filter
from polyres.core.errors import ConfigError, InputError, UnknownNameError

RATE = 16000


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sine(frequency_hz: float, seconds: float = 2.0) -> Tensor:
    return torch.sin(2 * math.pi * frequency_hz * torch.arange(round(seconds * RATE)) / RATE)


@pytest.mark.parametrize("name", POST_FILTERS.names())
def test_strength_0_is_the_identity_and_between_lies_between(name: str) -> None:
    wave = noise(2, 8000)
    assert post_filter(name, wave, RATE, 0.0) is wave
    half, full = post_filter(name, wave, RATE, 0.5), post_filter(name, wave, RATE)
    assert torch.allclose(half, (wave + full) / 2, atol=1e-5)
    assert POST_FILTERS.summary(name)
    assert POST_FILTERS.build(name).source


@settings(max_examples=10, deadline=None)
@given(st.integers(1, 5000), st.sampled_from([8000, 16000, 44100]), st.sampled_from(["median", "wiener"]))
def test_any_length_comes_back_at_its_length_and_silence_stays_silent(length: int, rate: int, name: str) -> None:
    found = post_filter(name, noise(1, length), rate)
    assert found.shape == (1, length)
    assert torch.isfinite(found).all()
    assert not post_filter(name, torch.zeros(1, length), rate).any()


def test_medians_are_those_of_scipy() -> None:
    values = noise(1, 12, 9)
    found = _median(values, 3, 3)[0, 1:-1, 1:-1]  # scipy fills up with zeros at the edges
    assert np.array_equal(found.numpy(), medfilt2d(values[0].numpy(), 3)[1:-1, 1:-1])


def test_median_takes_away_isolated_bins_and_keeps_what_lasts() -> None:
    click = torch.zeros(RATE)
    click[8000] = 1.0
    # A click fills all bins of its frames and lasts: it stays. White noise is made of isolated bins.
    assert post_filter("median", click, RATE).norm() > 0.8 * click.norm()
    hiss = noise(RATE)
    assert post_filter("median", hiss, RATE).norm() < 0.85 * hiss.norm()


def test_wiener_lowers_hiss_and_keeps_bursts_and_steady_tones() -> None:
    hiss, tone = 0.05 * noise(2 * RATE), sine(1000)
    quieter = post_filter("wiener", hiss, RATE)
    assert quieter.norm() < 0.7 * hiss.norm()
    kept = post_filter("wiener", tone + hiss, RATE)
    # Along the tone nothing is lost, although it is as steady as the hiss.
    assert float(kept @ tone / (tone @ tone)) == pytest.approx(1, abs=0.02)
    before, after = (hiss.square().mean(), (kept - tone).square().mean())
    assert after < 0.6 * before
    burst = torch.zeros(2 * RATE)
    burst[12000:16000] = noise(4000, seed=1)
    loud = post_filter("wiener", burst + hiss, RATE)[12000:16000]
    assert loud.norm() > 0.95 * burst.norm()


@pytest.mark.parametrize("name", POST_FILTERS.names())
def test_filters_do_not_depend_on_the_level(name: str) -> None:
    wave = noise(1, 8000)
    assert torch.allclose(post_filter(name, 0.01 * wave, RATE), 0.01 * post_filter(name, wave, RATE), atol=1e-6)


def test_unusable_calls_are_refused() -> None:
    wave = noise(1, 100)
    with pytest.raises(UnknownNameError, match="unknown post filter 'mean'; "):
        post_filter("mean", wave, RATE)
    with pytest.raises(ConfigError, match=r"strength is 1.5; 0 \(nothing is changed\) to 1"):
        post_filter("median", wave, RATE, 1.5)
    with pytest.raises(InputError, match=r"a wave of shape \[1, 0\] at 16000 Hz cannot be filtered"):
        post_filter("median", wave[:, :0], RATE)
