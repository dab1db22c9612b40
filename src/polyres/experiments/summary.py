"""Tables of scores: over tracks, per stem, with intervals and the share of windows that had no value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from polyres.core.errors import InputError
from polyres.experiments.rows import ScoreRow
from polyres.metrics.aggregate import AGGREGATIONS, Aggregation, bootstrap_columns, over_tracks

Interval = tuple[float, float]
HIDDEN = ("with ", "none")
"""Beginnings of the names of parts that only serve Shapley values."""


@dataclass(frozen=True)
class SummaryLine:
    """One line of a table.

    Args:
        model: name.
        part: which resolutions listened.
        metric: name.
        by_source: stem to its average over tracks; NaN where no track has a value.
        intervals: stem to its 95 % interval over tracks; NaN with fewer than two.
        overall: mean over the stems.
        interval: its 95 % interval over tracks.
        tracks: how many tracks were scored.
        invalid_share: share of windows without a value; None for metrics over whole tracks.
        unit: of the metric.
    """

    model: str
    part: str
    metric: str
    by_source: dict[str, float]
    intervals: dict[str, Interval]
    overall: float
    interval: Interval
    tracks: int
    invalid_share: float | None
    unit: str = "dB"


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
    """Return the score of a track as a way of aggregation has it.

    Args:
        row: the score.
        way: says whether windows are averaged by their median or their mean.

    Returns:
        NaN where the row has no value.

    Raises:
        InputError: if the mean over windows is wanted and was not kept.
    """
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
