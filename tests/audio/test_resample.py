from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from polyres.audio.resample import StreamResampler, resample, resampled_length
from polyres.core.errors import ConfigError

RATES_HZ = st.sampled_from([8000, 11025, 16000, 22050, 32000, 44100, 44101, 48000, 88200, 96000, 192000])


def noise(channels: int, length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.5, 0.5, (channels, length)).astype(np.float32)


def stream(wave: np.ndarray, in_hz: int, out_hz: int, block: int) -> np.ndarray:
    resampler = StreamResampler(in_hz, out_hz, wave.shape[0])
    parts = [resampler.push(wave[:, at : at + block]) for at in range(0, wave.shape[1], block)]
    return np.concatenate([*parts, resampler.finish()], axis=1)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 3000), RATES_HZ, RATES_HZ, st.integers(1, 2000), st.integers(1, 3))
def test_length_is_ceil_for_any_rates_and_blocks(length: int, in_hz: int, out_hz: int, block: int, channels: int):
    out = stream(noise(channels, length), in_hz, out_hz, max(block, length // 20))
    assert out.shape == (channels, -(-length * out_hz // in_hz))
    assert out.dtype == np.float32
    assert np.isfinite(out).all()


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 400), st.integers(1000, 60000), st.integers(1000, 60000))
def test_length_is_ceil_for_odd_rates(length: int, in_hz: int, out_hz: int):
    assert stream(noise(1, length), in_hz, out_hz, 100).shape[1] == resampled_length(length, in_hz, out_hz)


@settings(max_examples=25, deadline=None)
@given(RATES_HZ, RATES_HZ, st.integers(50, 9000), st.integers(50, 9000))
def test_block_size_does_not_change_a_bit(in_hz: int, out_hz: int, one: int, other: int):
    wave = noise(2, 9000)
    assert np.array_equal(stream(wave, in_hz, out_hz, one), stream(wave, in_hz, out_hz, other))


def test_array_and_stream_are_bit_equal():
    wave = noise(2, 200_000)
    assert np.array_equal(resample(wave, 44100, 48000), stream(wave, 44100, 48000, 65536))


def test_equal_rates_pass_through_bit_exact():
    wave = noise(2, 777) * 1e-30
    assert resample(wave, 44100, 44100) is wave
    assert np.array_equal(stream(wave, 8000, 8000, 100), wave)


@pytest.mark.parametrize(("in_hz", "out_hz"), [(44100, 48000), (48000, 44100), (8000, 44100), (192000, 44100)])
def test_sine_stays_the_same_sine_without_delay(in_hz: int, out_hz: int):
    frequency_hz, duration_s = 997.0, 1.0
    sine = np.sin(2 * np.pi * frequency_hz * np.arange(int(in_hz * duration_s)) / in_hz)
    out = stream(sine[None].astype(np.float32), in_hz, out_hz, 4096)[0]
    wanted = np.sin(2 * np.pi * frequency_hz * np.arange(out.size) / out_hz)
    inside = slice(out.size // 5, -out.size // 5)  # the ends ring, as the sine starts and stops there
    error = out[inside] - wanted[inside]
    assert 10 * np.log10(np.mean(wanted[inside] ** 2) / np.mean(error**2)) > 90


def test_signal_up_to_the_last_sample_is_kept():
    # A bump that ends with the signal: the rest comes out of the filter only after silence has been fed.
    n = 4800
    wave = (np.exp(-0.5 * ((np.arange(n) - (n - 1)) / 30) ** 2))[None].astype(np.float32)
    out = resample(wave, 48000, 44100)
    assert out[0, -1] == pytest.approx(np.exp(-0.5 * ((out.shape[1] - 1) * 48000 / 44100 - n + 1) ** 2 / 900), abs=0.12)
    assert np.abs(out[0, -20:]).max() > 0.8


def test_tone_above_the_new_band_is_removed():
    tone = np.sin(2 * np.pi * 15000 * np.arange(48000) / 48000)[None].astype(np.float32)
    assert np.abs(resample(tone, 48000, 16000)[0, 1000:-1000]).max() < 1e-5


def test_channels_do_not_mix():
    wave = noise(3, 5000)
    together = resample(wave, 44100, 32000)
    for channel in range(3):
        assert np.array_equal(together[channel : channel + 1], resample(wave[channel : channel + 1], 44100, 32000))


@pytest.mark.parametrize(("in_hz", "out_hz"), [(44100, 48000), (44100, 44100), (192000, 8000), (8000, 192000)])
def test_one_sample_and_nothing(in_hz: int, out_hz: int):
    one = resample(np.full((2, 1), 0.5, np.float32), in_hz, out_hz)
    assert one.shape == (2, -(-out_hz // in_hz))
    assert one[0, 0] == pytest.approx(0.5 * min(1.0, out_hz / in_hz), rel=0.15)
    assert resample(np.zeros((2, 0), np.float32), in_hz, out_hz).shape == (2, 0)
    assert StreamResampler(in_hz, out_hz, 2).finish().shape == (2, 0)


def test_empty_blocks_between_change_nothing():
    wave = noise(1, 1000)
    resampler = StreamResampler(44100, 48000, 1)
    parts = [resampler.push(part) for part in (wave[:, :0], wave[:, :500], wave[:, :0], wave[:, 500:])]
    assert np.array_equal(np.concatenate([*parts, resampler.finish()], axis=1), resample(wave, 44100, 48000))


def test_refusals():
    with pytest.raises(ConfigError, match="in_hz is 0; it must be 1 or more"):
        StreamResampler(0, 44100, 1)
    with pytest.raises(ConfigError, match="channels is 0"):
        StreamResampler(44100, 44100, 0)
    resampler = StreamResampler(44100, 48000, 2)
    with pytest.raises(ValueError, match=r"block has shape \(1, 5\); it must be \[2, n\]"):
        resampler.push(np.zeros((1, 5), np.float32))
    resampler.finish()
    with pytest.raises(ValueError, match="has been finished"):
        resampler.push(np.zeros((2, 5), np.float32))
