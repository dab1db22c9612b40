"""Counting how sparse spectra of music look, for the probabilities that code where coefficients are kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from polyres.models.wave_codec_layer import Plan, choose_modes, gathered, rotated
from polyres.ops.mdct import lapped, unlapped
from polyres.ops.sparse_contexts import LAST_WIDTH, MODE_WIDTH, Tables, shapes
from polyres.ops.sparse_floor import LEVEL_WIDTH, STEPS_DB, floor_power, floor_symbols, levels_of
from polyres.ops.sparse_range import PROBABILITY_ONE
from polyres.ops.sparse_step import Selection, context_counts, last_unit, select

Array = np.ndarray
KEPT_SHARE = 0.8
"""Coefficients kept of the scalars of a step; the rest says where they are."""


def fit_tables(waves: Iterable[Array], plan: Plan, prior: float = 4.0) -> Tables:
    """Count decisions in coded music.

    Args:
        waves: `[C, T]` each; what does not fill a step is left out.
        plan: how waves are coded; its tables are not used.
        prior: decisions that every context is taken to have seen, at the average of its row.

    Returns:
        Probabilities in units of 1 / 2048.
    """
    layout = plan.layout
    counts = {name: np.zeros((*size, 2)) for name, size in shapes(len(layout.splits)).items()}
    for wave in waves:
        steps = wave.shape[-1] // layout.step_samples
        if steps == 0:
            continue
        turned = rotated(wave[:, : steps * layout.step_samples].astype(np.float64))
        cut = turned.reshape(len(wave), steps, layout.step_samples)
        modes = [choose_modes(cut[:, step], layout, int(KEPT_SHARE * plan.budget)) for step in range(steps)]
        frames = gathered(lapped(turned, layout.block_sizes(np.concatenate(modes))), np.concatenate(modes), layout)
        thresholds, rest = [], []
        for step, own in enumerate(modes):
            own_frames = frames[step * layout.frames : (step + 1) * layout.frames]
            selection = select(own_frames, int(KEPT_SHARE * plan.budget))
            _count_step(selection, own, counts)
            thresholds.append(2.0**selection.log2)
            rest += [
                np.where(classes > 0, 0.0, frame) for frame, classes in zip(own_frames, selection.classes, strict=True)
            ]
        left_out = unlapped([frame[:, block] for frame in rest for block in range(frame.shape[1])])
        power = floor_power(left_out, plan.floor_block, plan.floor_bands).reshape(
            len(wave), steps, -1, plan.floor_bands
        )
        for step, unit in enumerate(thresholds):
            for channel in power[:, step]:
                for level, rough, expected in floor_symbols(levels_of(channel, unit, STEPS_DB[1])):
                    _count_symbol(counts["floor"][rough, expected], level, LEVEL_WIDTH)
    return Tables(*(_probabilities(counts[name], prior) for name in Tables._fields))


def _count_step(selection: Selection, modes: Array, counts: dict[str, Array]) -> None:
    """Add the decisions of a step."""
    if selection.count == 0:
        return
    context_counts(selection, modes, counts["significance"])
    before = 1 << MODE_WIDTH
    for mode, classes in zip(modes.tolist(), selection.classes, strict=True):
        _count_symbol(counts["modes"][before], mode, MODE_WIDTH)
        _count_symbol(counts["last"][mode], last_unit(classes), LAST_WIDTH)
        before = mode


def _count_symbol(row: Array, symbol: int, width: int) -> None:
    """Add the bits of a symbol to a row of nodes `[2**width, 2]`."""
    node = 1
    for place in reversed(range(width)):
        bit = symbol >> place & 1
        row[node, bit] += 1
        node = 2 * node + bit


def _probabilities(counts: Array, prior: float) -> Array:
    """Turn counts `[..., 2]` into probabilities of a 1; the average of a row stands in for what was seldom seen."""
    rows = counts.sum(axis=-2, keepdims=True) + 0.5
    expected = prior * rows / rows.sum(axis=-1, keepdims=True)
    share = (counts + expected)[..., 1] / (counts + expected).sum(axis=-1)
    return np.clip(np.round(PROBABILITY_ONE * share), 1, PROBABILITY_ONE - 1).astype(np.int64)
