"""Scores of one track: every metric by name, per stem."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import UnknownNameError
from polyres.metrics.bss_eval import bss_eval, framewise_sdr
from polyres.metrics.separation import nsdr

FRAME_METRICS = ("SDR", "ISR", "SIR", "SAR")
TRACK_METRICS = ("nSDR",)
KNOWN_METRICS = (*TRACK_METRICS, *FRAME_METRICS)
SILENT_PEAK = 1e-4
"""A stem that never gets louder than this (-80 dBFS) counts as absent."""


@dataclass(frozen=True)
class TrackScores:
    """Scores of one track.

    Args:
        sources: stems that the track has and that were scored.
        values: metric to one value per source; NaN where there is none.
        frames: frame metric to values `[S, frames]`, NaN or infinite where a frame has none.
    """

    sources: tuple[str, ...]
    values: dict[str, Tensor]
    frames: dict[str, Tensor]


def check_metrics(names: Sequence[str]) -> tuple[str, ...]:
    """Return metrics by their proper names, whatever the case.

    Raises:
        UnknownNameError: naming the nearest right name.
    """
    by_lower = {name.lower(): name for name in KNOWN_METRICS}
    for name in names:
        if name.lower() not in by_lower:
            raise UnknownNameError(unknown_name_message("metric", name, KNOWN_METRICS))
    return tuple(dict.fromkeys(by_lower[name.lower()] for name in names))


def present_stems(stems: Tensor) -> list[int]:
    """Return which of the stems `[S, C, T]` ever sound."""
    return torch.nonzero(stems.abs().amax(dim=(1, 2)) >= SILENT_PEAK).flatten().tolist()


def score_track(
    references: Tensor, estimates: Tensor, sources: Sequence[str], metrics: Sequence[str], sample_rate_hz: int
) -> TrackScores:
    """Score the estimates of one track.

    Stems that the track lacks are left out: BSSEval is undefined for them and would lose every window of the others.

    Args:
        references: true stems `[S, C, T]`.
        estimates: of the same shape.
        sources: names of the stems.
        metrics: names in `KNOWN_METRICS`.
        sample_rate_hz: windows last one second.

    Returns:
        The scores; frame metrics are summed up by the median over the windows that have a finite value.

    Raises:
        InputError: if shapes differ or samples are not finite.
    """
    kept = present_stems(references)
    names = tuple(sources[index] for index in kept)
    references, estimates = references[kept], estimates[kept]
    values: dict[str, Tensor] = {}
    frames: dict[str, Tensor] = {}
    if not kept:
        return TrackScores(names, {name: torch.empty(0) for name in metrics}, frames)
    if "nSDR" in metrics:
        values["nSDR"] = nsdr(references, estimates)
    wanted = [name for name in FRAME_METRICS if name in metrics]
    if wanted == ["SDR"]:
        frames["SDR"] = framewise_sdr(references, estimates, sample_rate_hz, sample_rate_hz)
    elif wanted:
        scores = bss_eval(references, estimates, sample_rate_hz, sample_rate_hz)
        frames = {name: scores[name] for name in wanted}
    for name, found in frames.items():
        values[name] = torch.where(found.isfinite(), found, torch.nan).nanmedian(dim=-1).values
    return TrackScores(names, {name: values[name] for name in metrics}, frames)
