"""Pitch-synchronous overlap-add: a sung sound at another pitch and length, with its formants kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.signal import resample_poly

_HOP_S = 0.005
_WINDOW_S = 0.04
_VOICED = 0.6
_UNVOICED_S = 0.006
_FINER = 4
_COARSER = 3


@dataclass(frozen=True)
class Marked:
    """A mono sound cut into periods.

    `finer` is the sound at four times its rate; `position` says in samples where each period has its centre, `period`
    how long it is there, `voiced` whether the sound has a pitch there. A sound without marks is too short to be cut.
    """

    finer: np.ndarray
    sample_rate_hz: int
    position: np.ndarray
    period: np.ndarray
    voiced: np.ndarray

    @property
    def length_samples(self) -> int:
        """Length of the sound at its own rate."""
        return len(self.finer) // _FINER

    @property
    def frequency_hz(self) -> float | None:
        """Median of the voiced pitch, or None where there is none."""
        return self.sample_rate_hz / float(np.median(self.period[self.voiced])) if self.voiced.any() else None


def track_pitch(
    wave: np.ndarray, sample_rate_hz: float, low_hz: float = 65.0, high_hz: float = 1100.0
) -> tuple[np.ndarray, np.ndarray]:
    """Follow the pitch of a mono sound every 5 ms.

    Args:
        wave: float `[T]`.
        sample_rate_hz: its rate.
        low_hz: lowest pitch looked for.
        high_hz: highest pitch looked for.

    Returns:
        Frequency in Hz, and how periodic the sound is (1 is perfectly), both float64 `[frames]`; none for sounds
        shorter than 40 ms.

    Source: McLeod and Wyvill 2005, A Smarter Way to Find Pitch (normalised square difference).
    """
    hop, size = round(_HOP_S * sample_rate_hz), round(max(_WINDOW_S, 2.2 / low_hz) * sample_rate_hz)
    if len(wave) < size:
        return np.zeros(0), np.zeros(0)
    frames = np.lib.stride_tricks.sliding_window_view(np.asarray(wave, np.float32), size)[::hop]
    longest = min(int(np.ceil(sample_rate_hz / low_hz)) + 1, size - 2)
    shortest = max(2, int(sample_rate_hz / high_hz))
    padded = 1 << (size + longest).bit_length()
    spectrum = np.fft.rfft(frames, padded)
    products = np.fft.irfft(spectrum.real**2 + spectrum.imag**2, padded)[:, : longest + 1]
    power = np.concatenate([np.zeros((len(frames), 1)), np.cumsum(np.square(frames, dtype=np.float64), axis=1)], axis=1)
    lags = np.arange(longest + 1)
    energy = power[:, size - lags] + power[:, [size]] - power[:, lags]
    likeness = 2.0 * products / np.maximum(energy, 1e-9)
    inner = likeness[:, shortest:longest]
    peaks = (inner >= likeness[:, shortest - 1 : longest - 1]) & (inner > likeness[:, shortest + 1 : longest + 1])
    heights = np.where(peaks, inner, -1.0)
    best = heights.max(axis=1)
    # The first peak nearly as high as the highest one: later ones are its multiples.
    lag = shortest + np.argmax(heights >= 0.9 * best[:, None], axis=1)
    rows = np.arange(len(lag))
    before, at, after = (likeness[rows, lag + step] for step in (-1, 0, 1))
    bend = np.minimum(before - 2.0 * at + after, -1e-9)
    return sample_rate_hz / (lag + 0.5 * (before - after) / bend), np.where(best > 0.0, at, 0.0)


def mark_periods(wave: np.ndarray, sample_rate_hz: int, expected_hz: float | None = None) -> Marked:
    """Cut a mono sound into periods.

    Args:
        wave: float `[T]`.
        sample_rate_hz: its rate.
        expected_hz: about the pitch it was sung at; it is looked for within six semitones. None looks everywhere.

    Returns:
        The sound with its marks.
    """
    around = (65.0, 1100.0) if expected_hz is None else (expected_hz / 2**0.5, expected_hz * 2**0.5)
    # A third of the rate holds all harmonics that tell a voice's pitch, at a third of the work.
    coarser = _COARSER if len(wave) > _COARSER else 1
    slow_hz = sample_rate_hz / coarser
    frequency_hz, strength = track_pitch(resample_poly(wave, 1, coarser) if len(wave) else wave, slow_hz, *around)
    finer = resample_poly(np.asarray(wave, np.float32), _FINER, 1).astype(np.float32)
    hop = coarser * round(_HOP_S * slow_hz)
    centre = coarser * round(max(_WINDOW_S, 2.2 / around[0]) * slow_hz) // 2
    # The glottis closes where the larger excursions point.
    sign = 1.0 if np.sum(np.asarray(wave, np.float64) ** 3) >= 0.0 else -1.0
    position: list[float] = []
    period: list[float] = []
    voiced: list[bool] = []
    now = 0.0
    while len(frequency_hz) and now < len(wave):
        frame = int(np.clip(round((now - centre) / hop), 0, len(frequency_hz) - 1))
        sung = strength[frame] > _VOICED
        length = sample_rate_hz / frequency_hz[frame] if sung else _UNVOICED_S * sample_rate_hz
        if sung:
            reach = 0.5 * length if not (voiced and voiced[-1]) else 0.2 * length
            first = max(0, round(_FINER * (now - reach)))
            part = finer[first : max(first + 1, round(_FINER * (now + reach)))]
            if len(part):
                now = max((first + int(np.argmax(sign * part))) / _FINER, position[-1] + 1.0 if position else 0.0)
        position.append(now)
        period.append(length)
        voiced.append(bool(sung))
        now += length
    return Marked(finer, sample_rate_hz, np.array(position), np.array(period), np.array(voiced, bool))


def resynthesise(sound: Marked, frequency_hz: np.ndarray, source: np.ndarray, size: float = 1.0) -> np.ndarray:
    """Sing a sound along another pitch and time.

    Args:
        sound: from `mark_periods`.
        frequency_hz: pitch of every sample of the result, float `[T]`; counts where the sound has a pitch.
        source: which sample of the sound is heard at every sample of the result, float `[T]`.
        size: factor on all formants; below 1 makes a larger person.

    Returns:
        float32 `[T]`.

    Source: Moulines and Charpentier 1990, Pitch-Synchronous Waveform Processing Techniques (TD-PSOLA).
    """
    length = len(frequency_hz)
    result = np.zeros(length, np.float32)
    if not len(sound.position) or not length:
        return result
    between = 0.5 * (sound.position[1:] + sound.position[:-1])
    nearest = np.searchsorted(between, source)
    last = len(sound.finer) - 1
    now = 0.0
    while now < length:
        start = int(now)
        mark = int(nearest[start])
        period = float(sound.period[mark])
        step = sound.sample_rate_hz / float(frequency_hz[start]) if sound.voiced[mark] else period
        half = max(2, int(period / size))
        offset = np.arange(max(-half, -start), min(half, length - 1 - start) + 1)
        taken = _FINER * (sound.position[mark] + size * (offset + (start - now)))
        index = np.clip(np.rint(taken), 0, last).astype(np.int64)
        inside = (taken >= 0.0) & (taken <= last)
        window = (0.5 + 0.5 * np.cos(np.pi * offset / (half + 1))) * inside
        # Grains that lie closer together than they were add up to more.
        level = np.sqrt(step / (half + 1))
        result[start + offset[0] : start + offset[-1] + 1] += (level * window * sound.finer[index]).astype(np.float32)
        now += max(step, 2.0)
    return result
