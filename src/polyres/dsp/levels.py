"""Levels and loudness: shared gains of stems, mean and deviation of mixtures, integrated loudness."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from polyres.core.errors import InputError

Wave = npt.NDArray[np.float32]

# Largest value that a 16-bit file can hold.
INTEGER_CEILING = 32767.0 / 32768.0


def peak_level(wave: Wave) -> float:
    """Largest absolute sample value. Returns peak, 0 for an empty array."""
    return float(max(wave.max(), -wave.min())) if wave.size else 0.0


def shared_gain(peak: float, ceiling: float = INTEGER_CEILING) -> float:
    """Gain that keeps all stems of a track below full scale without changing their balance.

    `peak`: largest absolute sample over all stems; `ceiling`: largest value allowed, > 0. Returns 1.0 where nothing
    exceeds full scale (1.0), else ceiling / peak.
    """
    return ceiling / peak if peak > 1.0 else 1.0


def spread_residual(stems: Wave, mix: Wave) -> Wave:
    """Mixture consistency: give every stem an equal part of what is missing, so that the stems sum to the mixture.

    Equal parts are the smallest change (in the least-squares sense) that makes the sum right. What float32 rounding
    then still leaves goes to the smallest stem of each sample, where steps are finest.

    `stems`: `[S, C, T]` float32, S >= 1; `mix`: `[C, T]` float32. Returns `[S, C, T]` float32 whose sum (taken in
    float64) is the mixture to within the rounding of its smallest stem. Raises InputError when the shapes do not belong
    together.

    Source: Wisdom et al., "Differentiable Consistency Constraints for Improved Deep Speech Enhancement", ICASSP 2019.
    """
    if stems.ndim != mix.ndim + 1 or stems.shape[1:] != mix.shape:
        raise InputError(
            f"stems of shape {tuple(stems.shape)} do not fit a mixture of shape {tuple(mix.shape)}; "
            "expected [S, C, T] and [C, T]"
        )
    wanted = mix.astype(np.float64)
    residual = wanted - stems.sum(axis=0, dtype=np.float64)
    spread: Wave = (stems + residual / stems.shape[0]).astype(stems.dtype)
    for _ in range(2):  # the second round clears the rounding of the first where the smallest stem has changed
        left = wanted - spread.sum(axis=0, dtype=np.float64)
        smallest = np.abs(spread).argmin(axis=0)[None]
        picked = np.take_along_axis(spread, smallest, axis=0) + left
        np.put_along_axis(spread, smallest, picked.astype(stems.dtype), axis=0)
    return spread


def mono_mean_m2(wave: Wave) -> tuple[int, float, float]:
    """Count, mean and sum of squared deviations of the channel mean, in float64. `wave`: `[C, T]`, T >= 0."""
    mono = wave.mean(axis=0, dtype=np.float64)
    if mono.size == 0:
        return 0, 0.0, 0.0
    mean = mono.mean()
    return mono.size, float(mean), float(np.square(mono - mean).sum())


class RunningLevel:
    """Mean and standard deviation of the mono mixture over a stream of blocks, in float64."""

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self._m2 = 0.0

    def push(self, wave: Wave) -> None:
        """Take in one block. `wave`: `[C, n]`, n >= 0."""
        count, mean, m2 = mono_mean_m2(wave)
        if count == 0:
            return
        total = self.count + count
        delta = mean - self.mean
        self.mean += delta * count / total
        self._m2 += m2 + delta * delta * self.count * count / total
        self.count = total

    @property
    def std(self) -> float:
        """Unbiased standard deviation; 0 for fewer than two samples."""
        return float((self._m2 / (self.count - 1)) ** 0.5) if self.count > 1 else 0.0


SILENCE_LUFS = -120.0
"""Stands for the loudness of what is never above the absolute gate."""

_STEP_S = 0.1
_STEPS_PER_BLOCK = 4
_ABSOLUTE_GATE_LUFS = -70.0
_RELATIVE_GATE_LU = -10.0
_OFFSET_DB = -0.691
_SHELF = (1681.974450955533, 3.999843853973347, 0.7071752369554196)  # centre in Hz, gain in dB, Q
_HIGH_PASS = (38.13547087602444, 0.5003270373238773)  # corner in Hz, Q


def k_weighting(sample_rate_hz: int) -> npt.NDArray[np.float64]:
    """Return the K-weighting of the standard for any rate, as second-order sections `[2, 6]`.

    The standard tabulates 48 kHz only; these are the analogue prototypes behind it, mapped to the rate by the bilinear
    transform. Below 4 kHz the shelf lies outside the band and is left out. Returns rows of b0, b1, b2, a0, a1, a2.

    Source: ITU-R BS.1770-4, annex 1.
    """
    centre_hz, gain_db, q = _SHELF
    sections = [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0]]
    if sample_rate_hz > 4000:
        k = math.tan(math.pi * centre_hz / sample_rate_hz)
        high = 10.0 ** (gain_db / 20.0)
        band = high**0.4996667741545416
        a0 = 1.0 + k / q + k * k
        b = [(high + band * k / q + k * k) / a0, 2.0 * (k * k - high) / a0, (high - band * k / q + k * k) / a0]
        sections = [[*b, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0]]
    corner_hz, q = _HIGH_PASS
    k = math.tan(math.pi * corner_hz / sample_rate_hz)
    a0 = 1.0 + k / q + k * k
    sections.append([1.0, -2.0, 1.0, 1.0, 2.0 * (k * k - 1.0) / a0, (1.0 - k / q + k * k) / a0])
    return np.array(sections)


class LoudnessMeter:
    """Integrated loudness in LUFS; all channels count alike, as in stereo.

    Source: ITU-R BS.1770-4: K-weighting, blocks of 400 ms every 100 ms, gates at -70 LUFS and 10 LU below the mean.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._sections = k_weighting(max(sample_rate_hz, 101))
        self._state = np.zeros((2, channels, 2))
        self._step_samples = max(1, round(_STEP_S * sample_rate_hz))
        self._rest = np.zeros(0)
        self._powers: list[npt.NDArray[np.float64]] = []

    def push(self, block: Wave) -> None:
        """Take the next block. `block`: `[C, n]` float32."""
        from scipy.signal import sosfilt  # half a second of a start that measures nothing

        weighted, self._state = sosfilt(self._sections, block, axis=1, zi=self._state)
        power = np.concatenate([self._rest, np.einsum("ct,ct->t", weighted, weighted)])
        whole = len(power) - len(power) % self._step_samples
        self._powers.append(power[:whole].reshape(-1, self._step_samples).mean(axis=1))
        self._rest = power[whole:]

    def integrated_lufs(self) -> float:
        """Return the loudness of everything pushed so far; -120 where nothing passes the gate."""
        steps = np.concatenate([*self._powers, np.zeros(0)])
        if len(steps) < _STEPS_PER_BLOCK:  # shorter than one block: what there is counts as one
            everything = [*steps, *([self._rest.mean()] if len(self._rest) else [])]
            blocks = np.array([np.mean(everything)]) if everything else np.zeros(0)
        else:
            blocks = np.convolve(steps, np.full(_STEPS_PER_BLOCK, 1.0 / _STEPS_PER_BLOCK), mode="valid")
        loud = blocks[blocks > _power(_ABSOLUTE_GATE_LUFS)]
        if len(loud) == 0:
            return SILENCE_LUFS
        loud = loud[loud > loud.mean() * 10.0 ** (_RELATIVE_GATE_LU / 10.0)]
        return float(_OFFSET_DB + 10.0 * np.log10(loud.mean()))


def _power(lufs: float) -> float:
    return float(10.0 ** ((lufs - _OFFSET_DB) / 10.0))
