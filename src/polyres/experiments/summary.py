"""Tables of scores: over tracks, per stem, with the share of windows that had no value."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from polyres.experiments.rows import ScoreRow

Average = Literal["mean", "median"]
AVERAGES: dict[Average, Callable[[list[float]], float]] = {"mean": statistics.fmean, "median": statistics.median}


@dataclass(frozen=True)
class SummaryLine:
    """One line of a table.

    Args:
        model: name.
        part: which resolutions listened.
        metric: name.
        by_source: stem to its average over tracks; NaN where no track has a value.
        overall: mean over the stems.
        tracks: how many tracks were scored.
        invalid_share: share of windows without a value; None for metrics over whole tracks.
    """

    model: str
    part: str
    metric: str
    by_source: dict[str, float]
    overall: float
    tracks: int
    invalid_share: float | None


def summarise(rows: Sequence[ScoreRow], sources: Sequence[str], average: Average = "median") -> list[SummaryLine]:
    """Average over tracks: of every model, part and metric, per stem.

    Args:
        rows: scores; each is a median over its track's windows, or a value of the whole track.
        sources: stems, in the order of the table.
        average: "median" (museval's headline: median of medians) or "mean" (mean over tracks).

    Returns:
        Lines in the order in which models, parts and metrics first appear.
    """
    keys = dict.fromkeys((row.model, row.part, row.metric) for row in rows)
    return [
        _line(key, [row for row in rows if (row.model, row.part, row.metric) == key], sources, average) for key in keys
    ]


def _line(key: tuple[str, str, str], rows: list[ScoreRow], sources: Sequence[str], average: Average) -> SummaryLine:
    by_source = {}
    for source in sources:
        values = [row.value for row in rows if row.source == source and row.value is not None]
        by_source[source] = AVERAGES[average](values) if values else math.nan
    known = [value for value in by_source.values() if not math.isnan(value)]
    windows = sum((row.frames or 0) + (row.frames_invalid or 0) for row in rows)
    invalid = sum(row.frames_invalid or 0 for row in rows)
    return SummaryLine(
        *key,
        by_source,
        statistics.fmean(known) if known else math.nan,
        len({row.track for row in rows}),
        invalid / windows if windows else None,
    )


def markdown(lines: Sequence[SummaryLine], sources: Sequence[str]) -> str:
    """Word a summary as a Markdown table; missing values are dashes."""

    def cell(value: float | None, form: str = ".2f") -> str:
        return "-" if value is None or math.isnan(value) else format(value, form)

    head = ["model", "resolutions", "metric", *sources, "all", "tracks", "windows without value"]
    table = ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for line in lines:
        scores = [cell(line.by_source[source]) for source in sources]
        cells = [line.model, line.part, line.metric, *scores, cell(line.overall), str(line.tracks)]
        table.append("| " + " | ".join([*cells, cell(line.invalid_share, ".1%")]) + " |")
    return "\n".join(table)
