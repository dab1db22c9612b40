from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics import transients as tr

RATE = 44100
AT_RATE = (tr.onset_correlation, tr.attack_time_error, tr.crest_factor_error, tr.low_band_envelope_error)


def hits(rise_s: float, starts_s: tuple[float, ...] = (0.3, 0.8, 1.3), length_s: float = 1.8) -> Tensor:
    """Noise bursts that rise in a straight line and decay; one channel per side."""
    time = torch.arange(round(length_s * RATE), dtype=torch.float64) / RATE
    generator = torch.Generator().manual_seed(0)
    carrier = torch.sign(torch.randn(2, len(time), generator=generator, dtype=torch.float64))
    envelope = torch.zeros_like(time)
    for start in starts_s:
        since = time - start
        rising = (since / rise_s).clamp(0, 1)
        envelope += rising * torch.exp(-(since - rise_s).clamp(min=0) / 0.06) * (since > 0)
    return 0.5 * envelope * carrier


def tone(frequency_hz: float, length_s: float = 1.0) -> Tensor:
    time = torch.arange(round(length_s * RATE), dtype=torch.float64) / RATE
    return torch.sin(2 * math.pi * frequency_hz * time)[None]


def test_onset_envelope_peaks_where_the_hits_are() -> None:
    envelope, _ = tr.onset_envelopes(hits(0.002), hits(0.002), RATE)
    assert len(envelope) == math.ceil(1.8 * RATE / tr.FLUX_HOP)
    onsets = tr.find_onsets(envelope, 17)
    assert [frame * tr.FLUX_HOP / RATE for frame in onsets] == pytest.approx([0.3, 0.8, 1.3], abs=0.02)


def test_onset_correlation_is_one_for_any_gain_of_the_same_and_falls_for_other_attacks() -> None:
    reference = hits(0.002)
    assert tr.onset_correlation(reference, reference.clone(), RATE).item() == pytest.approx(1)
    assert tr.onset_correlation(reference, 1.5 * reference, RATE) > 0.95
    moved = hits(0.002, (0.05, 0.55, 1.05))
    assert tr.onset_correlation(reference, moved, RATE) < 0.3
    blurred = tr.onset_correlation(reference, hits(0.08), RATE)
    assert 0.1 < blurred < 0.9


@pytest.mark.parametrize(("rise_s", "other_s"), [(0.01, 0.03), (0.02, 0.005), (0.01, 0.01)])
def test_attack_time_of_a_straight_rise_is_eight_tenths_of_it(rise_s: float, other_s: float) -> None:
    error_ms = tr.attack_time_error(hits(rise_s), hits(other_s), RATE)
    assert error_ms.item() == pytest.approx(800 * abs(rise_s - other_s), abs=1.2)


def test_attack_time_does_not_depend_on_the_level() -> None:
    value = tr.attack_time_error(hits(0.01), hits(0.03), RATE)
    assert tr.attack_time_error(hits(0.01), 0.1 * hits(0.03), RATE).item() == pytest.approx(value.item())


def test_crest_factor_of_a_sine_is_three_decibels_above_a_square_wave() -> None:
    sine = tone(100)
    assert tr.crest_factor_error(sine, torch.sign(sine + 1e-12), RATE).item() == pytest.approx(3.0103, abs=0.01)
    assert tr.crest_factor_error(sine, 0.3 * sine, RATE).item() == pytest.approx(0, abs=1e-9)


def test_crest_factor_leaves_out_silent_seconds_and_the_incomplete_last_one() -> None:
    sine, square = tone(100, 3.5), torch.sign(tone(100, 3.5) + 1e-12)
    square[:, RATE : 2 * RATE] = 0
    square[:, 3 * RATE :] = sine[:, 3 * RATE :] ** 9
    assert tr.crest_factor_error(sine, square, RATE).item() == pytest.approx(3.0103, abs=0.01)


@settings(max_examples=10)
@given(gain=st.floats(0, 3))
def test_low_band_error_of_a_gain_is_its_distance_from_one(gain: float) -> None:
    kick = tone(60) * torch.exp(-5 * torch.arange(RATE) / RATE)
    error = tr.low_band_envelope_error(kick, gain * kick + 0.3 * tone(5000), RATE)
    assert error.item() == pytest.approx(abs(1 - gain), abs=2e-3)


def test_low_band_error_ignores_the_phase() -> None:
    shifted = torch.cos(2 * math.pi * 100 * torch.arange(RATE, dtype=torch.float64) / RATE)[None]
    assert tr.low_band_envelope_error(tone(100), shifted, RATE) < 1e-6


@pytest.mark.parametrize("metric", AT_RATE)
def test_silence(metric) -> None:
    sound, silence = hits(0.01), torch.zeros(2, round(1.8 * RATE))
    assert metric(silence, sound, RATE).isnan()
    assert metric(silence, silence, RATE).isnan()
    of_silence = metric(sound, silence, RATE)
    if metric is tr.low_band_envelope_error:
        assert of_silence.item() == pytest.approx(1)
    else:
        assert of_silence.isnan()
    assert metric(sound, sound.clone(), RATE).item() == pytest.approx(float(metric is tr.onset_correlation), abs=1e-9)


@settings(max_examples=15)
@given(length=st.integers(1, 3000), channels=st.integers(1, 3), rate=st.sampled_from([8000, 22050, 44100, 96000]))
def test_any_length_and_rate_gives_a_number(length: int, channels: int, rate: int) -> None:
    wave = torch.randn(channels, length, generator=torch.Generator().manual_seed(length))
    for metric in AT_RATE:
        value = metric(wave, 0.5 * wave, rate)
        assert value.dtype == torch.float64
        assert value.shape == ()


@pytest.mark.parametrize("metric", AT_RATE)
def test_unusable_input_is_refused(metric) -> None:
    wave = hits(0.01)
    with pytest.raises(InputError, match=r"measured on one waveform \[C, T\], got \[1, 2, 79380\]"):
        metric(wave[None], wave[None], RATE)
    with pytest.raises(InputError, match=r"measured on one waveform \[C, T\], got \[2, 0\]"):
        metric(wave[:, :0], wave[:, :0], RATE)
    with pytest.raises(InputError, match="sample_rate_hz must be above 0, got 0"):
        metric(wave, wave, 0)
    with pytest.raises(InputError, match="shapes must match"):
        metric(wave, wave[:, 1:], RATE)
