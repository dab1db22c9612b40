from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics.distances import (
    LOG_WMSE_BEST,
    hearing_weights,
    l1_distance,
    log_wmse,
    multi_resolution_stft_distance,
)

RATE = 44100
# Reference and estimate, and what log-wmse-audio-quality 0.2.0 gives for them.
AUTHORS = {
    ("none", "low"): 5.2568,
    ("none", "high"): 1.2513,
    ("low", "soft"): 25.2171,
    ("high", "low"): -0.0005,
    ("low", "none"): 5.2568,
}


def noise(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_l1_is_the_mean_of_absolute_differences() -> None:
    reference, estimate = torch.tensor([[0.5, -0.5], [0.0, 0.0]]), torch.tensor([[0.25, 0.5], [0.0, -1.0]])
    assert l1_distance(reference, estimate).item() == pytest.approx((0.25 + 1 + 0 + 1) / 4)
    assert l1_distance(noise(3, 2, 100), noise(3, 2, 100)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("gain", [0.1, 0.5, 2.0])
def test_stft_distance_of_a_gain_is_its_two_terms(gain: float) -> None:
    reference = noise(2, 6000)
    value = multi_resolution_stft_distance(reference, gain * reference)
    assert value.item() == pytest.approx(abs(1 - gain) + abs(math.log(gain)), rel=1e-3)


def test_stft_distance_of_equal_and_silent_waveforms() -> None:
    reference = noise(1, 5000)
    silence = torch.zeros(1, 5000)
    assert multi_resolution_stft_distance(reference, reference.clone()).item() == 0
    assert multi_resolution_stft_distance(silence, reference).isnan()
    assert multi_resolution_stft_distance(silence, silence).isnan()
    assert multi_resolution_stft_distance(reference, silence.double()) > 1


def test_stft_distance_forgives_a_change_of_sign_where_samples_do_not() -> None:
    reference = noise(1, 5000)
    assert multi_resolution_stft_distance(reference, -reference).item() == pytest.approx(0, abs=1e-9)
    assert l1_distance(reference, -reference) > 0.1


def test_weights_have_the_gains_of_their_filters() -> None:
    frequencies = np.array([0.0, 120.0, 500.0, 10_000.0, 22_050.0, 30_000.0])
    gains = hearing_weights(frequencies)
    assert gains[0] == pytest.approx(0, abs=1e-9)
    in_db = 20 * np.log10(gains[1:3])
    assert in_db == pytest.approx([-2.9, 2.5], abs=0.2)  # high-pass at its corner; the bell
    assert 20 * np.log10(gains[3]) == pytest.approx(5 - 6.02, abs=0.1)  # shelf and low-pass at its corner
    assert gains[4] == pytest.approx(0, abs=1e-9)
    assert gains[5] == gains[4]


def test_log_wmse_of_a_tenth_of_the_mixture_against_silence() -> None:
    mixture = noise(2, RATE)
    value = log_wmse(mixture, torch.zeros(2, RATE), 0.1 * mixture, RATE)
    assert value.item() == pytest.approx(-4 * math.log(0.01), abs=0.02)  # small samples lie in the dead zone


def test_log_wmse_against_values_of_its_authors() -> None:
    time = torch.arange(RATE, dtype=torch.float64) / RATE
    low, high = (0.3 * torch.sin(2 * math.pi * frequency * time)[None] for frequency in (200, 3000))
    for (reference, estimate), wanted in AUTHORS.items():
        waves = {"low": low, "high": high, "none": torch.zeros_like(low), "soft": low + 0.05 * high}
        value = log_wmse(low + high, waves[reference], waves[estimate], RATE)
        assert value.item() == pytest.approx(wanted, abs=0.02), (reference, estimate)


def test_log_wmse_is_best_for_silence_and_errors_nobody_hears() -> None:
    mixture, silence = noise(2, 5000), torch.zeros(2, 5000)
    assert log_wmse(mixture, silence, silence, RATE).item() == pytest.approx(LOG_WMSE_BEST)
    assert log_wmse(mixture, silence, 1e-5 * mixture, RATE).item() == pytest.approx(LOG_WMSE_BEST)
    assert log_wmse(silence, silence, mixture, RATE).item() == pytest.approx(LOG_WMSE_BEST)
    assert round(LOG_WMSE_BEST, 4) == 73.6827


@pytest.mark.parametrize("gain", [0.01, 7.0])
def test_log_wmse_does_not_depend_on_the_level(gain: float) -> None:
    mixture, reference, estimate = noise(2, 5000), noise(2, 5000, seed=1), noise(2, 5000, seed=2)
    one = log_wmse(mixture, reference, estimate, RATE)
    assert log_wmse(gain * mixture, gain * reference, gain * estimate, RATE).item() == pytest.approx(one.item())


def test_unusable_input_is_refused() -> None:
    wave = noise(2, 100)
    with pytest.raises(InputError, match=r"one waveform \[C, T\] are compared, got \[1, 2, 100\]"):
        multi_resolution_stft_distance(wave[None], wave[None])
    with pytest.raises(InputError, match="sample_rate_hz must be above 0, got 0"):
        log_wmse(wave, wave, wave, 0)
    with pytest.raises(InputError, match="shapes must match"):
        log_wmse(wave[:1], wave, wave, RATE)
