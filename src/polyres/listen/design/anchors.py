"""Filter anchors and match the loudness of all sounds of a page."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from polyres.core.errors import InputError
from polyres.dsp.levels import SILENCE_LUFS, LoudnessMeter

Wave = NDArray[np.float32]

LOW_HZ, MID_HZ = 3500, 7000
_TRANSITION_HZ = 500
_STOP_DB = 60.0
_OVERSAMPLING = 4


def anchor_filter(cutoff_hz: float, sample_rate_hz: int) -> NDArray[np.float64]:
    """Return a symmetric low-pass of odd length: flat within 0.1 dB up to the cutoff, −60 dB from 500 Hz above it.

    Source: ITU-R BS.1534-3, annex 1, section 5.1 asks for −25 dB at 4 kHz and −50 dB at 4.5 kHz.
    """
    from scipy.signal import firwin, kaiserord

    if cutoff_hz + _TRANSITION_HZ >= sample_rate_hz / 2:
        raise InputError(f"an anchor of {cutoff_hz:g} Hz does not fit a sample rate of {sample_rate_hz} Hz")
    taps, beta = kaiserord(_STOP_DB, _TRANSITION_HZ / (sample_rate_hz / 2))
    middle_hz = cutoff_hz + _TRANSITION_HZ / 2
    return np.asarray(firwin(taps | 1, middle_hz, window=("kaiser", beta), fs=sample_rate_hz))


def margin_samples(sample_rate_hz: int) -> int:
    """Return how many samples an anchor filter looks to each side."""
    return (len(anchor_filter(min(LOW_HZ, sample_rate_hz / 8), sample_rate_hz)) - 1) // 2


def low_pass(wave: Wave, cutoff_hz: float, sample_rate_hz: int) -> Wave:
    """Low-pass without delay; the signal is zero-padded on both sides: `wave` `[C, T]`."""
    from scipy.signal import oaconvolve

    taps = anchor_filter(cutoff_hz, sample_rate_hz)
    middle = (len(taps) - 1) // 2
    whole = oaconvolve(wave.astype(np.float64), taps[None], mode="full", axes=1)
    return np.asarray(whole[:, middle : middle + wave.shape[1]], np.float32)


def loudness_lufs(wave: Wave, sample_rate_hz: int) -> float:
    """Return the integrated loudness of `[C, T]` in LUFS by BS.1770; −120 for silence."""
    meter = LoudnessMeter(sample_rate_hz, wave.shape[0])
    meter.push(wave)
    return meter.integrated_lufs()


def true_peak(wave: Wave) -> float:
    """Return the highest magnitude between and at the samples of `[C, T]`, by four-fold oversampling.

    Source: ITU-R BS.1770-4, annex 2.
    """
    from scipy.signal import resample_poly

    if not wave.size:
        return 0.0
    finer = resample_poly(wave.astype(np.float64), _OVERSAMPLING, 1, axis=1)
    return float(max(np.abs(finer).max(), np.abs(wave).max()))


@dataclass(frozen=True)
class Matched:
    """Gains that make the sounds of a page equally loud."""

    gains_db: dict[str, float]  # name -> gain
    lufs: dict[str, float]  # name -> loudness before
    target_lufs: float  # loudness of all sounds afterwards; below the one asked for where a peak stood in the way
    off_lu: dict[str, float]  # name -> how far a sound stays from it because its gain is limited; only where it does


def match_loudness(
    waves: Mapping[str, Wave], sample_rate_hz: int, target_lufs: float, limit_db: float, peak_db: float
) -> Matched:
    """Find the gains that bring all sounds of a page to one loudness, and no peak above a limit: `waves` `[C, T]`."""
    lufs = {name: loudness_lufs(wave, sample_rate_hz) for name, wave in waves.items()}
    if max(lufs.values()) <= SILENCE_LUFS:
        raise InputError("every sound of the page is silent; choose another excerpt")
    wanted = {name: target_lufs - level for name, level in lufs.items()}
    most = min(gain for name, gain in wanted.items() if lufs[name] > SILENCE_LUFS) + limit_db
    gains = {name: min(gain, most) for name, gain in wanted.items()}
    ceiling = 10 ** (peak_db / 20)
    peaks = [true_peak(wave) * 10 ** (gains[name] / 20) for name, wave in waves.items()]
    lower_db = max(0.0, 20 * math.log10(max(max(peaks), 1e-12) / ceiling))
    off = {name: wanted[name] - gain for name, gain in gains.items() if wanted[name] - gain > 1e-9}
    return Matched({name: gain - lower_db for name, gain in gains.items()}, lufs, target_lufs - lower_db, off)


def faded(wave: Wave, sample_rate_hz: int, fade_s: float) -> Wave:
    """Return `[C, T]` with a raised-cosine fade at both ends, so that loops do not click."""
    count = min(round(fade_s * sample_rate_hz), wave.shape[1] // 2)
    if not count:
        return wave
    ramp = (0.5 - 0.5 * np.cos(np.pi * (np.arange(count) + 0.5) / count)).astype(np.float32)
    result = wave.copy()
    result[:, :count] *= ramp
    result[:, -count:] *= ramp[::-1]
    return result
