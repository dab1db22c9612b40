"""Filter banks of linear phase, and many short filters applied block by block."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import ConfigError, InputError


def identity_bank(edges_hz: Sequence[float], taps: int, sample_rate_hz: int) -> Tensor:
    """Impulse responses of the bands below, between and above the edges; their sum is a unit impulse.

    `edges_hz`: rising cut-off frequencies, between 0 and half the sample rate; K - 1 of them. `taps`: length of the
    filters in samples, odd; the impulse of the sum sits in the middle. Returns `[K, taps]`, lowest band first. Raises
    ConfigError on edges that do not rise inside the range, or an even number of taps.

    Source: windowed-sinc design with a Hann window (Oppenheim & Schafer, section 7.5).
    """
    edges = list(edges_hz)
    if edges != sorted(set(edges)) or (edges and not 0 < edges[0] <= edges[-1] < sample_rate_hz / 2):
        raise ConfigError(f"bands_hz {edges} must rise and lie between 0 and {sample_rate_hz / 2:g} Hz")
    if taps % 2 == 0 or taps < 3:
        raise ConfigError(f"band_taps is {taps}; an odd number of 3 or more is needed")
    time = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = torch.hann_window(taps + 2, periodic=False, dtype=torch.float64)[1:-1]
    impulse = torch.zeros(taps, dtype=torch.float64)
    impulse[taps // 2] = 1
    steps = [torch.zeros_like(impulse)]
    for edge in edges:
        ratio = 2 * edge / sample_rate_hz
        low = ratio * torch.sinc(ratio * time) * window
        steps.append(low / low.sum())
    steps.append(impulse)
    return torch.stack([high - low for low, high in pairwise(steps)]).float()


SHORTEST_BLOCK_SAMPLES = 64


def filter_and_sum(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every row with its own filter and sum the rows of a group; what a grouped convolution computes.

    Blocks of about the filter's length are multiplied by the filter's banded matrix: twice the arithmetic, done by
    matrix products, which on a CPU is many times faster than a grouped convolution, above all backward.

    `x`: `[B, G, R, T]`, T >= 1. `kernel`: `[G, R, K]`, K odd; zeros are taken to lie around x. Returns `[B, G, T]`:
    y[t] = sum over r and k of kernel[r, k] x[r, t + k - K // 2]. Raises InputError if K is even or the shapes do not
    fit.
    """
    taps = kernel.shape[-1]
    if taps % 2 == 0 or kernel.dim() != 3 or x.dim() != 4 or x.shape[1:3] != kernel.shape[:2]:
        raise InputError(
            f"cannot filter {list(x.shape)} with {list(kernel.shape)}; [B, G, R, T] and [G, R, odd K] are needed"
        )
    batch, groups, rows, length = x.shape
    block = max(SHORTEST_BLOCK_SAMPLES, 1 << (taps.bit_length() - 1))
    num_blocks = -(-length // block)
    padded = F.pad(x, (taps // 2, num_blocks * block - length + taps // 2))
    matrices = _banded(kernel, block)
    total = x.new_zeros(groups, batch * num_blocks, block)
    for row in range(rows):
        # one row at a time: overlapping blocks hold every sample twice
        blocks = padded[:, :, row].unfold(-1, block + taps - 1, block).transpose(0, 1)
        total = torch.baddbmm(total, blocks.reshape(groups, batch * num_blocks, -1), matrices[:, row])
    return total.reshape(groups, batch, num_blocks * block)[..., :length].transpose(0, 1)


def _banded(kernel: Tensor, block: int) -> Tensor:
    """`[G, R, K]` -> `[G, R, block + K - 1, block]`, whose column l holds the filter from row l on."""
    span = block + kernel.shape[-1] - 1
    # Repeating the filter with one zero more than its matrix row is wide shifts it by one per row.
    skewed = F.pad(kernel, (0, block)).repeat(1, 1, block)[..., : block * span]
    return skewed.reshape(*kernel.shape[:2], block, span).transpose(-1, -2)
