"""Scores of a reconstruction, piece by piece, so that memory does not grow with the length of the file."""

from __future__ import annotations

import math
from statistics import median

from polyres.inference.codec_takes import Take
from polyres.metrics.reconstruction import invalid_reason, reconstruction_names, score

PIECE_S = 30.0
"""Longest piece that is scored at once; of several pieces the median counts."""

Scores = dict[str, float | None]


def score_takes(original: Take, decoded: Take, sample_rate_hz: int) -> Scores:
    """Compare a take with its original.

    Args:
        original: what was coded.
        decoded: what came back, of the same length.
        sample_rate_hz: of both.

    Returns:
        Number by name of metric: the median over pieces of at most 30 s, None where no piece has a finite one.
    """
    found: dict[str, list[float]] = {name: [] for name in reconstruction_names()}
    for start, stop in pieces(original.length_samples, sample_rate_hz):
        one, other = original.read(start, stop), decoded.read(start, stop)
        for name, value in score(one, other, sample_rate_hz, list(found)).items():
            if math.isfinite(value):
                found[name].append(value)
    return {name: median(values) if values else None for name, values in found.items()}


def pieces(length_samples: int, sample_rate_hz: int) -> list[tuple[int, int]]:
    """Cut a length into equal pieces of at most 30 s."""
    count = max(1, math.ceil(length_samples / (PIECE_S * sample_rate_hz)))
    edges = [length_samples * number // count for number in range(count + 1)]
    return [(edges[number], edges[number + 1]) for number in range(count)]


def invalid_metrics(phase_sensitive: bool) -> dict[str, str]:
    """Name the metrics that must not judge a codec, with the reason.

    Args:
        phase_sensitive: whether the codec follows the phase of the original.

    Returns:
        Metric to reason.
    """
    reasons = {name: invalid_reason(name, not phase_sensitive) for name in reconstruction_names()}
    return {name: reason for name, reason in reasons.items() if reason is not None}
