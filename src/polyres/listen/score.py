"""Objective metrics of the very sounds that listeners hear, excerpt by excerpt, to set beside their ratings."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from polyres.core.errors import ConfigError, InputError
from polyres.core.whole_files import write_whole
from polyres.data.audio import read_audio
from polyres.listen.study_files import ListenStudy, Page

SCORES_NAME = "scores.jsonl"
# These need all sources of the mixture, which a page does not hold.
_OF_SEVERAL = frozenset({"isr", "sir", "sar", "log_wmse"})


def metric_names() -> tuple[str, ...]:
    """Return the metrics that a reference and one sound are enough for."""
    from polyres.metrics.catalogue import METRICS

    return tuple(name for name in METRICS.names() if name not in _OF_SEVERAL)


def score_excerpts(
    study: ListenStudy, folder: Path, names: Sequence[str] = (), say: Callable[[str], None] | None = None
) -> list[dict[str, Any]]:
    """Measure every system on every page against the reference of the page, as loud as it is heard.

    Args:
        study: the study.
        folder: STUDY_DIR.
        names: of metrics; none means all of `metric_names`.
        say: called with one line per page.

    Returns:
        Rows as `polyres evaluate` writes them, each with the `item` that it is of; no row where a metric is undefined.

    Raises:
        InputError: if no page has a reference, or a sound cannot be used.
        ConfigError: for a metric that one sound is not enough for.
    """
    from polyres.metrics.catalogue import METRICS, make_scene, measure

    known = metric_names()
    chosen = tuple(names) or known
    for name in chosen:
        if METRICS.build(name).name not in known:
            raise ConfigError(f"{name} needs all sources of a mixture; on excerpts choose {', '.join(known)}")
    rows = []
    systems = [condition for condition in study.conditions if condition.role == "system"]
    for page in {page.item: page for page in study.pages}.values():
        file = _reference_of(study, page)
        if file is None:
            continue
        if say is not None:
            say(page.item)
        true, rate_hz = read_audio(folder / file)
        for condition in (one for one in systems if one.id in page.audio):
            given, _ = read_audio(folder / page.audio[condition.id])
            scene = make_scene(true[None], given[None], rate_hz)
            for name, values in measure(scene, chosen).items():
                value = _mean(values[0].numpy())
                if value is not None:
                    about = {"model": condition.label, "track": page.track, "source": page.stem, "item": page.item}
                    rows.append({**about, "metric": name, "unit": METRICS.build(name).unit, "value": value})
    if not rows:
        raise InputError(f"study {study.name!r} has no page with a reference and a system; there is nothing to measure")
    return rows


def write_scores(rows: Sequence[dict[str, Any]], path: Path) -> Path:
    """Write scores as JSON lines, which `polyres listen analyse --metrics` reads.

    Args:
        rows: of `score_excerpts`.
        path: file to write.

    Returns:
        The file.

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
