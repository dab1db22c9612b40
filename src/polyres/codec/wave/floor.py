"""Code the noise floor of a sparse spectrum: levels of bands over time as integers of 12 bits."""

from __future__ import annotations

import itertools
import math

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.codec.wave.arithmetic_coding import WORD_HALF, BitDecoder, encode_bits, symbol_bits
from polyres.core.errors import InputError
from polyres.dsp.mdct import lapped, unlapped
from polyres.dsp.stft import istft, stft

Array = np.ndarray

LEVEL_WIDTH = 5
NO_LEVEL = (1 << LEVEL_WIDTH) - 1
"""Level of a band with nothing in it."""
STEPS_DB = (3.0, 4.0, 6.0, 9.0)
"""Distances between levels; the finest that fits is taken."""
HEADER_WIDTH = 3
"""Bits that say which distance: 1 to 4; anything else stands for no levels."""
_EVEN = [1024] * (1 << HEADER_WIDTH)
ROUGHNESS = 4
"""Classes of how far the levels already known differ."""
MEAN_POWER = 0.25
"""Power to which powers are raised before they are averaged; 1 is the plain mean, 0 the geometric one."""
_NOISE_MEAN = 2**MEAN_POWER * math.gamma(MEAN_POWER + 0.5) / math.sqrt(math.pi)
"""What that mean is for normally distributed coefficients with a variance of 1."""
UNIFORM = 0.8
"""Share of bands of equal width in the spacing of bands; the rest grow wider with frequency."""


def floor_table_shape() -> tuple[int, int, int]:
    """Shape of the table: roughness, expected level, node."""
    return ROUGHNESS, NO_LEVEL + 1, NO_LEVEL + 1


def floor_edges(bins: int, bands: int) -> Array:
    """Return the borders of the bands `[bands + 1]`, from 0 to `bins`; each is at least one bin wide."""
    if bands > bins:
        raise InputError(f"{bands} bands do not fit into {bins} bins")
    place = np.arange(bands + 1) / bands
    edges = np.round(bins * (UNIFORM * place + (1 - UNIFORM) * place**2)).astype(np.int64)
    return np.maximum(edges, np.arange(bands + 1))


def floor_power(rest: Array, block: int, bands: int) -> Array:
    """Measure the robust mean power `[C, T / block, bands]` of what is left out, `[C, T]`."""
    roots = np.abs(np.stack(lapped(rest, [block] * (rest.shape[-1] // block)), axis=1)) ** (2 * MEAN_POWER)
    pairs = itertools.pairwise(floor_edges(block, bands))
    means = np.stack([roots[..., low:high].mean(axis=-1) for low, high in pairs], axis=-1)
    found: Array = (means / _NOISE_MEAN) ** (1 / MEAN_POWER)
    return found


def floor_wave(rms: Array, block: int, draws: Array) -> Array:
    """Make noise `[C, blocks * block]` of the RMS levels `[C, blocks, bands]` from unit draws `[C, blocks, block]`."""
    widths = np.diff(floor_edges(block, rms.shape[-1]))
    spectrum = np.repeat(rms, widths, axis=-1) * draws
    return unlapped([spectrum[:, place] for place in range(rms.shape[1])])


def levels_of(power: Array, unit: float, step_db: float) -> Array:
    """Round powers to levels: 0 is the square of the unit, each level `step_db` below; 31 is nothing."""
    with np.errstate(divide="ignore"):
        below_db = -10 * np.log10(power / unit**2)
    return np.clip(np.round(below_db / step_db), 0, NO_LEVEL).astype(np.int64)


def rms_of(levels: Array, unit: float, step_db: float) -> Array:
    """RMS that levels stand for."""
    return np.where(levels == NO_LEVEL, 0.0, unit * 10 ** (-levels * step_db / 20))


def floor_symbols(levels: Array) -> list[tuple[int, int, int]]:
    """Symbols of levels `[blocks, bands]` with their contexts: level, roughness, expected level."""
    found = []
    above = np.full(levels.shape[1], NO_LEVEL // 2)
    for row in levels:
        known, values = above.tolist(), row.tolist()
        left = corner = known[0]
        for band, value in enumerate(values):
            right = known[min(band + 1, len(known) - 1)]
            here = known[band]
            expected = min(max((2 * here + 2 * left - corner + right + 2) // 4, 0), NO_LEVEL)
            found.append((value, min(abs(here - left), ROUGHNESS - 1), expected))
            left, corner = value, here
        above = row
    return found


def encode_floor(power: Array, unit: float, table: Array, budget: int) -> Array:
    """Code the levels of a step as `[budget]` integers: coarser, then constant, then none where the budget ends."""
    rows = table.tolist()
    smooth = np.broadcast_to(power.mean(axis=1, keepdims=True), power.shape)
    out = np.full(budget, -WORD_HALF, dtype=np.float32)
    for source in (power, smooth):
        for index, step_db in enumerate(STEPS_DB):
            bits, probabilities = symbol_bits(index + 1, HEADER_WIDTH, _EVEN)
            for channel in source:
                for level, rough, expected in floor_symbols(levels_of(channel, unit, step_db)):
                    more, of_each = symbol_bits(level, LEVEL_WIDTH, rows[rough][expected])
                    bits += more
                    probabilities += of_each
            words = encode_bits(bits, probabilities)
            if len(words) <= budget:
                out[: len(words)] = words
                return out
    return out  # which reads as an index that stands for no levels


def decode_floor(scalars: Array, shape: tuple[int, int, int], unit: float, table: Array) -> Array:
    """Decode the levels of a step to RMS values `[C, blocks, bands]`."""
    words = np.clip(np.nan_to_num(scalars), -WORD_HALF, WORD_HALF - 1)
    decoder, rows = BitDecoder(words.tolist()), table.tolist()
    index = decoder.symbol(HEADER_WIDTH, _EVEN)
    if not 1 <= index <= len(STEPS_DB):
        return np.zeros(shape)
    step_db = STEPS_DB[index - 1]
    levels = np.zeros(shape, dtype=np.int64)
    for channel in range(shape[0]):
        known = [NO_LEVEL // 2] * shape[2]
        for block in range(shape[1]):
            values: list[int] = []
            left = corner = known[0]
            for band, here in enumerate(known):
                right = known[min(band + 1, len(known) - 1)]
                expected = min(max((2 * here + 2 * left - corner + right + 2) // 4, 0), NO_LEVEL)
                left = decoder.symbol(LEVEL_WIDTH, rows[min(abs(here - left), ROUGHNESS - 1)][expected])
                corner = here
                values.append(left)
            levels[channel, block] = known = values
    return rms_of(levels, unit, step_db)


OVERLAP = 8
"""Windows over every sample; with fewer, the spectrum strays between them."""
_NOTHING = 1e-30


def level_magnitude(rms: Array, block: int, n_fft: int) -> Tensor:
    """Interpolate levels `[C, blocks, bands]` in dB to magnitudes `[C, n_fft / 2, frames]` in the scale of `stft`."""
    widths = np.diff(floor_edges(block, rms.shape[-1]))
    bins = np.repeat(rms, widths, axis=-1).transpose(0, 2, 1)
    log = torch.from_numpy(np.log(np.maximum(bins, _NOTHING)))
    frames = rms.shape[1] * block * OVERLAP // n_fft
    smooth = F.interpolate(log[:, None], (n_fft // 2, frames), mode="bilinear", align_corners=False)[:, 0].exp()
    window_power = 3 / 8  # mean square of a Hann window
    found: Tensor = smooth.where(smooth > 2 * _NOTHING, 0.0) * window_power**0.5
    return found


def evened(carried: Array, noise: Array, rms: Array, block: int, n_fft: int, rounds: int) -> Array:
    """Change noise `[C, T]` in `rounds` steps until `carried + noise` has the likely magnitudes.

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
