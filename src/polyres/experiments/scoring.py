"""Scores of one track: every metric by name, per stem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyres.metrics.catalogue import METRICS, make_scene, measure

FOR_ABSENT = "log_wmse"
"""The metric that means something for a stem that the track lacks."""

SILENT_PEAK = 1e-4
"""A stem that never gets louder than this (-80 dBFS) counts as absent."""


@dataclass(frozen=True)
class TrackScores:
    """Scores of one track.

    Args:
        sources: stems that the track has.
        values: metric to source to its score over the track; NaN where it has none.
        frames: windowed metric to values `[S, frames]` of `sources`, NaN or infinite where a window has none.
    """

    sources: tuple[str, ...]
    values: dict[str, dict[str, float]]
    frames: dict[str, Tensor]


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return metrics by their names in the catalogue, whatever the case.

    Raises:
        UnknownNameError: naming the nearest right name.
    """
    found = [METRICS.build(name.lower()).name for name in names]
    return tuple(dict.fromkeys(found))


def present_stems(stems: Tensor) -> list[int]:
    """Return which of the stems `[S, C, T]` ever sound."""
    return torch.nonzero(stems.abs().amax(dim=(1, 2)) >= SILENT_PEAK).flatten().tolist()


def score_track(
    references: Tensor, estimates: Tensor, sources: Sequence[str], metrics: Sequence[str], sample_rate_hz: int
) -> TrackScores:
    """Score the estimates of one track.

    Stems that the track lacks are left out: BSSEval is undefined for them and would lose every window of the others.
    Only log_wmse is for them too.

    Args:
        references: true stems `[S, C, T]`.
        estimates: of the same shape.
        sources: names of the stems.
        metrics: names in `METRICS`.
        sample_rate_hz: of all.

    Returns:
        The scores; windowed metrics are summed up by the median over the windows that have a finite value.

    Raises:
        InputError: if shapes differ or samples are not finite.
    """
    kept = present_stems(references)
    names = tuple(sources[index] for index in kept)
    usual = [name for name in metrics if name != FOR_ABSENT]
    found: dict[str, tuple[Sequence[str], Tensor]] = {}
    if usual and kept:
        mixture = references.sum(dim=0)
        scene = make_scene(references[kept], estimates[kept], sample_rate_hz, mixture)
        found = {name: (names, values) for name, values in measure(scene, usual).items()}
    if FOR_ABSENT in metrics:
        scene = make_scene(references, estimates, sample_rate_hz)
        found[FOR_ABSENT] = (sources, measure(scene, [FOR_ABSENT])[FOR_ABSENT])
    values: dict[str, dict[str, float]] = {name: {} for name in metrics}
    frames: dict[str, Tensor] = {}
    for name, (stems, scores) in found.items():
        if scores.dim() == 2:
            frames[name] = scores
            scores = _median_of_windows(scores)
        values[name] = dict(zip(stems, scores.tolist(), strict=True))
    return TrackScores(names, values, frames)


def _median_of_windows(scores: Tensor) -> Tensor:
    """Take the median over the finite windows, as museval does; +inf where every window with a score is perfect."""
    finite = torch.where(scores.isfinite(), scores, torch.nan).nanmedian(dim=-1).values
    perfect = (scores == torch.inf).any(dim=-1) & finite.isnan()
    return finite.masked_fill(perfect, torch.inf)
