"""Paired differences: how much better one model is than another on the same tracks, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polyres.core.errors import ConfigError
from polyres.experiments.rows import ScoreRow
from polyres.metrics.aggregate import (
    MIN_TRACKS,
    bootstrap_interval,
    holm,
    permutation_test,
    verdict,
    wilcoxon_test,
)
from polyres.metrics.catalogue import METRICS

NO_SCORES = ("with ", "none", "shapley ")
"""Beginnings of the names of parts that are not compared with a model."""


@dataclass(frozen=True)
class PairedLine:
    """One model against another, over tracks.

    Args:
        model: what is judged.
        part: which of its resolutions listened.
        metric: name.
        mean_difference: mean over tracks of the difference of the tracks' means over stems.
        low: lower end of the 95 % interval over tracks.
        high: upper end.
        p_value: of Wilcoxon's signed-rank test, Holm-corrected over the lines of the metric; None for few tracks.
        tracks: how many tracks both have.
        p_permutation: of the sign-flip test of the mean, corrected alike; None for few tracks.
    """

    model: str
    part: str
    metric: str
    mean_difference: float
    low: float
    high: float
    p_value: float | None
    tracks: int
    p_permutation: float | None = None

    @property
    def verdict(self) -> str:
        """Word what the interval allows to say, for metrics of which more is better as for the others."""
        higher_is_better = METRICS.build(self.metric).direction == "higher"
        return verdict((self.low, self.high) if higher_is_better else (-self.high, -self.low), self.tracks)


def paired(rows: Sequence[ScoreRow], reference: str, seed: int = 0) -> list[PairedLine]:
    """Compare every model with one of them, track by track.

    Args:
        rows: scores of all; Shapley values are no scores and are left out.
        reference: name of the model to compare with, all of its resolutions listening.
        seed: of the resampling.

    Returns:
        A line per other model, part and metric, in the order in which they first appear.

    Raises:
        ConfigError: if the reference has no rows.
    """
    means = _track_means(rows)
    if not any(key[:2] == (reference, "all") for key in means):
        raise ConfigError(f"no scores of {reference!r} to compare with; it must be among the models that are scored")
    lines = []
    for (model, part, metric), values in means.items():
        base = means.get((reference, "all", metric), {})
        shared = [track for track in values if track in base]
        if (model, part) == (reference, "all") or not shared:
            continue
        first, second = ([scores[track] for track in shared] for scores in (values, base))
        low, high = bootstrap_interval(np.subtract(first, second), seed=seed)
        outcome = wilcoxon_test(first, second)
        p_value = p_permutation = None
        if len(shared) >= MIN_TRACKS:
            p_value, p_permutation = outcome.p_value, permutation_test(first, second, seed=seed).p_value
        lines.append(
            PairedLine(model, part, metric, outcome.difference, low, high, p_value, len(shared), p_permutation)
        )
    return _corrected(lines)


def _track_means(rows: Sequence[ScoreRow]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Average over the stems of every track."""
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row.value is not None and not row.part.startswith(NO_SCORES):
            of_track = values.setdefault((row.model, row.part, row.metric), {})
            of_track.setdefault(row.track, []).append(row.value)
    return {key: {track: float(np.mean(v)) for track, v in tracks.items()} for key, tracks in values.items()}


def _corrected(lines: Sequence[PairedLine]) -> list[PairedLine]:
    """Correct the p-values of each metric for how many lines it has."""
    result = list(lines)
    for metric in dict.fromkeys(line.metric for line in lines):
        tested = [index for index, line in enumerate(lines) if line.metric == metric and line.p_value is not None]
        adjusted = holm([lines[index].p_value or 0.0 for index in tested])
        flipped = holm([lines[index].p_permutation or 0.0 for index in tested])
        for index, p_value, p_permutation in zip(tested, adjusted.tolist(), flipped.tolist(), strict=True):
            result[index] = replace(lines[index], p_value=p_value, p_permutation=p_permutation)
    return result


def paired_markdown(lines: Sequence[PairedLine], reference: str) -> str:
    """Word paired differences as a Markdown table; both p-values are corrected by Holm's method within a metric."""
    table = [
        f"| model | resolutions | metric | against {reference} | 95 % | p Wilcoxon | p sign flips | tracks | verdict |",
        "|---" * 9 + "|",
    ]
    for line in lines:
        p_values = ["-" if p is None or math.isnan(p) else f"{p:.1e}" for p in (line.p_value, line.p_permutation)]
        interval = f"{line.low:+.2f} to {line.high:+.2f}"
        cells = [line.model, line.part, line.metric, f"{line.mean_difference:+.2f}", interval, *p_values]
        table.append("| " + " | ".join([*cells, str(line.tracks), line.verdict]) + " |")
    return "\n".join(table)
