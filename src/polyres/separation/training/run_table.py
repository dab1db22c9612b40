"""What run folders hold, in figures: one summary per run, and several runs beside each other."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict

from polyres.batch.jobs import run_name
from polyres.core.config import Config, diff
from polyres.core.errors import ConfigError, PolyresError, TrainingError
from polyres.core.json_text import json_file
from polyres.separation.training.task import TrainConfig
from polyres.training.run_folder import (
    BEST_FILE,
    CHECKPOINT_FILE,
    CONFIG_FILE,
    FACTS_FILE,
    METRICS_FILE,
    RunFolder,
    is_held,
)
from polyres.weights.files import count_parameters, read_about

State = Literal["running", "stopped", "finished", "broken"]

MOST_ROWS = 8
"""Rows of a comparison at equal steps or times."""


@dataclass(frozen=True)
class Point:
    """One validation: where the run stood and its best weights' score in dB."""

    step: int
    elapsed_s: float
    score: float


@dataclass(frozen=True)
class RunSummary:
    """A run in figures.

    `best`: score in dB of the best weights so far, where and which they are, and their scores by name.
    """

    name: str
    path: Path
    state: State  # `running` in some process of this machine, `stopped` before its end, `finished`, or `broken`
    problem: str | None
    step: int
    elapsed_s: float  # seconds trained, over all parts of the run
    parameters: int | None  # of the model; None before there are weights
    best: Mapping[str, Any] | None
    points: tuple[Point, ...]
    config: TrainConfig | None  # the recipe; None where it cannot be read

    @property
    def score(self) -> float | None:
        """Best score in dB, if there is one."""
        return None if self.best is None else float(self.best["score"])

    @property
    def source_scores(self) -> dict[str, float]:
        """Score of the best weights by source; those of single resolutions are left out."""
        valid = {} if self.best is None else self.best["valid"]
        return {name: value for name, value in valid.items() if name != "score" and "@" not in name}

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold: everything but the points and the recipe."""
        facts: dict[str, Any] = {"name": self.name, "path": str(self.path), "state": self.state}
        if self.problem is not None:
            facts["problem"] = self.problem
        facts |= {"step": self.step, "elapsed_s": self.elapsed_s, "parameters": self.parameters}
        return {**facts, "best": None if self.best is None else dict(self.best)}


def list_runs(folder: Path) -> list[RunSummary]:
    """Summarise every run under a folder, the folder itself included.

    `folder`: searched at any depth; nothing inside a run or behind a name with a dot. Returns in the order of their
    names; broken ones say what is wrong. Raises TrainingError if there is no such folder or no run in it.
    """
    if not folder.is_dir():
        raise TrainingError(f"there is no folder {folder}; give the folder that holds runs")
    found = []
    for root, names, files in os.walk(folder):
        if {CONFIG_FILE, METRICS_FILE, CHECKPOINT_FILE} & set(files):
            found.append(Path(root))
            names.clear()
        names[:] = sorted(name for name in names if not name.startswith("."))
    if not found:
        raise TrainingError(f"there is no run in {folder}; a run is a folder with a {CONFIG_FILE} that training left")
    names_of = {path: path.name if path == folder else path.relative_to(folder).as_posix() for path in found}
    return [summarise(path, name) for path, name in sorted(names_of.items(), key=lambda item: item[1])]


def read_run(path: Path) -> RunSummary:
    """Summarise one run that is whole. Raises TrainingError if there is no run, or it is broken."""
    if not (path / CONFIG_FILE).is_file():
        raise TrainingError(f"{path} holds no run ({CONFIG_FILE} is missing); give the folder of a run")
    summary = summarise(path, run_name(path.resolve()))
    if summary.problem is not None:
        raise TrainingError(f"the run {path} is broken: {summary.problem}")
    return summary


def summarise(path: Path, name: str) -> RunSummary:
    """Summarise a run folder, whatever it holds."""
    problems: list[str] = []

    def tried(read: Callable[[], Any], otherwise: Any) -> Any:
        """Read a part of the run, or note why not."""
        try:
            return read()
        except (PolyresError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            missing = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            problems.append(" ".join(missing.split()))
            return otherwise

    config: TrainConfig | None = tried(lambda: TrainConfig.from_yaml(path / CONFIG_FILE), None)
    rows: list[dict[str, Any]] = tried(lambda: _rows(path), [])
    points: list[Point] = tried(lambda: _points(rows), [])
    step, elapsed_s = tried(lambda: _progress(path, rows), (0, 0.0))
    best_file = path / BEST_FILE
    parameters = tried(lambda: count_parameters(best_file) if best_file.exists() else None, None)
    best = tried(lambda: _best(rows), None)
    over = not problems and config is not None and _is_over(path, config, rows)
    state: State = "finished" if over else "stopped"
    if is_held(path):
        state = "running"
    elif problems:
        state = "broken"
    problem = problems[0] if problems else None
    return RunSummary(name, path, state, problem, step, elapsed_s, parameters, best, tuple(points), config)


class _Scores(Config):
    """Scores of one set of weights; more may stand beside."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True, strict=True)

    score: float


class _Best(_Scores):
    """Scores of the best weights so far."""

    valid: dict[str, Any]


class _Row(Config):
    """What is read of an epoch's row; more may stand beside."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=True, strict=True)

    step: int
    elapsed_s: float
    valid: dict[str, _Scores] | None
    progress: float = 0.0
    epoch: int = 0
    best: _Best | None = None


def _rows(path: Path) -> list[dict[str, Any]]:
    """Return the rows of the metrics."""
    rows = RunFolder(path, "", 0, None).rows()
    try:
        for row in rows:
            _Row.from_dict(row)
    except (ConfigError, TypeError, ValueError) as error:
        raise ValueError(f"{path / METRICS_FILE} has a row that is none of a run ({error})") from error
    return rows


def _points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Return the validations: every time the score of the best of raw weights and averages."""
    return [
        Point(row["step"], row["elapsed_s"], max(scores["score"] for scores in row["valid"].values()))
        for row in rows
        if row["valid"]
    ]


def _best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return what the last row says of the best weights."""
    return rows[-1].get("best") if rows else None


def _progress(path: Path, rows: Sequence[Mapping[str, Any]]) -> tuple[int, float]:
    """Return steps and seconds: those of the last row or, where that came later, of the checkpoint."""
    stand = (rows[-1]["step"], rows[-1]["elapsed_s"]) if rows else (0, 0.0)
    if (path / CHECKPOINT_FILE).exists():
        state = read_about(path / CHECKPOINT_FILE)["state"]
        stand = max(stand, (state["step"], state["elapsed_s"]))
    return int(stand[0]), float(stand[1])


def _is_over(path: Path, config: TrainConfig, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Say whether the last row closed the run, and nobody has given it a later end since."""
    if not rows or rows[-1].get("progress", 0) < 1:
        return False
    last = rows[-1]
    if config.epochs is not None and last.get("epoch", 0) >= config.epochs:
        return True
    if config.time_budget_s is not None and last["elapsed_s"] >= config.time_budget_s:
        return True
    facts = json_file(path / FACTS_FILE) if (path / FACTS_FILE).exists() else {}
    return facts.get("fingerprint") == last.get("fingerprint")


@dataclass(frozen=True)
class Comparison:
    """Runs beside each other.

    `by_step`: steps, and the best score in dB that every run had by then (None before its first).
    """

    runs: tuple[RunSummary, ...]
    differences: Mapping[str, tuple[Any, ...]]  # settings that are not the same everywhere: key to one value per run
    by_step: tuple[tuple[float, tuple[float | None, ...]], ...]
    by_time: tuple[tuple[float, tuple[float | None, ...]], ...]  # the same for seconds of training

    def to_dict(self) -> dict[str, Any]:
        """Return what JSON can hold."""
        return {
            "runs": [run.to_dict() for run in self.runs],
            "differences": {key: list(values) for key, values in self.differences.items()},
            "by_step": [{"step": at, "best": list(best)} for at, best in self.by_step],
            "by_time": [{"elapsed_s": at, "best": list(best)} for at, best in self.by_time],
        }


def compare_runs(paths: Sequence[Path]) -> Comparison:
    """Put runs beside each other: settings that differ, scores after equal steps and equal times, final bests.

    `paths`: folders of two or more runs. Raises TrainingError if there are fewer than two, or one is missing or broken.
    """
    if len(paths) < 2:
        raise TrainingError(f"{len(paths)} run given; name two or more to compare")
    runs = tuple(read_run(path) for path in paths)
    return Comparison(
        runs,
        _differences([run.config for run in runs if run.config is not None]),
        _curve(runs, lambda point: point.step),
        _curve(runs, lambda point: point.elapsed_s),
    )


def _differences(configs: Sequence[TrainConfig]) -> dict[str, tuple[Any, ...]]:
    """Return the settings that are not the same in all."""
    first, *others = configs
    changes = [diff(first, other) for other in others]
    table: dict[str, tuple[Any, ...]] = {}
    for key in dict.fromkeys(key for change in changes for key in change):
        ours = next(change[key][0] for change in changes if key in change)
        table[key] = (ours, *(change[key][1] if key in change else ours for change in changes))
    return table


def _curve(
    runs: Sequence[RunSummary], place: Callable[[Point], float]
) -> tuple[tuple[float, tuple[float | None, ...]], ...]:
    """Return best scores so far at places that all runs have reached: the validations of the run with the fewest."""
    validated = [run.points for run in runs if run.points]
    if not validated:
        return ()
    end = min(place(points[-1]) for points in validated)
    reached = [[place(point) for point in points if place(point) <= end] for points in validated]
    places = min(filter(None, reached), key=len)
    count = min(len(places), MOST_ROWS)
    kept = [places[(number + 1) * len(places) // count - 1] for number in range(count)]
    return tuple((at, tuple(_best_by(run.points, place, at) for run in runs)) for at in kept)


def _best_by(points: Sequence[Point], place: Callable[[Point], float], at: float) -> float | None:
    """Return the best score that a run had when it got there."""
    return max((point.score for point in points if place(point) <= at), default=None)
