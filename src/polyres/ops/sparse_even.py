"""Noise that keeps to its levels: its spectrum, and what is already there, stray less than those of plain noise."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.ops.sparse_floor import floor_edges
from polyres.ops.stft import istft, stft

Array = np.ndarray

OVERLAP = 8
"""Windows over every sample; with fewer, the spectrum strays between them."""
_NOTHING = 1e-30


def level_magnitude(rms: Array, block: int, n_fft: int) -> Tensor:
    """Magnitudes of a spectrogram that levels stand for: straight lines between them in decibels.

    Args:
        rms: of the coefficients of each band `[C, blocks, bands]`.
        block: samples of a block.
        n_fft: window length of the spectrogram in samples; its hop is an eighth of that.

    Returns:
        `[C, n_fft / 2, blocks * block / hop]` in the scale of `polyres.ops.stft.stft`, float64.
    """
    widths = np.diff(floor_edges(block, rms.shape[-1]))
    bins = np.repeat(rms, widths, axis=-1).transpose(0, 2, 1)
    log = torch.from_numpy(np.log(np.maximum(bins, _NOTHING)))
    frames = rms.shape[1] * block * OVERLAP // n_fft
    smooth = F.interpolate(log[:, None], (n_fft // 2, frames), mode="bilinear", align_corners=False)[:, 0].exp()
    window_power = 3 / 8  # mean square of a Hann window
    found: Tensor = smooth.where(smooth > 2 * _NOTHING, 0.0) * window_power**0.5
    return found


def evened(carried: Array, noise: Array, rms: Array, block: int, n_fft: int, rounds: int) -> Array:
    """Change noise so that the magnitudes of `carried + noise` come close to what levels and `carried` make likely.

    A sample depends on at most `rounds * n_fft` samples on each side.

    Args:
        carried: the wave that the noise is added to `[C, T]`.
        noise: at the given levels `[C, T]`.
        rms: of the coefficients of the noise in each band `[C, T / block, bands]`.
        block: samples between levels.
        n_fft: window length in samples, a multiple of 8; an eighth of it divides T.
        rounds: how often; 0 leaves the noise as it is.

    Returns:
        What is to be added to `carried`, `[C, T]`.

    Source: Griffin and Lim 1984, with magnitudes that take the place of known ones.
    """
    if rounds == 0:
        return noise
    hop, length = n_fft // OVERLAP, carried.shape[-1]
    known = stft(torch.from_numpy(carried), n_fft, hop)
    likely = (known.abs().square() + level_magnitude(rms, block, n_fft).square()).sqrt()
    wave = torch.from_numpy(noise)
    for _ in range(rounds):
        whole = known + stft(wave, n_fft, hop)
        # The carried part is taken away again before it is inverted, so that nothing is added where nothing lacks.
        wave = istft(whole * (likely / whole.abs().clamp_min(_NOTHING)) - known, hop, length)
    found: Array = wave.numpy()
    return found
