"""One step of a sparse spectrum as a fixed number of scalars: the strongest coefficients and where they are.

A step is a column of numbers that float16 holds: the binary logarithm of the threshold, the number of words, the words
(integers of 12 bits that say where the coefficients are), then the coefficients kept, as
real numbers in units of the threshold, and zeros.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from polyres.codec.wave.arithmetic_coding import (
    COST_BITS,
    PROBABILITY_ONE,
    WORD_BITS,
    WORD_HALF,
    BitDecoder,
    encode_bits,
    symbol_bits,
)
from polyres.codec.wave.floor import floor_table_shape
from polyres.core.errors import InputError

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
    """How a step is made up."""

    frame_samples: int  # of a frame
    frames: int  # in a step
    splits: tuple[int, ...]  # blocks of a frame, by mode
    channels: int  # audio channels

    @property
    def step_samples(self) -> int:
        """Samples of a step."""
        return self.frame_samples * self.frames

    def block_sizes(self, modes: Array) -> list[int]:
        """Sizes of the blocks of frames with these modes."""
        return [self.frame_samples // self.splits[mode] for mode in modes for _ in range(self.splits[mode])]


Array = np.ndarray
Frames = list[Array]
"""Coefficients of a step: per frame `[C, blocks, N]`."""

HEADER = 2
SILENT_LOG2 = -60.0
"""What stands for the threshold of a silent step."""
LARGEST = 30000.0
"""Most that a coefficient may be above the threshold; float16 ends at 65504."""
STRONG = 2.0
"""From here on, in units of the threshold, a coefficient is of class 2."""
_TREE = 1 << LAST_WIDTH


@dataclass(frozen=True)
class Selection:
    """Which coefficients of a step are kept: their threshold as stored, values and classes, per frame as `Frames`."""

    log2: float
    scaled: Frames
    classes: Frames
    count: int


def select(frames: Frames, count: int) -> Selection:
    """Keep the strongest coefficients, or fewer where fewer are above zero."""
    flat = np.abs(np.concatenate([frame.ravel() for frame in frames]))
    peak = float(flat.max(initial=0.0))
    count = min(count, int((flat > peak / LARGEST).sum()))
    if peak < 2.0**-50 or count < 1:
        nothing = [np.zeros(frame.shape) for frame in frames]
        return Selection(SILENT_LOG2, nothing, [frame.astype(np.int64) for frame in nothing], 0)
    kept = np.argpartition(-flat, count - 1)[:count]
    log2 = float(np.float16(np.log2(flat[kept].min())))
    mask = np.zeros(len(flat), dtype=bool)
    mask[kept] = True
    scaled, classes, start = [], [], 0
    for frame in frames:
        here = mask[start : start + frame.size].reshape(frame.shape)
        values = (frame * 2.0**-log2).astype(np.float16).astype(np.float64)
        scaled.append(values)
        classes.append(np.where(here, 1 + (np.abs(values) >= STRONG), 0))
        start += frame.size
    return Selection(log2, scaled, classes, count)


@dataclass
class History:
    """Classes of the blocks before, per channel."""

    previous: list[Array | None]
    earlier: list[Array | None]

    @staticmethod
    def start(channels: int) -> History:
        """Nothing is known at the start of a step."""
        return History([None] * channels, [None] * channels)

    def bases(self, channel: int, bins: int, beside: Array | None) -> Array:
        """Contexts of a block; `beside` is the same block of the channel before."""
        return context_bases(self.previous[channel], self.earlier[channel] if beside is None else beside, bins)

    def take(self, channel: int, classes: Array) -> None:
        """Remember a block."""
        self.earlier[channel], self.previous[channel] = self.previous[channel], classes


def last_unit(classes: Array) -> int:
    """Up to which 64th of the band a frame's coefficients `[C, blocks, N]` are kept: 0 to 63, rounded up."""
    used = np.flatnonzero(classes.any(axis=(0, 1)))
    return 0 if len(used) == 0 else min(_TREE - 1, -(-(int(used[-1]) + 1) * (_TREE - 1) // classes.shape[-1]))


def last_bin(unit: int, bins: int) -> int:
    """Number of coefficients of a block that may be kept."""
    return unit * bins // (_TREE - 1)


def frame_contexts(classes: Array, history: History) -> Iterator[tuple[int, Array, Array]]:
    """Yield channel, contexts and decisions of each block of a frame, up to the last kept coefficient."""
    channels, blocks, bins = classes.shape
    stop = last_bin(last_unit(classes), bins)
    for block in range(blocks):
        beside: Array | None = None
        for channel in range(channels):
            here = classes[channel, block]
            bases = history.bases(channel, bins, beside)
            yield min(channel, 1), full_contexts(bases, here)[:stop], (here > 0)[:stop].astype(np.int64)
            history.take(channel, here)
            beside = here


def position_bits(selection: Selection, modes: Array, tables: Tables) -> float:
    """Bits that it takes to say which coefficients are kept."""
    channels = selection.classes[0].shape[0]
    history, total = History.start(channels), 0.0
    for mode, classes in zip(modes, selection.classes, strict=True):
        for channel, contexts, kept in frame_contexts(classes, history):
            total += float(COST_BITS[kept, tables.significance[channel, mode, contexts]].sum())
    return total


def encode_step(frames: Frames, modes: Array, tables: Tables, budget: int) -> tuple[Array, Frames]:
    """Code the frames `[C, blocks, N]` of a step as `[budget]` float16 numbers, and return them as decoded."""
    count = int(0.8 * budget)
    for _ in range(4):  # so many coefficients that they and their places fill the step
        selection = select(frames, count)
        if selection.count < count:
            break
        per = position_bits(selection, modes, tables) / WORD_BITS / max(selection.count, 1)
        better = int((budget - HEADER - 4 * len(frames)) / (1 + per))
        if abs(better - count) <= 2:
            break
        count = better
    while True:
        words = _words(selection, modes, tables)
        over = HEADER + len(words) + selection.count - budget
        if over <= 0:
            break
        if selection.count == 0:
            raise InputError(f"{budget} scalars are too few for a step; {HEADER + len(words)} are the least")
        selection = select(frames, max(0, selection.count - max(1, over * 4 // 5)))
    out = np.zeros(budget, dtype=np.float32)
    out[0], out[1] = selection.log2, len(words)
    out[HEADER : HEADER + len(words)] = words
    kept = [values[classes > 0] for values, classes in _coded_order(selection)]
    out[HEADER + len(words) : HEADER + len(words) + selection.count] = np.concatenate(kept)
    decoded = [
        np.where(classes > 0, scaled, 0.0) * 2.0**selection.log2
        for scaled, classes in zip(selection.scaled, selection.classes, strict=True)
    ]
    return out, decoded


def _coded_order(selection: Selection) -> Iterator[tuple[Array, Array]]:
    """Yield values and classes in the order in which they are coded: frame, block, channel."""
    for scaled, classes in zip(selection.scaled, selection.classes, strict=True):
        yield scaled.transpose(1, 0, 2), classes.transpose(1, 0, 2)


def _words(selection: Selection, modes: Array, tables: Tables) -> list[int]:
    """Code modes, levels and places."""
    bits: list[int] = []
    probabilities: list[int] = []

    def add(symbol: int, width: int, row: Array) -> None:
        more, rows = symbol_bits(symbol, width, row.tolist())
        bits.extend(more)
        probabilities.extend(rows)

    history, before = History.start(selection.classes[0].shape[0]), (1 << MODE_WIDTH)
    for mode, classes in zip(modes.tolist(), selection.classes, strict=True):
        add(mode, MODE_WIDTH, tables.modes[before])
        add(last_unit(classes), LAST_WIDTH, tables.last[mode])
        for channel, contexts, kept in frame_contexts(classes, history):
            bits.extend(kept.tolist())
            probabilities.extend(tables.significance[channel, mode, contexts].tolist())
        before = mode
    return encode_bits(bits, probabilities)


@dataclass(frozen=True)
class DecodedStep:
    """What a step holds: modes, and kept coefficients per frame `[C, blocks, N]`, zero where nothing was kept."""

    modes: Array
    kept: Frames


def decode_step(scalars: Array, layout: Layout, rows: Rows) -> DecodedStep:
    """Decode the `[budget]` numbers of a step to modes and kept coefficients."""
    number = int(scalars[1]) if np.isfinite(scalars).all() else -1
    if not 0 <= number <= len(scalars) - HEADER:
        raise InputError("the latents are damaged: a step has no valid number of words; encode the audio again")
    words = np.clip(scalars[HEADER : HEADER + number], -WORD_HALF, WORD_HALF - 1)
    values = scalars[HEADER + number :].astype(np.float64)
    known = (1 + (np.abs(values) >= STRONG)).tolist()
    unit = 2.0 ** float(scalars[0])
    decoder = BitDecoder(words.tolist())
    history, before, start = History.start(layout.channels), (1 << MODE_WIDTH), 0
    modes, kept = [], []
    for _ in range(layout.frames):
        mode = min(decoder.symbol(MODE_WIDTH, rows.modes[before]), len(layout.splits) - 1)
        blocks = layout.splits[mode]
        shape = (layout.channels, blocks, layout.frame_samples // blocks)
        stop = last_bin(decoder.symbol(LAST_WIDTH, rows.last[mode]), shape[-1])
        coefficients = np.zeros(shape)
        for block in range(blocks):
            beside: Array | None = None
            for channel in range(layout.channels):
                bases = history.bases(channel, shape[-1], beside)[:stop].tolist()
                found = decoder.significant(bases, rows.significance[min(channel, 1)][mode], known, start)
                classes = np.zeros(shape[-1], dtype=np.int64)
                classes[:stop] = found
                history.take(channel, classes)
                beside = classes
                here = np.flatnonzero(classes)
                taken = values[start : start + len(here)]
                coefficients[channel, block, here[: len(taken)]] = taken * unit
                start += len(here)
        modes.append(mode)
        kept.append(coefficients)
        before = mode
    return DecodedStep(np.array(modes), kept)


@dataclass(frozen=True)
class Rows:
    """Tables as lists, which a loop reads faster."""

    significance: list[list[list[int]]]
    last: list[list[int]]
    modes: list[list[int]]


def rows_of(tables: Tables) -> Rows:
    """Turn tables into lists."""
    return Rows(tables.significance.tolist(), tables.last.tolist(), tables.modes.tolist())


def noise(seed: int, size: int) -> Array:
    """Return numbers between -sqrt(3) and sqrt(3), so with an RMS of 1, that depend on the seed alone.

    Source: Steele, Lea and Flood 2014, SplitMix64.
    """
    with np.errstate(over="ignore"):
        state = (
            np.arange(1, size + 1, dtype=np.uint64) + np.uint64(seed & 0xFFFFFFFF) * np.uint64(1 << 20)
        ) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    drawn: Array = ((state >> np.uint64(11)).astype(np.float64) / (1 << 53) * 2 - 1) * np.sqrt(3)
    return drawn


def context_counts(selection: Selection, modes: Array, counts: Array) -> None:
    """Add to `[2, modes, CONTEXTS, 2]` how often a coefficient was not kept and kept in each context."""
    history = History.start(selection.classes[0].shape[0])
    for mode, classes in zip(modes.tolist(), selection.classes, strict=True):
        for channel, contexts, kept in frame_contexts(classes, history):
            found = np.bincount(contexts * 2 + kept, minlength=2 * CONTEXTS)
            counts[channel, mode] += found.reshape(CONTEXTS, 2)
