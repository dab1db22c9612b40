"""The carrying layer of `polyres_wave`: a lapped transform of which the strongest coefficients are kept."""

from __future__ import annotations

import numpy as np

from polyres.ops.mdct import lapped, unlapped
from polyres.ops.sparse_contexts import Layout, Tables
from polyres.ops.sparse_step import DecodedStep, Frames, decode_step, encode_step, noise

Array = np.ndarray


def choose_modes(step: Array, layout: Layout, kept: int) -> Array:
    """Choose how each frame of a step is cut into blocks; a function of the samples of that step alone.

    Args:
        step: `[C, step_samples]`.
        layout: of the step.
        kept: about how many coefficients will be kept.

    Returns:
        Mode of every frame: that with the least error at the threshold where one more coefficient is as good anywhere.
    """
    spectra = []
    for split in layout.splits:
        size = layout.frame_samples // split
        blocks = np.stack(lapped(step, [size] * (layout.frames * split)), axis=1)  # [C, blocks, N]
        frames = blocks.reshape(len(step), layout.frames, -1).transpose(1, 0, 2)
        spectra.append(np.square(frames.reshape(layout.frames, -1)))
    energies = np.stack(spectra)  # [modes, frames, coefficients]
    place = energies[0].size - min(kept, energies[0].size)
    modes = np.full(layout.frames, len(layout.splits) // 2)
    for _ in range(3):
        flat = energies[modes, np.arange(layout.frames)].ravel()
        threshold = np.partition(flat, place)[place] if place < len(flat) else 0.0
        modes = np.minimum(energies, threshold).sum(axis=-1).argmin(axis=0)
    return modes


def rotated(wave: Array) -> Array:
    """Turn left and right into middle and side of the same energy, and back; one channel stays as it is."""
    if len(wave) != 2:
        return wave
    return np.stack([wave[0] + wave[1], wave[0] - wave[1]]) / np.sqrt(2)


def encode_layer(wave: Array, layout: Layout, tables: Tables, budget: int) -> Array:
    """Code a wave.

    Args:
        wave: `[C, T]`, T a multiple of the step.
        layout: of the steps.
        tables: probabilities.
        budget: scalars of a step.

    Returns:
        `[budget, N]` float32, one column per step, all of them numbers that float16 holds.
    """
    wave = rotated(wave.astype(np.float64))
    steps = wave.shape[-1] // layout.step_samples
    cut = wave.reshape(len(wave), steps, layout.step_samples)
    modes = [choose_modes(cut[:, step], layout, int(0.8 * budget)) for step in range(steps)]
    blocks = lapped(wave, layout.block_sizes(np.concatenate(modes)))
    frames = gathered(blocks, np.concatenate(modes), layout)
    columns = []
    for step in range(steps):
        own = frames[step * layout.frames : (step + 1) * layout.frames]
        columns.append(encode_step(own, modes[step], tables, budget))
    return np.stack(columns, axis=1)


def gathered(blocks: list[Array], modes: Array, layout: Layout) -> Frames:
    """Put the blocks of each frame together, `[C, blocks, N]`."""
    frames, start = [], 0
    for mode in modes:
        split = layout.splits[mode]
        frames.append(np.stack(blocks[start : start + split], axis=1))
        start += split
    return frames


def decode_layer(scalars: Array, layout: Layout, tables: Tables, fill: float) -> tuple[Array, Array, Array]:
    """Decode a wave.

    Args:
        scalars: `[budget, N]`, as `encode_layer` gives them.
        layout: of the steps.
        tables: the probabilities they were coded with.
        fill: amplitude of the noise in place of what was not kept, as a share of what was there.

    Returns:
        The wave `[C, T]` of the kept coefficients alone, that of the noise alone, which is added to it, and the
        threshold of each step `[N]`; float64.
    """
    steps = [decode_step(scalars[:, step], layout, tables) for step in range(scalars.shape[1])]
    kept = [frame for step in steps for frame in step.kept]
    floor = [frame for step, column in zip(steps, scalars.T, strict=True) for frame in _filled(step, column, fill)]
    carried, added = (rotated(unlapped(_blocks(frames))) for frames in (kept, floor))
    return carried, added, 2.0 ** scalars[0].astype(np.float64)


def _filled(step: DecodedStep, column: Array, fill: float) -> Frames:
    """Draw the noise of a step; the same numbers always give the same noise."""
    seed = int(np.abs(column).astype(np.float64).sum() * 64) if fill else 0
    draws = noise(seed, sum(frame.size for frame in step.floor))
    filled, start = [], 0
    for frame in step.floor:
        filled.append(fill * frame * draws[start : start + frame.size].reshape(frame.shape))
        start += frame.size
    return filled


def _blocks(frames: Frames) -> list[Array]:
    """Lay the blocks of all frames in a row, `[C, N]` each."""
    return [frame[:, block] for frame in frames for block in range(frame.shape[1])]
