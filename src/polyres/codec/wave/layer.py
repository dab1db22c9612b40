"""The carrying layer of `polyres_wave`: a lapped transform of which the strongest coefficients are kept."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from polyres.codec.wave.floor import decode_floor, encode_floor, evened, floor_power, floor_wave
from polyres.codec.wave.step import SILENT_LOG2, Frames, Layout, Tables, decode_step, encode_step, noise, rows_of
from polyres.dsp.mdct import lapped, unlapped

Array = np.ndarray


def choose_modes(step: Array, layout: Layout, kept: int) -> Array:
    """Choose the block size of every frame of a step `[C, step_samples]` from its samples alone."""
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


@dataclass(frozen=True)
class Plan:
    """How waves are coded."""

    layout: Layout  # of the steps
    tables: Tables  # probabilities
    budget: int  # scalars of a step for what is kept
    floor_budget: int  # scalars of a step for the levels of the rest
    floor_block: int  # samples between levels
    floor_bands: int  # levels over frequency
    fill: Array  # amplitude of the noise in each band, as a share of what was not kept `[floor_bands]`
    even_n_fft: int  # window in which the noise is made to keep to its levels
    even_rounds: int  # how often; 0 leaves it as it is drawn

    @property
    def floor_shape(self) -> tuple[int, int, int]:
        """Levels of a step: channels, blocks, bands."""
        return self.layout.channels, self.layout.step_samples // self.floor_block, self.floor_bands


@dataclass(frozen=True)
class Carried:
    """A coded wave: numbers of the kept part `[budget, N]` and of the floor `[floor_budget, N]`, and their waves."""

    kept: Array
    floor: Array
    carried: Array


def encode_layer(wave: Array, plan: Plan) -> Carried:
    """Code a wave `[C, T]` of whole steps: one column of float16 numbers per step, and the kept part as decoded."""
    layout = plan.layout
    wave = rotated(wave.astype(np.float64))
    steps = wave.shape[-1] // layout.step_samples
    cut = wave.reshape(len(wave), steps, layout.step_samples)
    modes = [choose_modes(cut[:, step], layout, int(0.8 * plan.budget)) for step in range(steps)]
    frames = gathered(lapped(wave, layout.block_sizes(np.concatenate(modes))), np.concatenate(modes), layout)
    columns, decoded = [], []
    for step in range(steps):
        own = frames[step * layout.frames : (step + 1) * layout.frames]
        column, kept = encode_step(own, modes[step], plan.tables, plan.budget)
        columns.append(column)
        decoded += kept
    carried = unlapped(_blocks(decoded))
    power = floor_power(wave - carried, plan.floor_block, plan.floor_bands)
    power = power.reshape(len(wave), steps, -1, plan.floor_bands)
    floors = [
        encode_floor(power[:, step], 2.0 ** float(columns[step][0]), plan.tables.floor, plan.floor_budget)
        for step in range(steps)
    ]
    return Carried(np.stack(columns, axis=1), np.stack(floors, axis=1), rotated(carried))


def gathered(blocks: list[Array], modes: Array, layout: Layout) -> Frames:
    """Put the blocks of each frame together, `[C, blocks, N]`."""
    frames, start = [], 0
    for mode in modes:
        split = layout.splits[mode]
        frames.append(np.stack(blocks[start : start + split], axis=1))
        start += split
    return frames


def decode_layer(kept: Array, floor: Array, plan: Plan) -> tuple[Array, Array, Array]:
    """Decode a layer to the kept wave `[C, T]`, noise at the levels of the rest and thresholds `[N]` of the steps."""
    rows = rows_of(plan.tables)
    steps = [decode_step(column, plan.layout, rows) for column in kept.T]
    carried = unlapped(_blocks([frame for step in steps for frame in step.kept]))
    rms, draws = [], []
    for column, coded in zip(kept.T, floor.T, strict=True):
        rms.append(decode_floor(coded, plan.floor_shape, 2.0 ** float(column[0]), plan.tables.floor))
        seed = int(np.abs(column).astype(np.float64).sum() * 64)
        shape = (*plan.floor_shape[:2], plan.floor_block)
        draws.append(noise(seed, int(np.prod(shape))).reshape(shape))
    levels = plan.fill * np.concatenate(rms, axis=1)
    added = floor_wave(levels, plan.floor_block, np.concatenate(draws, axis=1))
    added = evened(carried, added, levels, plan.floor_block, plan.even_n_fft, plan.even_rounds)
    thresholds = np.where(kept[0] <= SILENT_LOG2, 0.0, 2.0 ** kept[0].astype(np.float64))
    return rotated(carried), rotated(added), thresholds


def _blocks(frames: Frames) -> list[Array]:
    """Lay the blocks of all frames in a row, `[C, N]` each."""
    return [frame[:, block] for frame in frames for block in range(frame.shape[1])]
