"""Compute objective metrics of the sounds in a study, excerpt by excerpt, to compare with the ratings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.files import read_audio
from polyres.core.errors import ConfigError, InputError
from polyres.core.whole_files import write_whole
from polyres.listen.design.files import ListenStudy, Page

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
        study: the study.
        folder: STUDY_DIR.
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
            means = {metric: _mean(values[0].numpy()) for metric, values in found.items()}
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
        path: file to write.

    Raises:
        OutputError: when it cannot be written.
    """
    return write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def _reference_of(study: ListenStudy, page: Page) -> str | None:
    """Return the open reference, or the hidden one where nothing is open."""
    hidden = next((one.id for one in study.conditions if one.role == "reference"), "")
    return page.reference or page.audio.get(hidden)


def _mean(values: Any) -> float | None:
    """Return a number of the track, or the median over its windows; None where there is none."""
    finite = np.asarray(values, dtype=np.float64)
    finite = finite[np.isfinite(finite)]
    return float(np.median(finite)) if finite.size else None
