from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.metrics.separation import nsdr, si_sdr, snr

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
