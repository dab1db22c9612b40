"""Context model of a sparse spectrum: predicts which coefficients are kept from their neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from polyres.codec.wave.arithmetic_coding import PROBABILITY_ONE
from polyres.codec.wave.floor import floor_table_shape

Array = np.ndarray

NO_PREVIOUS = 10
ZONES = (1 / 32, 1 / 8, 1 / 3)
"""Borders between the four zones of frequency, as shares of the band."""
CONTEXTS = (NO_PREVIOUS + 1) * 3 * (len(ZONES) + 1) * 9

LAST_WIDTH = 6
"""Bits that say up to where, in 64ths of the band, coefficients are kept."""
MODE_WIDTH = 3


class Tables(NamedTuple):
    """Probabilities of a 1, in units of 1 / 2048."""

    significance: Array  # by channel (0 or another), mode and context `[2, modes, CONTEXTS]`
    last: Array  # by mode and node `[modes, 64]`
    floor: Array  # of `polyres.codec.wave.floor`
    modes: Array  # by mode before (the last row for none) and node `[9, 8]`


def shapes(modes: int) -> dict[str, tuple[int, ...]]:
    """Return the shape of every table."""
    return {
        "significance": (2, modes, CONTEXTS),
        "last": (modes, 1 << LAST_WIDTH),
        "floor": floor_table_shape(),
        "modes": ((1 << MODE_WIDTH) + 1, 1 << MODE_WIDTH),
    }


def plain_tables(modes: int) -> Tables:
    """Return tables that know little: a coefficient is likelier to be kept where its neighbours are."""
    context = np.arange(CONTEXTS)
    before, last = context % 3, context // 3 % 3
    earlier, around = context // 36 % 3, context // 108
    strength = 2.0 * np.where(around == NO_PREVIOUS, 2, around) / 4 + last + 0.5 * before + 0.5 * earlier
    odds = np.exp(np.clip(strength, 0, 6) - 3.5)
    row = np.clip(np.round(PROBABILITY_ONE * odds / (1 + odds)), 1, PROBABILITY_ONE - 1).astype(np.int64)
    sizes = shapes(modes)
    half = {name: np.full(size, PROBABILITY_ONE // 2, dtype=np.int64) for name, size in sizes.items()}
    return Tables(np.broadcast_to(row, sizes["significance"]).copy(), half["last"], half["floor"], half["modes"])


def resampled(classes: Array, bins: int) -> Array:
    """Bring the classes of a block to the number of bins of another; the largest of several counts."""
    size = len(classes)
    if size == bins:
        return classes
    if size > bins:
        largest: Array = classes.reshape(bins, size // bins).max(axis=1)
        return largest
    return np.repeat(classes, bins // size)


def context_bases(previous: Array | None, earlier: Array | None, bins: int) -> Array:
    """Return the contexts `[N]` of a block's coefficients, times 9, from the classes of the block before."""
    if previous is None:
        around = np.full(bins, NO_PREVIOUS, dtype=np.int64)
    else:
        near = np.zeros(bins + 4, dtype=np.int64)
        near[2:-2] = resampled(previous, bins)
        wide = near[:-4] + near[4:] > 0
        around = 2 * near[2:-2] + near[1:-3] + near[3:-1] + wide
    more = np.zeros(bins, dtype=np.int64) if earlier is None else resampled(earlier, bins)
    zone = np.searchsorted(np.asarray(ZONES) * bins, np.arange(bins), side="right")
    return ((around * 3 + more) * 4 + zone) * 9


def full_contexts(bases: Array, classes: Array) -> Array:
    """Add what the neighbours below say; `[N]` each."""
    below = np.zeros(len(classes) + 2, dtype=np.int64)
    below[2:] = classes
    return bases + 3 * below[1:-1] + below[:-2]


@dataclass(frozen=True)
class Layout:
    """How a step is made up.

    Args:
        frame_samples: of a frame.
        frames: in a step.
        splits: blocks of a frame, by mode.
        channels: audio channels.
    """

    frame_samples: int
    frames: int
    splits: tuple[int, ...]
    channels: int

    @property
    def step_samples(self) -> int:
        """Samples of a step."""
        return self.frame_samples * self.frames

    def block_sizes(self, modes: Array) -> list[int]:
        """Sizes of the blocks of frames with these modes."""
        return [self.frame_samples // self.splits[mode] for mode in modes for _ in range(self.splits[mode])]
