"""Integrated loudness of a signal that arrives in blocks, by the broadcast standard."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.signal import sosfilt

Wave = npt.NDArray[np.float32]

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

    The standard tabulates 48 kHz only; these are the analogue prototypes behind it, mapped to the rate by the
    bilinear transform. Below 4 kHz the shelf lies outside the band and is left out.

    Args:
        sample_rate_hz: Sample rate in Hz, above 100.

    Returns:
        Rows of b0, b1, b2, a0, a1, a2.

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

    Args:
        sample_rate_hz: Sample rate in Hz.
        channels: Number of channels C.

    Source: ITU-R BS.1770-4: K-weighting, blocks of 400 ms every 100 ms, gates at -70 LUFS and 10 LU below the mean.
    """

    def __init__(self, sample_rate_hz: int, channels: int) -> None:
        self._sections = k_weighting(max(sample_rate_hz, 101))
        self._state = np.zeros((2, channels, 2))
        self._step_samples = max(1, round(_STEP_S * sample_rate_hz))
        self._rest = np.zeros(0)
        self._powers: list[npt.NDArray[np.float64]] = []

    def push(self, block: Wave) -> None:
        """Take the next block.

        Args:
            block: `[C, n]` float32.
        """
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
