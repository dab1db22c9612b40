"""Measure the sounds of a study by objective metrics, and correlate metrics with the ratings."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.files import read_audio
from polyres.core.errors import ConfigError, InputError
from polyres.core.json_text import json_value
from polyres.core.whole_files import write_whole
from polyres.listen.analysis.statistics import Array, Scores
from polyres.listen.design.files import ListenStudy, Page

_FEWEST = 4
Key = tuple[str, str, str]


@dataclass(frozen=True)
class Correlation:
    """One metric against the mean ratings of systems on items."""

    metric: str
    pearson: float  # linear correlation
    spearman: float  # of the ranks
    kendall: float  # tau-b
    low: float  # lower end of the 95 % interval of `spearman`, items drawn anew
    high: float  # upper end
    # linear correlation after the mean of every item is taken off both: does it rank systems on one excerpt?
    within: float
    points: int  # pairs of system and item
    values: tuple[tuple[str, str, float, float], ...]  # (item, condition id, rating, metric) of every point


def read_metric_rows(path: Path) -> list[dict[str, Any]]:
    """Read objective scores as `polyres evaluate` writes them.

    Args:
        path: JSON lines with model, track, source, metric and value each; "part" other than "all" is left out.

    Raises:
        InputError: if the file is missing or a line lacks one of these.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read ({error}); give scores.jsonl of polyres evaluate") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json_value(line, special=True)
            missing = {"model", "track", "source", "metric", "value"} - set(row)
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}, line {number}: no JSON; give scores.jsonl of polyres evaluate") from error
        if missing:
            raise InputError(f"{path}, line {number}: {sorted(missing)[0]!r} is missing")
        if row.get("part", "all") == "all" and row["value"] is not None:
            rows.append(row)
    return rows


def correlate(
    study: ListenStudy, scores: Scores, rows: Sequence[Mapping[str, Any]], *, seed: int, resamples: int = 1000
) -> list[Correlation]:
    """Correlate every metric with the mean ratings, point by point: one system on one item."""
    ratings = _mean_ratings(study, scores)
    found: dict[str, list[tuple[str, str, float, float]]] = {}
    for row in rows:
        for item, condition, rating in ratings.get((row["model"], row["track"], row["source"]), ()):
            # A row of polyres evaluate is of a whole song, one of polyres listen score of an excerpt.
            if row.get("item", item) != item:
                continue
            found.setdefault(row["metric"], []).append((item, condition, rating, float(row["value"])))
    if not found:
        labels = ", ".join(condition.label for condition in study.conditions if condition.role == "system")
        raise InputError(f"no objective score is of a system ({labels}), track and stem of the study; check the names")
    lines = [_correlation(name, points, seed, resamples) for name, points in found.items()]
    return sorted((line for line in lines if line.points >= _FEWEST), key=lambda line: -_size(line.spearman))


def _size(value: float) -> float:
    return -1.0 if math.isnan(value) else abs(value)


def _mean_ratings(study: ListenStudy, scores: Scores) -> dict[Key, list[tuple[str, str, float]]]:
    """Return (label, track, stem) -> (item, condition, mean rating): one or more, as a track may give many items."""
    ratings: dict[Key, list[tuple[str, str, float]]] = {}
    for condition in study.conditions:
        if condition.role != "system" or condition.id not in scores.conditions:
            continue
        table = scores.of(condition.id)
        for page in {page.item: page for page in study.pages}.values():
            if page.item not in scores.items:
                continue
            column = table[:, scores.items.index(page.item)]
            column = column[np.isfinite(column)]
            if column.size:
                key = (condition.label, page.track, page.stem)
                ratings.setdefault(key, []).append((page.item, condition.id, float(column.mean())))
    return ratings


def _correlation(name: str, points: Sequence[tuple[str, str, float, float]], seed: int, resamples: int) -> Correlation:
    from scipy import stats

    items = np.array([point[0] for point in points])
    ears, numbers = (np.array([point[column] for point in points]) for column in (2, 3))
    groups = [np.flatnonzero(items == item) for item in dict.fromkeys(items.tolist())]
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(resamples if len(groups) > 1 else 0):
        chosen = np.concatenate([groups[number] for number in generator.integers(len(groups), size=len(groups))])
        drawn.append(_pearson(stats.rankdata(ears[chosen]), stats.rankdata(numbers[chosen])))
    kept = np.array([value for value in drawn if math.isfinite(value)])
    low, high = np.quantile(kept, [0.025, 0.975]).tolist() if kept.size else (math.nan, math.nan)
    flat = _pearson(ears, numbers)
    kendall = math.nan if math.isnan(flat) else float(stats.kendalltau(ears, numbers).statistic)
    return Correlation(
        name,
        flat,
        _pearson(stats.rankdata(ears), stats.rankdata(numbers)),
        kendall,
        low,
        high,
        _pearson(_centred(ears, groups), _centred(numbers, groups)),
        len(points),
        tuple(points),
    )


def _centred(values: Array, groups: Sequence[Any]) -> Array:
    centred = values.copy()
    for group in groups:
        centred[group] -= values[group].mean()
    return centred


def _pearson(first: Array, second: Array) -> float:
    first, second = first - first.mean(), second - second.mean()
    size = math.sqrt(float(first @ first) * float(second @ second))
    return float(first @ second) / size if size > 1e-12 * max(1.0, first.size) else math.nan


SCORES_NAME = "scores.jsonl"
# These need all sources of the mixture, which a page does not hold.
_OF_SEVERAL = frozenset({"isr", "sir", "sar", "log_wmse"})


def metric_names() -> tuple[str, ...]:
    """Return the metrics that a reference and one sound are enough for."""
    from polyres.metrics.catalogue import METRICS

    return tuple(name for name in METRICS.names() if name not in _OF_SEVERAL)


def score_excerpts(
    study: ListenStudy, folder: Path, names: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """Measure every system on every page against the reference of the page, as loud as it is heard.

    Args:
        names: of metrics; none means all of `metric_names`.
        say: called with one line per page.

    Returns:
        Rows as `polyres evaluate` writes them, each with the `item` that it is of (none where a metric is undefined),
        and a line per sound that cannot be used.

    Raises:
        InputError: if no page has a reference, or no sound can be used.
        ConfigError: for a metric that one sound is not enough for.
    """
    from polyres.metrics.catalogue import METRICS, measure

    known = metric_names()
    chosen = tuple(names) or known
    for name in chosen:
        if METRICS.build(name).name not in known:
            raise ConfigError(f"{name} needs all sources of a mixture; on excerpts choose {', '.join(known)}")
    rows: list[dict[str, Any]] = []
    problems: list[str] = []
    systems = {condition.id: condition.label for condition in study.conditions if condition.role == "system"}
    seen: set[tuple[str, str]] = set()
    for page in study.pages:
        file = _reference_of(study, page)
        todo = [name for name in systems if name in page.audio and (page.item, name) not in seen]
        seen |= {(page.item, name) for name in todo}
        if file is None or not todo:
            continue
        if say is not None:
            say(page.item)
        for name in todo:
            try:
                found = measure(_scene(folder / file, folder / page.audio[name]), chosen)
            except InputError as error:
                problems.append(f"{systems[name]}, {page.item}: {error}")
                continue
            about = {"model": systems[name], "track": page.track, "source": page.stem, "item": page.item}
            means = {metric: _finite_mean(values[0].numpy()) for metric, values in found.items()}
            rows += [
                {**about, "metric": metric, "unit": METRICS.build(metric).unit, "value": value}
                for metric, value in means.items()
                if value is not None
            ]
    if not rows and problems:
        raise InputError(f"no sound of study {study.name!r} can be measured; the first: {problems[0]}")
    if not rows:
        raise InputError(f"study {study.name!r} has no page with a reference and a system; there is nothing to measure")
    return rows, problems


def _scene(reference: Path, sound: Path) -> Any:
    from polyres.metrics.catalogue import make_scene

    (true, rate_hz), (given, given_hz) = read_audio(reference), read_audio(sound)
    if given.shape != true.shape or given_hz != rate_hz:
        is_, of_ = (f"{w.shape[1]} samples x {w.shape[0]} at {hz} Hz" for w, hz in ((given, given_hz), (true, rate_hz)))
        raise InputError(f"{sound} has {is_}, its reference {of_}; make the study again")
    return make_scene(true[None], given[None], rate_hz)


def write_scores(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write scores as JSON lines, which `polyres listen analyse --metrics` reads.

    Args:
        rows: of `score_excerpts`.

    Raises:
        OutputError: when it cannot be written.
    """
    return write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _reference_of(study: ListenStudy, page: Page) -> str | None:
    """Return the open reference, or the hidden one where nothing is open."""
    hidden = next((one.id for one in study.conditions if one.role == "reference"), "")
    return page.reference or page.audio.get(hidden)


def _finite_mean(values: Any) -> float | None:
    """Return a number of the track, or the median over its windows; None where there is none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(np.median(finite)) if finite.size else None
