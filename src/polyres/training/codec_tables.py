"""Counting how sparse spectra of music look, for the probabilities that code where coefficients are kept."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from polyres.models.wave_codec_layer import choose_modes, gathered, rotated
from polyres.ops.mdct import lapped
from polyres.ops.sparse_contexts import (
    GROUPS,
    LAST_WIDTH,
    LEVEL_WIDTH,
    MODE_WIDTH,
    Layout,
    Tables,
    shapes,
)
from polyres.ops.sparse_range import PROBABILITY_ONE
from polyres.ops.sparse_step import context_counts, expected_level, frame_levels, last_unit, select

Array = np.ndarray
KEPT_SHARE = 0.8
"""Coefficients kept of the scalars of a step; the rest says where they are."""


def fit_tables(waves: Iterable[Array], layout: Layout, budget: int, prior: float = 4.0) -> Tables:
    """Count decisions in coded music.

    Args:
        waves: `[C, T]` each; what does not fill a step is left out.
        layout: of the steps.
        budget: scalars of a step.
        prior: decisions that every context is taken to have seen, at the average of its mode.

    Returns:
        Probabilities in units of 1 / 2048.
    """
    counts = {name: np.zeros((*size, 2)) for name, size in shapes(len(layout.splits)).items()}
    for wave in waves:
        steps = wave.shape[-1] // layout.step_samples
        turned = rotated(wave[:, : steps * layout.step_samples].astype(np.float64))
        cut = turned.reshape(len(wave), steps, layout.step_samples)
        modes = [choose_modes(cut[:, step], layout, int(KEPT_SHARE * budget)) for step in range(steps)]
        if not modes:
            continue
        frames = gathered(lapped(turned, layout.block_sizes(np.concatenate(modes))), np.concatenate(modes), layout)
        for step, own in enumerate(modes):
            _count_step(frames[step * layout.frames : (step + 1) * layout.frames], own, budget, counts)
    return Tables(*(_probabilities(counts[name], prior) for name in Tables._fields))


def _count_step(frames: list[Array], modes: Array, budget: int, counts: dict[str, Array]) -> None:
    """Add the decisions of a step."""
    selection = select(frames, int(KEPT_SHARE * budget))
    if selection.count == 0:
        return
    context_counts(selection, modes, counts["significance"])
    before = 1 << MODE_WIDTH
    for mode, scaled, classes in zip(modes.tolist(), selection.scaled, selection.classes, strict=True):
        _count_symbol(counts["modes"][before], mode, MODE_WIDTH)
        _count_symbol(counts["last"][mode], last_unit(classes), LAST_WIDTH)
        for levels in frame_levels(scaled, classes):
            for group, band in np.ndindex(GROUPS[scaled.shape[1]], levels.shape[1]):
                row = counts["levels"][expected_level(levels, group, band)]
                _count_symbol(row, int(levels[group, band]), LEVEL_WIDTH)
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
