"""Summarise a study: scores of arms over seeds, paired differences, styles, and costs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from polyres.metrics.catalogue import METRICS
from polyres.separation.training.run_table import Point
from polyres.study.evaluate.rows import ScoreRow, select
from polyres.study.paper.data import PaperStudy
from polyres.study.run.files import Cost, split_name

NO_STYLE = "all"
CURVE_ROWS = 4


@dataclass(frozen=True)
class ArmScore:
    """One arm by one metric.

    Args:
        arm: its name.
        metric: name.
        by_source: stem to the mean over seeds of the mean over tracks; NaN where no track has a value.
        overall: mean over the stems.
        deviation: standard deviation of `overall` over seeds; NaN for one seed.
        seeds: that were scored.
        tracks: number of them.
    """

    arm: str
    metric: str
    by_source: Mapping[str, float]
    overall: float
    deviation: float
    seeds: tuple[int, ...]
    tracks: int


def arm_scores(rows: Sequence[ScoreRow]) -> list[ArmScore]:
    """Average the scores of every arm and metric: over tracks, then over seeds.

    Args:
        rows: of a study; those of parts are left out.

    Returns:
        In the order in which arms and metrics first appear.

    Raises:
        InputError: if a row is of no run of a study.
    """
    found: dict[tuple[str, str], dict[int, list[ScoreRow]]] = {}
    for row in select(rows):
        arm, seed = split_name(row.model)
        found.setdefault((arm, row.metric), {}).setdefault(seed, []).append(row)
    return [_arm_score(*key, by_seed) for key, by_seed in found.items()]


def _arm_score(arm: str, metric: str, by_seed: Mapping[int, Sequence[ScoreRow]]) -> ArmScore:
    sources = list(dict.fromkeys(row.source for rows in by_seed.values() for row in rows))
    of_seeds = [{source: _mean(row.value for row in rows if row.source == source) for source in sources}
                for rows in by_seed.values()]  # fmt: skip
    by_source = {source: _mean(means[source] for means in of_seeds) for source in sources}
    wholes = [whole for whole in (_mean(means.values()) for means in of_seeds) if not math.isnan(whole)]
    tracks = {row.track for rows in by_seed.values() for row in rows}
    deviation = statistics.stdev(wholes) if len(wholes) > 1 else math.nan
    return ArmScore(arm, metric, by_source, _mean(wholes), deviation, tuple(by_seed), len(tracks))


def _mean(values: Iterable[float | None]) -> float:
    """Mean of what is there and finite; NaN of nothing."""
    kept = [value for value in values if value is not None and math.isfinite(value)]
    return statistics.fmean(kept) if kept else math.nan


def style_of(track: str) -> str:
    """Return the style of a track: the folder before its name, `all` where there is none."""
    style, slash, _ = track.partition("/")
    return style if slash else NO_STYLE


@dataclass(frozen=True)
class StyleScore:
    """One arm on the tracks of one style.

    Args:
        arm: its name.
        style: of the tracks.
        score: mean over the stems, over tracks and seeds.
        tracks: number of them.
    """

    arm: str
    style: str
    score: float
    tracks: int


def style_scores(rows: Sequence[ScoreRow], metric: str) -> list[StyleScore]:
    """Average a metric for every arm and style.

    Args:
        rows: of a study.
        metric: name.

    Returns:
        In the order in which arms and styles first appear.
    """
    groups: dict[tuple[str, str], list[ScoreRow]] = {}
    for row in rows:
        if row.metric == metric:
            groups.setdefault((split_name(row.model)[0], style_of(row.track)), []).append(row)
    found = []
    for (arm, style), group in groups.items():
        (score,) = arm_scores(group)
        found.append(StyleScore(arm, style, score.overall, score.tracks))
    return found


@dataclass(frozen=True)
class CostScore:
    """What an arm costs, means over its runs, beside how good it is.

    Args:
        arm: its name.
        parameters: of the model.
        macs_per_s: multiply-accumulates per second of audio; None where nobody counted.
        steps: optimiser steps.
        train_s: seconds of training.
        cpu_s: seconds that processors were busy with it.
        energy_wh: estimate; None where unknown.
        eval_s: seconds of separating and scoring.
        score: of the primary metric; NaN where there is none.
        on_front: no other arm is at least as good for fewer multiply-accumulates.
    """

    arm: str
    parameters: int
    macs_per_s: float | None
    steps: float
    train_s: float
    cpu_s: float
    energy_wh: float | None
    eval_s: float
    score: float
    on_front: bool = False


def cost_scores(rows: Sequence[ScoreRow], costs: Sequence[Cost], metric: str) -> list[CostScore]:
    """Put what every arm costs beside how good it is.

    Args:
        rows: of a study.
        costs: of its runs.
        metric: name of the one that decides.

    Returns:
        In the order in which the arms first appear among the costs.
    """
    scores = {score.arm: score.overall for score in arm_scores(rows) if score.metric == metric}
    lines = []
    for arm in dict.fromkeys(cost.arm for cost in costs):
        ours = [cost for cost in costs if cost.arm == arm]
        macs = _mean(cost.macs_per_s for cost in ours)
        energy = _mean(cost.energy_wh for cost in ours)
        lines.append(
            CostScore(
                arm,
                ours[0].parameters,
                None if math.isnan(macs) else macs,
                _mean(cost.steps for cost in ours),
                _mean(cost.train_s for cost in ours),
                _mean(cost.cpu_s for cost in ours),
                None if math.isnan(energy) else energy,
                _mean(cost.eval_s for cost in ours),
                scores.get(arm, math.nan),
            )
        )
    sign = 1 if METRICS.build(metric).direction == "higher" else -1
    return [replace(line, on_front=_is_on_front(line, lines, sign)) for line in lines]


def _is_on_front(line: CostScore, lines: Sequence[CostScore], sign: int) -> bool:
    """Say whether nothing is both cheaper and at least as good."""
    if line.macs_per_s is None or math.isnan(line.score):
        return False
    return not any(
        other.macs_per_s is not None and other.macs_per_s < line.macs_per_s and sign * (other.score - line.score) >= 0
        for other in lines
    )


@dataclass(frozen=True)
class CurveRow:
    """Best validation score of every arm at one place of the training.

    Args:
        at: seconds or steps.
        scores: arm to the mean over its seeds of the best nSDR in dB by then; None before its first validation.
    """

    at: float
    scores: Mapping[str, float | None]


def curves(study: PaperStudy, by: str = "seconds") -> list[CurveRow]:
    """Compare how far the arms were after equal seconds of training, or equal steps.

    Args:
        study: with the validations of its runs.
        by: "seconds" or "steps".

    Returns:
        Rows up to the end of the run that ended first; none where some arm was never validated.
    """
    place: Callable[[Point], float] = (lambda point: point.elapsed_s) if by == "seconds" else (lambda p: p.step)
    points = {arm.name: [run.validations() for run in arm.runs] for arm in study.arms}
    points = {arm: [one for one in runs if one] for arm, runs in points.items()}
    points = {arm: runs for arm, runs in points.items() if runs}
    if len(points) < 2:
        return []
    end = min(place(run[-1]) for runs in points.values() for run in runs)
    rows = []
    for number in range(1, CURVE_ROWS + 1):
        at = end * number / CURVE_ROWS
        best = {arm: [_best(run, place, at) for run in runs] for arm, runs in points.items()}
        rows.append(CurveRow(at, {arm: None if None in got else _mean(got) for arm, got in best.items()}))
    return [row for row in rows if any(score is not None for score in row.scores.values())]


def _best(points: Sequence[Point], place: Callable[[Point], float], at: float) -> float | None:
    return max((point.score for point in points if place(point) <= at * (1 + 1e-9)), default=None)
