"""Summarise scores: averages over tracks, and paired differences between models with their tests."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polyres.core.errors import ConfigError, InputError
from polyres.metrics.aggregate import (
    AGGREGATIONS,
    MIN_TRACKS,
    Aggregation,
    bootstrap_columns,
    bootstrap_interval,
    holm,
    over_tracks,
    permutation_test,
    verdict,
    wilcoxon_test,
)
from polyres.metrics.catalogue import METRICS
from polyres.study.evaluate.rows import ScoreRow

NO_SCORES = ("with ", "none", "shapley ")
"""Beginnings of the names of parts that are not compared with a model."""


@dataclass(frozen=True)
class PairedLine:
    """Paired comparison of two models over tracks."""

    model: str  # what is judged
    part: str  # which of its resolutions listened
    metric: str  # name
    mean_difference: float  # mean over tracks of the difference of the tracks' means over stems
    low: float  # lower end of the 95 % interval over tracks
    high: float  # upper end
    p_value: float | None  # of Wilcoxon's signed-rank test, Holm-corrected per metric; None for few tracks
    tracks: int  # how many tracks both have
    p_permutation: float | None = None  # of the sign-flip test of the mean, corrected alike; None for few tracks

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


Interval = tuple[float, float]
HIDDEN = ("with ", "none")
"""Beginnings of the names of parts that only serve Shapley values."""


@dataclass(frozen=True)
class SummaryLine:
    """One line of a table."""

    model: str  # name
    part: str  # which resolutions listened
    metric: str  # name
    by_source: dict[str, float]  # stem to its average over tracks; NaN where no track has a value
    intervals: dict[str, Interval]  # stem to its 95 % interval over tracks; NaN with fewer than two
    overall: float  # mean over the stems
    interval: Interval  # its 95 % interval over tracks
    tracks: int  # how many tracks were scored
    invalid_share: float | None  # share of windows without a value; None for metrics over whole tracks
    unit: str = "dB"  # of the metric


def summarise(
    rows: Sequence[ScoreRow], sources: Sequence[str], method: str = "median_of_medians", seed: int = 0
) -> list[SummaryLine]:
    """Average over tracks: of every model, part and metric, per stem.

    Args:
        rows: scores.
        sources: stems, in the order of the table.
        method: a name of `polyres.metrics.aggregate.AGGREGATIONS`: how windows and then tracks are averaged.
        seed: of the resampling of tracks.

    Returns:
        Lines in the order in which models, parts and metrics first appear.

    Raises:
        UnknownNameError: if there is no such method.
        InputError: if the method needs means over windows and the rows have none.
    """
    way = AGGREGATIONS.build(method)
    groups: dict[tuple[str, str, str], list[ScoreRow]] = {}
    for row in rows:
        groups.setdefault((row.model, row.part, row.metric), []).append(row)
    return [_line(key, group, sources, way, seed) for key, group in groups.items()]


def track_value(row: ScoreRow, way: Aggregation) -> float:
    """Return the score of a track under an aggregation; NaN where the row has no value."""
    if row.value is None:
        return math.nan
    if row.frames is None or way.over_windows == "median":
        return row.value
    if row.window_mean is None:
        raise InputError(
            f"the scores of {row.model} hold no means over windows; score again into another --out, "
            "or average by median_of_medians or mean_of_medians"
        )
    return row.window_mean


def _line(
    key: tuple[str, str, str], rows: Sequence[ScoreRow], sources: Sequence[str], way: Aggregation, seed: int
) -> SummaryLine:
    tracks = list(dict.fromkeys(row.track for row in rows))
    table = np.full((len(tracks), len(sources)), np.nan)
    places = {track: index for index, track in enumerate(tracks)}
    for row in rows:
        if row.source in sources:
            table[places[row.track], sources.index(row.source)] = track_value(row, way)
    values, overall = over_tracks(table, way.over_tracks)
    intervals = bootstrap_columns(table, way.over_tracks, seed=seed)
    windows = sum((row.frames or 0) + (row.frames_invalid or 0) for row in rows)
    return SummaryLine(
        *key,
        dict(zip(sources, values.tolist(), strict=True)),
        {source: (float(low), float(high)) for source, (low, high) in zip(sources, intervals[:-1], strict=True)},
        overall,
        (float(intervals[-1][0]), float(intervals[-1][1])),
        len(tracks),
        sum(row.frames_invalid or 0 for row in rows) / windows if windows else None,
        rows[0].unit,
    )


def shown_lines(lines: Sequence[SummaryLine]) -> list[SummaryLine]:
    """Leave out the parts that only serve Shapley values."""
    return [line for line in lines if not line.part.startswith(HIDDEN)]


def _cell(value: float | None, form: str) -> str:
    return "-" if value is None or math.isnan(value) else format(value, form)


def _range(interval: Interval, form: str) -> str:
    low, high = interval
    return "-" if math.isnan(low) else f"{low:{form}} to {high:{form}}"


def markdown(lines: Sequence[SummaryLine], sources: Sequence[str], intervals: bool = False) -> str:
    """Word a summary as a Markdown table; missing values are dashes.

    Args:
        lines: of the table.
        sources: stems, in the order of the columns.
        intervals: write the interval of every stem too, not that of their mean alone.

    Returns:
        The table, without a line break at its end.
    """
    head = ["model", "resolutions", "metric", *sources, "all", "all, 95 %", "tracks", "windows without value"]
    table = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in lines:
        form = ".4f" if line.unit == "sample" else ".2f"
        scores = [_cell(line.by_source[source], form) for source in sources]
        if intervals:
            pairs = zip(scores, sources, strict=True)
            scores = [f"{score} ({_range(line.intervals[source], form)})" for score, source in pairs]
        cells = [line.model, line.part, line.metric, *scores, _cell(line.overall, form), _range(line.interval, form)]
        table.append("| " + " | ".join([*cells, str(line.tracks), _cell(line.invalid_share, ".1%")]) + " |")
    return "\n".join(table)
