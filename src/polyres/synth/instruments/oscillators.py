"""Oscillators: band-limited wavetables with a moving cutoff, and frequency modulation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

SAMPLE_RATE_HZ = 44_100
_TABLE_SAMPLES = 2048
_FRAMES = 24
_LOWEST_CUTOFF_HZ = 60.0
_HIGHEST_HZ = 18_000.0


@dataclass(frozen=True)
class Shape:
    """Harmonics of an oscillator: `shape` saw, square, triangle, sine, pulse or organ; `colour` bends it, 0 to 1."""

    shape: str
    colour: float = 0.5


def harmonics(shape: Shape, count: int) -> np.ndarray:
    """Return the amplitudes of the first harmonics: float64 `[count]`; the first one has amplitude about 1."""
    number = np.arange(1, count + 1)
    if shape.shape == "saw":
        return 1.0 / number
    if shape.shape == "square":
        return np.where(number % 2 == 1, 1.0 / number, 0.0)
    if shape.shape == "triangle":
        return np.where(number % 2 == 1, (-1.0) ** ((number - 1) // 2) / number**2, 0.0)
    if shape.shape == "pulse":
        width = 0.05 + 0.4 * shape.colour
        return 2.0 * np.sin(np.pi * number * width) / (np.pi * number) / max(2.0 * np.sin(np.pi * width) / np.pi, 0.1)
    if shape.shape == "organ":
        drawbars = {1: 1.0, 2: shape.colour, 3: 0.7 * (1.0 - shape.colour), 4: 0.5, 6: 0.3 * shape.colour, 8: 0.4}
        return np.array([drawbars.get(int(n), 0.0) for n in number])
    return np.where(number == 1, 1.0, 0.0)


def _low_pass_gain(frequency_hz: np.ndarray, cutoff_hz: np.ndarray, resonance: float, order: int) -> np.ndarray:
    """Return the magnitude of a resonant low-pass filter; `resonance` 0 to 1."""
    ratio = frequency_hz / cutoff_hz
    quality = 0.7 + 5.0 * resonance
    second = 1.0 / np.sqrt((1.0 - ratio**2) ** 2 + (ratio / quality) ** 2)
    return second ** (order / 2)


@lru_cache(maxsize=96)
def wavetable(shape: Shape, pitch_hz: float, resonance: float, order: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Compute single cycles of one pitch through a low-pass at many cutoffs.

    `resonance`: of the filter, 0 to 1; `order`: of the filter, 2 or 4; returns float32 `[frames, 2048]`, and the log2
    of the cutoffs `[frames]`.
    """
    count = int(np.clip(_HIGHEST_HZ / pitch_hz, 1, _TABLE_SAMPLES // 2 - 1))
    frequency_hz = pitch_hz * np.arange(1, count + 1)
    cutoffs = np.linspace(np.log2(_LOWEST_CUTOFF_HZ), np.log2(_HIGHEST_HZ), _FRAMES)
    spectra = np.zeros((_FRAMES, _TABLE_SAMPLES // 2 + 1), complex)
    gain = _low_pass_gain(frequency_hz, 2.0 ** cutoffs[:, None], resonance, order)
    spectra[:, 1 : count + 1] = -0.5j * _TABLE_SAMPLES * harmonics(shape, count) * gain
    tables = np.fft.irfft(spectra, _TABLE_SAMPLES).astype(np.float32)
    tables.flags.writeable = cutoffs.flags.writeable = False  # they are shared between notes
    return tables, cutoffs


def table_path(cutoffs: np.ndarray, cutoff_hz: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the table indices and blend weights of a moving cutoff: `cutoff_hz` `[T]`."""
    place = (np.log2(cutoff_hz) - cutoffs[0]) / (cutoffs[1] - cutoffs[0])
    place = np.clip(place, 0.0, _FRAMES - 1.001).astype(np.float32)
    frame = place.astype(np.int32)
    return frame * _TABLE_SAMPLES, place - frame


def play_table(tables: np.ndarray, path: tuple[np.ndarray, np.ndarray], phase: np.ndarray) -> np.ndarray:
    """Read wavetables along a phase while the cutoff moves. `phase`: float `[T]` in cycles; returns float32 `[T]`."""
    start, share = path
    # The tables hold at least two samples per period of the highest harmonic; nearest reading is 60 dB down.
    position = start + ((phase - np.floor(phase)) * _TABLE_SAMPLES).astype(np.int32) % _TABLE_SAMPLES
    flat = tables.reshape(-1)
    low = flat[position]
    return low + share * (flat[position + _TABLE_SAMPLES] - low)


def frequency_modulated(phase: np.ndarray, ratio: float, index: np.ndarray) -> np.ndarray:
    """Modulate the phase of a sine by another sine.

    Source: Chowning 1973, The Synthesis of Complex Audio Spectra by Means of Frequency Modulation.
    """
    # Within one turn 32 bits are enough, and several times as fast.
    carrier, modulator = (np.float32(2.0 * np.pi) * _within_turn(cycles) for cycles in (phase, ratio * phase))
    return np.sin(carrier + np.asarray(index, np.float32) * np.sin(modulator))


def _within_turn(cycles: np.ndarray) -> np.ndarray:
    """Return the fraction of each number of cycles, float32."""
    return (cycles - np.floor(cycles)).astype(np.float32)


def envelope(
    length_samples: int, held_samples: int, attack_s: float, decay_s: float, sustain: float, release_s: float
) -> np.ndarray:
    """Shape a note: linear attack, exponential decay to a level, exponential release: `[length_samples]`."""
    time_s = np.arange(length_samples, dtype=np.float32) / SAMPLE_RATE_HZ
    after_s = np.maximum(time_s - attack_s, 0.0)
    held = np.minimum(time_s / max(attack_s, 1e-4), 1.0) * (sustain + (1.0 - sustain) * np.exp(-after_s / decay_s))
    released_s = np.maximum(time_s - held_samples / SAMPLE_RATE_HZ, 0.0)
    level_at_release = held[min(held_samples, length_samples - 1)]
    falling = level_at_release * np.exp(-released_s / max(release_s, 1e-3))
    return np.where(time_s * SAMPLE_RATE_HZ < held_samples, held, falling).astype(np.float32)
