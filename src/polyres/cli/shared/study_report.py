"""Tables of a study: what would run, and what came out."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from polyres.core.tables import MISSING, Table, number, whole
from polyres.metrics.catalogue import METRICS
from polyres.study.paper.data import read_paper_study
from polyres.study.paper.tables import against_reference, differences_table
from polyres.study.plan.arms import Plan, Run, planned_steps
from polyres.study.plan.config import StudyConfig
from polyres.study.run.files import Study, read_costs, read_rows, read_study
from polyres.study.run.state import state_of
from polyres.study.run.summary import (
    ArmScore,
    CostScore,
    CurveRow,
    StyleScore,
    arm_scores,
    cost_scores,
    curves,
    style_scores,
)


def _short(value: Any, limit: int = 48) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def _settings(settings: Mapping[str, Any]) -> str:
    """Word the settings of an arm in one cell."""
    return ", ".join(f"{key}={_short(value)}" for key, value in settings.items()) or "as the recipe"


def studies_table(studies: Sequence[tuple[Path, StudyConfig]]) -> Table:
    """Return a row per study file."""
    rows: list[tuple[str, ...]] = [
        (path.stem, str(len(config.arms)), str(len(config.arms) * len(config.seeds)), config.question)
        for path, config in studies
    ]
    # The question comes last, because it is long; the counts before it are words to the table.
    return Table("Studies", ("study", "arms", "runs", "question"), rows, text_columns=4)


def _length(run: Run) -> str:
    steps, seconds = planned_steps(run.config), run.config.time_budget_s
    if steps is not None:
        return f"{steps} steps"
    return MISSING if seconds is None else f"{seconds:g} s"


def plan_tables(plan: Plan, folder: Path, parameters: Mapping[str, int] | None) -> list[Table]:
    """Return the arms of a study with their settings, and the state of its runs."""
    study = plan.study
    arms: list[tuple[str, ...]] = [(arm.name, _settings(arm.settings)) for arm in study.arms]
    note = f"all arms: {_settings(study.common)}, over {study.base}"
    rows: list[tuple[str, ...]] = []
    for run in plan.runs:
        size = MISSING if parameters is None else whole(parameters[run.arm])
        rows.append((run.name, state_of(plan, run, folder), _length(run), size, run.config.fingerprint()))
    return [
        Table(f"{study.title}: {study.question}", ("arm", "settings"), arms, 2, (note,)),
        Table(f"Runs in {folder}", ("run", "state", "length", "parameters", "fingerprint"), rows, text_columns=2),
    ]


def plan_json(plan: Plan, folder: Path, parameters: Mapping[str, int] | None) -> dict[str, Any]:
    """Return what `plan_tables` shows as JSON would hold it."""
    runs = [
        {
            "run": run.name,
            "state": state_of(plan, run, folder),
            "steps": planned_steps(run.config),
            "seconds": run.config.time_budget_s,
            "parameters": None if parameters is None else parameters[run.arm],
            "fingerprint": run.config.fingerprint(),
        }
        for run in plan.runs
    ]
    return {"study": asdict(plan.study), "runs": runs}


def report_tables(folder: Path) -> list[Table]:
    """Return the tables of what the study in a folder came to so far."""
    study, rows, read = read_study(folder), read_rows(folder), read_paper_study(folder)
    tables = [_scores_table(study, [s for s in arm_scores(rows) if s.metric == metric]) for metric in study.metrics]
    if study.reference is not None:
        tables.append(differences_table([read], study.metrics).table)
    tables.append(_costs_table(study, cost_scores(rows, read_costs(folder), study.primary), read_costs(folder)))
    tables.append(_styles_table(study, style_scores(rows, study.primary)))
    tables += [_curve_table(study, curves(read, by), by) for by in ("seconds", "steps")]
    return [table for table in tables if table.rows]


def _scores_table(study: Study, scores: Sequence[ArmScore]) -> Table:
    metric = METRICS.build(scores[0].metric if scores else study.primary)
    sources = list(dict.fromkeys(source for score in scores for source in score.by_source))
    rows: list[tuple[str, ...]] = []
    for score in scores:
        cells = [number(score.by_source.get(source)) for source in sources]
        rows.append(
            (score.arm, *cells, number(score.overall), number(score.deviation), str(len(score.seeds)),
             str(score.tracks))
        )  # fmt: skip
    better = f"{metric.direction} is better" if metric.direction else ""
    title = f"{study.title}: {metric.name} in {metric.unit}, {better}"
    return Table(title, ("arm", *sources, "all", "± seeds", "seeds", "tracks"), rows)


def _costs_table(study: Study, lines: Sequence[CostScore], costs: Sequence[Any]) -> Table:
    rows: list[tuple[str, ...]] = []
    for line in lines:
        macs = MISSING if line.macs_per_s is None else number(line.macs_per_s / 1e9)
        took = (number(line.train_s, 0), number(line.cpu_s, 0), number(line.energy_wh), number(line.eval_s, 0))
        front = "*" if line.on_front else ""
        rows.append((line.arm, whole(line.parameters), macs, whole(line.steps), *took, number(line.score), front))
    watts = ", ".join(dict.fromkeys(f"{cost.watts_per_core:g}" for cost in costs))
    note = f"Means over seeds. Energy is an estimate: {watts} W per busy core. * no arm with fewer MACs is as good."
    header = ("arm", "parameters", "GMAC/s", "steps", "train s", "CPU s", "Wh", "score s", study.primary, "front")
    return Table("Cost and quality", header, rows, notes=(note,))


def _styles_table(study: Study, scores: Sequence[StyleScore]) -> Table:
    styles = {score.style: score.tracks for score in scores}
    if len(styles) < 2:
        return Table("", ())
    found = {(score.arm, score.style): score.score for score in scores}
    arms = dict.fromkeys(score.arm for score in scores)
    rows = [(arm, *(number(found.get((arm, style))) for style in styles)) for arm in arms]
    header = ("arm", *(f"{style} ({tracks})" for style, tracks in styles.items()))
    return Table(f"{study.primary} by style (tracks)", header, rows)


def _curve_table(study: Study, rows: Sequence[CurveRow], by: str) -> Table:
    arms = [arm.name for arm in study.arms if rows and arm.name in rows[0].scores]
    cells = [(number(row.at, 0), *(number(row.scores[arm]) for arm in arms)) for row in rows]
    note = "Mean over seeds of the best validation nSDR in dB by then; runs that go on are in mid-schedule there."
    return Table(f"Validation after equal {by}", (by, *arms), cells, text_columns=0, notes=(note,))


def report_json(folder: Path) -> dict[str, Any]:
    """Return what `report_tables` shows as JSON would hold it."""
    study, rows, read = read_study(folder), read_rows(folder), read_paper_study(folder)
    found = {
        "study": asdict(study),
        "scores": [asdict(score) for score in arm_scores(rows)],
        "differences": [asdict(one) for one in against_reference(read, study.metrics)],
        "costs": [asdict(line) for line in cost_scores(rows, read_costs(folder), study.primary)],
        "styles": [asdict(score) for score in style_scores(rows, study.primary)],
        "after_equal_seconds": [asdict(row) for row in curves(read, "seconds")],
        "after_equal_steps": [asdict(row) for row in curves(read, "steps")],
    }
    return _finite(found)  # type: ignore[no-any-return]


def _finite(value: Any) -> Any:
    """Replace NaN by None, which JSON can hold."""
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and value != value else value
