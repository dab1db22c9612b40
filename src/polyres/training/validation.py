"""Scores of a separator on whole tracks: cut into segments, separate, join, compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from polyres.metrics.separation import nsdr

SILENT_PEAK = 1e-4
"""A stem that never gets louder than this (-80 dBFS) counts as absent."""

ACTIVE_LEVEL_DB = -50.0
"""A second of a stem below this level, relative to the stem's loudest second, counts as a rest."""


@dataclass(frozen=True)
class Cutting:
    """How a track is cut: segment length and overlap in samples, segments per forward pass."""

    segment_samples: int
    overlap: float = 0.0
    batch_size: int = 4


def separate_in_segments(forward: Callable[[Tensor], Tensor], mix: Tensor, cutting: Cutting) -> Tensor:
    """Separate a track of any length; overlapping segments are cross-faded with a triangle.

    Args:
        forward: maps mixtures `[B, C, T]` to stems `[B, S, C, T]`.
        mix: the whole mixture `[C, T]`.
        cutting: segment length, overlap, batch size.

    Returns:
        The stems `[S, C, T]`.
    """
    size, length = cutting.segment_samples, mix.shape[-1]
    stride = max(round(size * (1 - cutting.overlap)), 1)
    starts = list(range(0, max(length - (size - stride), 1), stride))
    padded = torch.nn.functional.pad(mix, (0, starts[-1] + size - length))
    ramp = torch.arange(1, size + 1, dtype=mix.dtype)
    fade = torch.minimum(ramp, ramp.flip(0)) if stride < size else torch.ones(size, dtype=mix.dtype)
    total = torch.zeros(1)
    weight = torch.zeros(padded.shape[-1], dtype=mix.dtype)
    for first in range(0, len(starts), cutting.batch_size):
        group = starts[first : first + cutting.batch_size]
        stems = forward(torch.stack([padded[:, start : start + size] for start in group])).float().cpu()
        if first == 0:
            total = torch.zeros(*stems.shape[1:3], padded.shape[-1], dtype=mix.dtype)
        for start, piece in zip(group, stems, strict=True):
            total[..., start : start + size] += piece * fade
            weight[start : start + size] += fade
    return (total / weight)[..., :length]


def most_active_excerpt(stems: Tensor, length_samples: int, sample_rate_hz: int) -> Tensor:
    """Cut the excerpt in which most stems play for most of the time; the most central one of equals.

    Args:
        stems: whole track `[S, C, T]`.
        length_samples: of the excerpt; a shorter track is returned whole.
        sample_rate_hz: of the audio.

    Returns:
        A view `[S, C, min(T, length_samples)]`.
    """
    second = sample_rate_hz
    length = stems.shape[-1]
    num_seconds = length // second
    window = -(-length_samples // second)
    if length <= length_samples or num_seconds <= window:
        start = max((length - length_samples) // 2, 0)
        return stems[..., start : start + length_samples]
    levels = stems[..., : num_seconds * second].unflatten(-1, (num_seconds, second)).square().mean(dim=(1, 3))  # [S, N]
    threshold = levels.amax(dim=1, keepdim=True) * 10 ** (ACTIVE_LEVEL_DB / 10)
    playing = ((levels > threshold) & (levels > SILENT_PEAK**2)).sum(dim=0).double()
    sums = torch.nn.functional.pad(playing.cumsum(0), (1, 0))
    counts = sums[window:] - sums[:-window]
    best = torch.nonzero(counts == counts.max()).flatten()
    start = int(best[(best - (num_seconds - window) / 2).abs().argmin()]) * second
    return stems[..., start : start + length_samples]


def score_tracks(
    forward: Callable[[Tensor], Tensor], tracks: Mapping[str, Tensor], sources: Sequence[str], cutting: Cutting
) -> dict[str, float]:
    """Score a separator on tracks.

    Args:
        forward: maps mixtures `[B, C, T]` to stems `[B, S, C, T]`.
        tracks: true stems `[S, C, T]` by name; their sum is the mixture.
        sources: names of the stems.
        cutting: how tracks are cut.

    Returns:
        `score`: mean over the tracks of the mean nSDR over the stems a track has, in dB; and under the name of each
        source its mean over the tracks that have it.
    """
    by_source: dict[str, list[float]] = {source: [] for source in sources}
    means: list[float] = []
    for stems in tracks.values():
        values = nsdr(stems, separate_in_segments(forward, stems.sum(dim=0), cutting))
        there = stems.abs().amax(dim=(1, 2)) >= SILENT_PEAK
        for source, value, present in zip(sources, values.tolist(), there.tolist(), strict=True):
            if present:
                by_source[source].append(value)
        if there.any():
            means.append(values[there].mean().item())
    if not means:
        return {}
    return {"score": sum(means) / len(means), **{s: sum(v) / len(v) for s, v in by_source.items() if v}}
