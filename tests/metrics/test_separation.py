from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics.separation import (
    LOG_WMSE_BEST,
    hearing_weights,
    l1_distance,
    log_wmse,
    multi_resolution_stft_distance,
    nsdr,
    si_sdr,
    snr,
)

METRICS = (nsdr, si_sdr, snr)


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_half_the_signal_scores_six_decibels():
    reference = noise(2, 1000)
    expected = 20 * math.log10(2)
    assert nsdr(reference, 0.5 * reference).item() == pytest.approx(expected, abs=1e-6)
    assert snr(reference, 0.5 * reference).item() == pytest.approx(expected, abs=1e-9)


def test_silence_scores_zero_and_the_doubled_signal_too():
    reference = noise(2, 1000)
    assert nsdr(reference, torch.zeros_like(reference)).item() == 0
    assert nsdr(reference, 2 * reference).item() == pytest.approx(0, abs=1e-9)


def test_floor_makes_silence_finite():
    silence = torch.zeros(2, 1000)
    assert nsdr(silence, silence).item() == 0
    assert snr(silence, silence).isnan()
    estimate = torch.full((2, 1000), 0.1)
    assert nsdr(silence, estimate).item() == pytest.approx(10 * math.log10(1e-7 / 20), abs=1e-5)


def test_nsdr_equals_a_plain_loop():
    reference, estimate = noise(2, 50), noise(2, 50, seed=1)
    signal = distortion = 1e-7
    for r, e in zip(reference.flatten().tolist(), estimate.flatten().tolist(), strict=True):
        signal += r * r
        distortion += (r - e) ** 2
    assert nsdr(reference, estimate).item() == pytest.approx(10 * math.log10(signal / distortion), abs=1e-9)


def test_si_sdr_of_orthogonal_noise_is_the_power_ratio():
    reference = torch.tensor([[1.0, 0.0, 1.0, 0.0]])
    orthogonal = torch.tensor([[0.0, 0.1, 0.0, -0.1]])
    assert si_sdr(reference, reference + orthogonal).item() == pytest.approx(20, abs=1e-4)


@given(gain=st.floats(0.01, 100))
def test_si_sdr_ignores_gain_where_nsdr_does_not(gain: float):
    reference = noise(2, 400)
    estimate = reference + 0.3 * noise(2, 400, seed=1)
    assert si_sdr(reference, gain * estimate).item() == pytest.approx(si_sdr(reference, estimate).item(), abs=1e-3)
    if abs(gain - 1) > 0.05:
        assert nsdr(reference, gain * estimate) < nsdr(reference, estimate)


@given(exponents=st.tuples(st.integers(-40, 40), st.integers(-40, 40)), double=st.booleans())
def test_si_sdr_does_not_depend_on_any_level(exponents: tuple[int, int], double: bool):
    reference, estimate = noise(2, 400).double(), noise(2, 400).double() + 0.3 * noise(2, 400, seed=1).double()
    expected = si_sdr(reference, estimate).item()
    dtype = torch.float64 if double else torch.float32
    scaled = [(wave * 2.0**exponent).to(dtype) for wave, exponent in zip((reference, estimate), exponents, strict=True)]
    assert si_sdr(*scaled).item() == pytest.approx(expected, abs=1e-9 if double else 1e-4)


def test_si_sdr_at_its_ends():
    reference = torch.tensor([[1.0, 1.0, 0.0, 0.0]])
    assert si_sdr(reference, 0.25 * reference).item() == math.inf
    assert si_sdr(reference, reference.flip(-1)).item() == -math.inf
    silence = torch.zeros_like(reference)
    assert si_sdr(silence, reference).isnan()
    assert si_sdr(reference, silence).isnan()


@pytest.mark.parametrize("metric", METRICS)
@given(batch=st.integers(1, 3), sources=st.integers(1, 4), length=st.integers(2, 40))
def test_batch_equals_one_by_one(metric, batch: int, sources: int, length: int):
    reference, estimate = noise(batch, sources, 2, length), noise(batch, sources, 2, length, seed=1)
    values = metric(reference, estimate)
    assert values.shape == (batch, sources)
    for b in range(batch):
        for s in range(sources):
            assert values[b, s].item() == pytest.approx(metric(reference[b, s], estimate[b, s]).item(), abs=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_long_signals_are_summed_in_double_precision(metric):
    reference = torch.full((1, 3_000_000), 0.1)
    estimate = torch.full((1, 3_000_000), 0.09)
    value = metric(reference, estimate)
    assert value.dtype == torch.float64
    if metric is not si_sdr:
        assert value.item() == pytest.approx(20, abs=1e-4)


@pytest.mark.parametrize("metric", METRICS)
def test_shapes_must_match(metric):
    with pytest.raises(InputError, match=r"reference is \[2, 5\] but the estimate \[2, 6\]"):
        metric(torch.zeros(2, 5), torch.zeros(2, 6))
    with pytest.raises(InputError, match=r"at least the axes \[C, T\], got \[5\]"):
        metric(torch.zeros(5), torch.zeros(5))


RATE = 44100


# Reference and estimate, and what log-wmse-audio-quality 0.2.0 gives for them.
AUTHORS = {
    ("none", "low"): 5.2568,
    ("none", "high"): 1.2513,
    ("low", "soft"): 25.2171,
    ("high", "low"): -0.0005,
    ("low", "none"): 5.2568,
}


def noise_of_distances(*shape: int, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_l1_is_the_mean_of_absolute_differences() -> None:
    reference, estimate = torch.tensor([[0.5, -0.5], [0.0, 0.0]]), torch.tensor([[0.25, 0.5], [0.0, -1.0]])
    assert l1_distance(reference, estimate).item() == pytest.approx((0.25 + 1 + 0 + 1) / 4)
    assert l1_distance(noise_of_distances(3, 2, 100), noise_of_distances(3, 2, 100)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("gain", [0.1, 0.5, 2.0])
def test_stft_distance_of_a_gain_is_its_two_terms(gain: float) -> None:
    reference = noise_of_distances(2, 6000)
    value = multi_resolution_stft_distance(reference, gain * reference)
    assert value.item() == pytest.approx(abs(1 - gain) + abs(math.log(gain)), rel=1e-3)


def test_stft_distance_of_equal_and_silent_waveforms() -> None:
    reference = noise_of_distances(1, 5000)
    silence = torch.zeros(1, 5000)
    assert multi_resolution_stft_distance(reference, reference.clone()).item() == 0
    assert multi_resolution_stft_distance(silence, reference).isnan()
    assert multi_resolution_stft_distance(silence, silence).isnan()
    assert multi_resolution_stft_distance(reference, silence.double()) > 1


def test_stft_distance_forgives_a_change_of_sign_where_samples_do_not() -> None:
    reference = noise_of_distances(1, 5000)
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
    mixture = noise_of_distances(2, RATE)
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
    mixture, silence = noise_of_distances(2, 5000), torch.zeros(2, 5000)
    assert log_wmse(mixture, silence, silence, RATE).item() == pytest.approx(LOG_WMSE_BEST)
    assert log_wmse(mixture, silence, 1e-5 * mixture, RATE).item() == pytest.approx(LOG_WMSE_BEST)
    assert log_wmse(silence, silence, mixture, RATE).item() == pytest.approx(LOG_WMSE_BEST)
    assert round(LOG_WMSE_BEST, 4) == 73.6827


@pytest.mark.parametrize("gain", [0.01, 7.0])
def test_log_wmse_does_not_depend_on_the_level(gain: float) -> None:
    mixture, reference, estimate = (
        noise_of_distances(2, 5000),
        noise_of_distances(2, 5000, seed=1),
        noise_of_distances(2, 5000, seed=2),
    )
    one = log_wmse(mixture, reference, estimate, RATE)
    assert log_wmse(gain * mixture, gain * reference, gain * estimate, RATE).item() == pytest.approx(one.item())


def test_unusable_input_is_refused() -> None:
    wave = noise_of_distances(2, 100)
    with pytest.raises(InputError, match=r"one waveform \[C, T\] are compared, got \[1, 2, 100\]"):
        multi_resolution_stft_distance(wave[None], wave[None])
    with pytest.raises(InputError, match="sample_rate_hz must be above 0, got 0"):
        log_wmse(wave, wave, wave, 0)
    with pytest.raises(InputError, match="shapes must match"):
        log_wmse(wave[:1], wave, wave, RATE)
