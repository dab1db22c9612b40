"""A lapped transform with blocks of changing size: critically sampled, orthonormal, exactly invertible."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np

from polyres.core.errors import InputError

Array = np.ndarray


def lapped(wave: Array, sizes: Sequence[int]) -> list[Array]:
    """Transform a wave block by block; as many coefficients as samples, and the same energy.

    Neighbours overlap by the size of the smaller one, centred on the border between them, with the slope of a sine.
    The outer ends are cut hard.

    `wave`: `[..., T]`, T = sum(sizes), any scale; `sizes`: of the blocks in samples, >= 1. Returns the coefficients
    `[..., N]` of every block, lowest frequency first, float64. Raises InputError when the sizes do not add up to T.

    Source: Princen, Johnson and Bradley 1987 (TDAC); change of block size by the shape of the overlap, Edler 1989.
    """
    from scipy.fft import dct

    borders = _borders(wave.shape[-1], sizes)
    folded = _turned(np.array(wave, dtype=np.float64), sizes, borders, 1.0)
    pieces = itertools.pairwise(borders)
    return [dct(folded[..., start:stop], type=4, norm="ortho", axis=-1) for start, stop in pieces]


def unlapped(blocks: Sequence[Array]) -> Array:
    """Invert `lapped`.

    `blocks`: coefficients `[..., N]` of every block. Returns the wave `[..., T]`, float64.

    Source: as `lapped`.
    """
    from scipy.fft import dct

    sizes = [block.shape[-1] for block in blocks]
    wave = np.concatenate([dct(block, type=4, norm="ortho", axis=-1) for block in blocks], axis=-1)
    return _turned(wave, sizes, _borders(wave.shape[-1], sizes), -1.0)


def _borders(length: int, sizes: Sequence[int]) -> list[int]:
    """Return where blocks begin, and the end."""
    borders = [0, *np.cumsum(sizes).tolist()]
    if borders[-1] != length or min(sizes, default=0) < 1:
        raise InputError(f"blocks of {list(sizes)[:8]} samples do not make up {length} samples")
    return borders


def _turned(wave: Array, sizes: Sequence[int], borders: Sequence[int], direction: float) -> Array:
    """Rotate pairs of samples that mirror each other at a border, in place; direction -1 turns them back."""
    slopes: dict[int, tuple[Array, Array]] = {}
    for left, right, border in zip(sizes[:-1], sizes[1:], borders[1:-1], strict=True):
        half = min(left, right) // 2
        if half == 0:
            continue
        if half not in slopes:
            angle = np.pi / 4 * (1 + (np.arange(half) + 0.5) / half)
            slopes[half] = np.sin(angle), direction * np.cos(angle)
        major, minor = slopes[half]
        before, after = wave[..., border - half : border][..., ::-1].copy(), wave[..., border : border + half].copy()
        wave[..., border : border + half] = major * after + minor * before
        wave[..., border - half : border] = (major * before - minor * after)[..., ::-1]
    return wave
