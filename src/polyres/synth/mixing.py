"""Mix stems: balance, loudness, and a limiter that applies one gain to all stems."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from pydantic import Field
from scipy.ndimage import minimum_filter1d, uniform_filter1d

from polyres.core.config import Config
from polyres.synth.effects import block_peaks, ramped
from polyres.synth.instruments.oscillators import SAMPLE_RATE_HZ

_BLOCK_SAMPLES = 16
_SILENCE_DB = -120.0


class MixConfig(Config):
    """Balance and loudness of mixes; levels are RMS over the seconds in which a stem plays, in dB.

    `balance_db` gives mean and spread of each stem against the others. The mixture's loudness is drawn from
    `loudness_dbfs`; what then passes the ceiling is limited, but never by more than about `most_limited_db`.
    """

    balance_db: dict[str, tuple[float, float]] = {
        "drums": (0.0, 2.5),
        "bass": (-1.0, 2.5),
        "other": (-1.0, 3.0),
        "vocals": (1.0, 2.5),
    }
    loudness_dbfs: tuple[float, float] = (-22.0, -11.0)
    ceiling_dbfs: tuple[float, float] = (-3.0, -0.3)
    most_limited_db: float = Field(6.0, ge=0)


def active_rms(wave: np.ndarray) -> float:
    """Return the RMS over the seconds that are at most 30 dB below the loudest one.

    `wave`: float `[C, T]` at 44.1 kHz; returns the RMS; 0 for silence.
    """
    starts = range(0, wave.shape[1], SAMPLE_RATE_HZ)
    power = np.array([float(np.mean(np.square(wave[:, start : start + SAMPLE_RATE_HZ]))) for start in starts] or [0.0])
    return float(np.sqrt(power[power >= power.max() * 1e-3].mean()))


def limit_together(waves: Mapping[str, np.ndarray], ceiling: float, reach_s: float = 0.004) -> dict[str, np.ndarray]:
    """Keep the mixture and every stem below a ceiling with one gain curve for all, so that the sum still holds.

    Peaks below 0.7 of the ceiling pass untouched; above, they bend towards it. The gain falls before a peak and rises
    after it. `waves`: stem name to float `[C, T]`, all of one length; `ceiling`: highest magnitude of the result, above
    0; returns stem name to float32 `[C, T]`.
    """
    if not waves:
        return {}
    length = next(iter(waves.values())).shape[1]
    peaks = block_peaks(np.sum(list(waves.values()), axis=0), _BLOCK_SAMPLES)
    for wave in waves.values():
        peaks = np.maximum(peaks, block_peaks(wave, _BLOCK_SAMPLES))
    knee = 0.7 * ceiling
    bent = knee + (ceiling - knee) * np.tanh((peaks - knee) / (ceiling - knee))
    gain = np.where(peaks > knee, bent / np.maximum(peaks, knee), 1.0)
    # Every mean of minima over a window that holds a block is at most the gain that this block needs.
    reach = max(1, round(reach_s * SAMPLE_RATE_HZ / _BLOCK_SAMPLES))
    lowest = minimum_filter1d(gain, 2 * reach + 3, mode="nearest")
    curve = ramped(uniform_filter1d(lowest, 2 * reach + 1, mode="nearest"), _BLOCK_SAMPLES, length)
    return {stem: np.asarray(wave * curve, np.float32) for stem, wave in waves.items()}


def mix_stems(waves: Mapping[str, np.ndarray], rng: np.random.Generator, config: MixConfig) -> dict[str, np.ndarray]:
    """Balance stems at random, set the mixture's loudness and limit it.

    `waves`: stem name to float `[2, T]` at 44.1 kHz, of any level; silent ones are left out; returns stem name to
    float32 `[2, T]`; their sum is the mixture and stays below full scale, as does each of them.
    """
    balanced = {}
    for stem, wave in waves.items():
        mean_db, spread_db = config.balance_db.get(stem, (-1.0, 2.5))
        wanted_db = mean_db + spread_db * float(np.clip(rng.standard_normal(), -2.0, 2.0))
        level = active_rms(wave)
        if 20.0 * np.log10(max(level, 1e-12)) > _SILENCE_DB:
            balanced[stem] = wave * np.float32(10.0 ** (wanted_db / 20.0) / level)
    return master(balanced, rng, config)


def master(waves: Mapping[str, np.ndarray], rng: np.random.Generator, config: MixConfig) -> dict[str, np.ndarray]:
    """Set a mixture's loudness with its balance kept, and limit it.

    `waves`: stem name to float `[2, T]` at 44.1 kHz; returns stem name to float32 `[2, T]`; their sum is the mixture
    and stays below full scale, as does each of them.
    """
    loudness_db, ceiling_db = float(rng.uniform(*config.loudness_dbfs)), float(rng.uniform(*config.ceiling_dbfs))
    if not waves:
        return {}
    ceiling = 10.0 ** (ceiling_db / 20.0)
    mixture = np.sum(list(waves.values()), axis=0)
    peak = max(float(np.abs(wave).max(initial=1e-9)) for wave in [mixture, *waves.values()])
    gain = 10.0 ** (loudness_db / 20.0) / max(active_rms(mixture), 1e-9)
    gain = np.float32(min(gain, ceiling * 10.0 ** (config.most_limited_db / 20.0) / peak))
    return limit_together({stem: wave * gain for stem, wave in waves.items()}, ceiling)
