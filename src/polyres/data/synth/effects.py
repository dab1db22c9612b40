"""Studio effects for made stems: tilt, echo, reverberation, placing mono voices in stereo."""

from __future__ import annotations

import numpy as np


def _fft_size(length: int) -> int:
    return 1 << max(1, (length - 1).bit_length())


def tilt_eq(wave: np.ndarray, sample_rate_hz: int, tilt_db: float, low_cut_hz: float = 0.0) -> np.ndarray:
    """Tilt the spectrum about 1 kHz and cut the lowest band.

    Args:
        wave: float `[..., T]`.
        sample_rate_hz: its rate.
        tilt_db: gain in dB per octave above 1 kHz, limited to three octaves either way.
        low_cut_hz: below this frequency the level falls by 12 dB per octave; 0 for none.

    Returns:
        float32 `[..., T]`.
    """
    length = wave.shape[-1]
    size = _fft_size(length + sample_rate_hz // 10)
    frequency_hz = np.maximum(np.fft.rfftfreq(size, 1.0 / sample_rate_hz), 1.0)
    gain = 10.0 ** (tilt_db * np.clip(np.log2(frequency_hz / 1000.0), -3.0, 3.0) / 20.0)
    if low_cut_hz > 0.0:
        gain = gain / np.sqrt(1.0 + (low_cut_hz / frequency_hz) ** 4)
    shaped = np.fft.irfft(np.fft.rfft(wave, size) * gain, size)
    return shaped[..., :length].astype(np.float32)


def place(wave: np.ndarray, pan: float) -> np.ndarray:
    """Place a mono voice `[T]` in stereo `[2, T]` with constant power; `pan` from -1 (left) to 1 (right)."""
    angle = (pan + 1.0) * np.pi / 4.0
    return np.stack([np.cos(angle) * wave, np.sin(angle) * wave]).astype(np.float32)


def echo(wave: np.ndarray, delay_samples: int, feedback: float, level: float, repeats: int = 4) -> np.ndarray:
    """Add decaying repeats that swap sides.

    Args:
        wave: float `[2, T]`.
        delay_samples: distance of the repeats.
        feedback: level of each repeat against the one before, 0 to 1.
        level: level of the first repeat, 0 to 1.
        repeats: how many repeats.

    Returns:
        float32 `[2, T]`; what would sound after T is cut.
    """
    result = wave.astype(np.float32).copy()
    repeat = wave
    for number in range(1, repeats + 1):
        shift = number * delay_samples
        if shift >= wave.shape[1]:
            break
        repeat = repeat[::-1]
        result[:, shift:] += np.float32(level * feedback ** (number - 1)) * repeat[:, : wave.shape[1] - shift]
    return result


def reverberate(
    wave: np.ndarray, sample_rate_hz: int, decay_s: float, level: float, rng: np.random.Generator
) -> np.ndarray:
    """Add the tail of a room made of exponentially decaying noise.

    Args:
        wave: float `[2, T]`.
        sample_rate_hz: its rate.
        decay_s: time in which the tail falls by 60 dB.
        level: energy of the tail against the dry sound, 0 to 1.
        rng: draws the room.

    Returns:
        float32 `[2, T]`; what would sound after T is cut.
    """
    length = wave.shape[1]
    time_s = np.arange(max(1, round(decay_s * sample_rate_hz))) / sample_rate_hz
    room = rng.standard_normal((2, len(time_s))) * 10.0 ** (-3.0 * time_s / decay_s)
    room = 0.5 * (room + np.roll(room, 1, axis=1))  # rooms swallow the treble first
    room[:, : int(0.012 * sample_rate_hz)] = 0.0
    room *= np.sqrt(level) / np.maximum(np.sqrt((room**2).sum(axis=1, keepdims=True)), 1e-9)
    size = _fft_size(length + len(time_s))
    wet = np.fft.irfft(np.fft.rfft(wave, size) * np.fft.rfft(room, size), size)[:, :length]
    return (wave + wet).astype(np.float32)
