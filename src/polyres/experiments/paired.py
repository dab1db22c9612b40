"""Paired differences: how much better one model is than another on the same tracks, and how sure that is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from polyres.core.errors import ConfigError
from polyres.experiments.rows import ScoreRow

RESAMPLES = 10_000
FEWEST_TRACKS = 6
"""With fewer tracks no signed-rank test can reach p < 0.05 on both sides, so none is made."""


@dataclass(frozen=True)
class PairedLine:
    """One model against another, over tracks.

    Args:
        model: what is judged.
        part: which of its resolutions listened.
        metric: name.
        mean_difference: mean over tracks of the difference of the tracks' means over stems; above 0 is better.
        low: lower end of the 95 % interval.
        high: upper end.
        p_value: of Wilcoxon's signed-rank test, Holm-corrected over the lines of the metric; None for few tracks.
        tracks: how many tracks both have.
    """

    model: str
    part: str
    metric: str
    mean_difference: float
    low: float
    high: float
    p_value: float | None
    tracks: int

    @property
    def verdict(self) -> str:
        """Word what the numbers allow to say."""
        if self.p_value is None or self.low <= 0 <= self.high or self.p_value >= 0.05:
            return "undecided"
        return "better" if self.mean_difference > 0 else "worse"


def paired(rows: Sequence[ScoreRow], reference: str, seed: int = 0) -> list[PairedLine]:
    """Compare every model with one of them, track by track.

    Args:
        rows: scores of all.
        reference: name of the model to compare with, all of its resolutions listening.
        seed: of the resampling.

    Returns:
        A line per other model, part and metric, in the order in which they first appear.

    Raises:
        ConfigError: if the reference has no rows.

    Source: percentile bootstrap over tracks (Efron 1979); Wilcoxon 1945; Holm 1979.
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
        differences = np.array([values[track] - base[track] for track in shared])
        low, high = _interval(differences, np.random.default_rng(seed))
        lines.append(PairedLine(model, part, metric, float(differences.mean()), low, high, None, len(shared)))
        if len(shared) >= FEWEST_TRACKS:
            p_value = float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0
            lines[-1] = _with_p(lines[-1], p_value)
    return _corrected(lines)


def _track_means(rows: Sequence[ScoreRow]) -> dict[tuple[str, str, str], dict[str, float]]:
    """Average over the stems of every track."""
    values: dict[tuple[str, str, str], dict[str, list[float]]] = {}
    for row in rows:
        if row.value is not None:
            of_track = values.setdefault((row.model, row.part, row.metric), {})
            of_track.setdefault(row.track, []).append(row.value)
    return {key: {track: float(np.mean(v)) for track, v in tracks.items()} for key, tracks in values.items()}


def _interval(differences: np.ndarray, rng: np.random.Generator) -> tuple[float, float]:
    chosen = rng.integers(len(differences), size=(RESAMPLES, len(differences)))
    low, high = np.percentile(differences[chosen].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def _with_p(line: PairedLine, p_value: float) -> PairedLine:
    return PairedLine(
        line.model, line.part, line.metric, line.mean_difference, line.low, line.high, p_value, line.tracks
    )


def _corrected(lines: Sequence[PairedLine]) -> list[PairedLine]:
    """Correct the p-values of each metric after Holm."""
    result = list(lines)
    for metric in dict.fromkeys(line.metric for line in lines):
        tested = [i for i, line in enumerate(lines) if line.metric == metric and line.p_value is not None]
        tested.sort(key=lambda i: lines[i].p_value or 0.0)
        highest = 0.0
        for rank, index in enumerate(tested):
            highest = max(highest, min(1.0, (lines[index].p_value or 0.0) * (len(tested) - rank)))
            result[index] = _with_p(lines[index], highest)
    return result


def paired_markdown(lines: Sequence[PairedLine], reference: str) -> str:
    """Word paired differences as a Markdown table."""
    table = [
        f"| model | resolutions | metric | against {reference} | 95 % | p (Holm) | tracks | verdict |",
        "|---" * 8 + "|",
    ]
    for line in lines:
        p_value = "-" if line.p_value is None or math.isnan(line.p_value) else f"{line.p_value:.1e}"
        interval = f"{line.low:+.2f} to {line.high:+.2f}"
        cells = [line.model, line.part, line.metric, f"{line.mean_difference:+.2f}", interval, p_value]
        table.append("| " + " | ".join([*cells, str(line.tracks), line.verdict]) + " |")
    return "\n".join(table)
