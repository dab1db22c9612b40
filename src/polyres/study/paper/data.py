"""Studies as a paper reads them: arms, their models and recipes, scores per track and seed, costs and curves."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from polyres.core.config import diff
from polyres.core.errors import AnalysisError
from polyres.core.json_text import json_value
from polyres.core.yaml_files import read_yaml
from polyres.separation.model import MUSIC_SOURCES, SeparatorConfig
from polyres.separation.training.run_table import Point
from polyres.separation.variants import VARIANTS, config_from_yaml
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.plan.arms import flatten
from polyres.study.run.files import (
    BASELINES_FILE,
    Cost,
    History,
    Study,
    model_name,
    read_costs,
    read_history,
    read_rows,
    read_study,
    run_folder,
)
from polyres.study.run.files import Arm as StudyArm
from polyres.training.run_folder import CONFIG_FILE, MAY_CHANGE, METRICS_FILE

WHOLE = "all"
LENGTH_KEYS = ("epochs", "steps_per_epoch", "time_budget_s")
"""Settings of a recipe that say how long it trains."""
NOT_COMPARED = frozenset({"seed", "variant", "data_dir", "data.seed"}) | (MAY_CHANGE - {"epochs", "time_budget_s"})
"""Settings that make no difference between two methods."""


@dataclass(frozen=True)
class PaperRun:
    """One run of an arm."""

    name: str  # as in the rows: arm/seed0
    seed: int  # of the run
    folder: Path  # of the run; may be missing
    epochs: Sequence[Mapping[str, Any]]  # rows of its metrics, oldest first
    cost: Cost | None  # what it cost; None before it was scored
    fusion: Mapping[str, Any] | None = None  # its fusion report, if the study kept one

    def validations(self) -> list[Point]:
        """Return the validations, oldest first."""
        scored = [(row, score_of(row)) for row in self.epochs if "step" in row]
        return [Point(row["step"], row.get("elapsed_s", 0.0), score) for row, score in scored if score is not None]


def score_of(row: Mapping[str, Any]) -> float | None:
    """Return the best validation score of a row of the metrics, in dB."""
    valid = row.get("valid")
    scores = [one["score"] for one in valid.values() if "score" in one] if isinstance(valid, Mapping) else []
    return float(max(scores)) if scores else None


@dataclass(frozen=True)
class Arm:
    """One of the things that a study compares."""

    study: str  # name of the study
    name: str  # of the arm
    settings: Mapping[str, Any]  # what it changes, by dotted key
    model: SeparatorConfig | None  # config of its separator; None where there is no run yet
    training: Mapping[str, Any]  # all other settings of its recipe by dotted key
    runs: tuple[PaperRun, ...]  # one per seed

    def costs(self, name: str) -> list[float]:
        """Return a cost of every run that knows it."""
        known = [getattr(run.cost, name) for run in self.runs if run.cost is not None]
        return [float(value) for value in known if value is not None]

    def cost(self, name: str) -> float | None:
        """Return the mean of a cost over the runs that know it."""
        known = self.costs(name)
        return float(np.mean(known)) if known else None


Values = dict[int, dict[str, dict[str, float]]]
"""Seed -> track -> source -> score."""
BASELINES = {"silence": "silence", "share": "an equal share of the mixture"}
"""What every model has to beat: its name among the rows, and in words."""


@dataclass(frozen=True, eq=False)
class PaperStudy:
    """A study and all its results."""

    folder: Path  # where it lies
    about: Study  # what it compares
    arms: tuple[Arm, ...]  # in order
    rows: list[ScoreRow]  # all scores
    baselines: list[ScoreRow] = field(default_factory=list)  # scores of silence and of an equal share of the mixture
    _index: dict[tuple[str, str, str], Values] = field(default_factory=dict)

    def __post_init__(self) -> None:
        runs = {run.name: (arm.name, run.seed) for arm in self.arms for run in arm.runs}
        runs |= {name: (_baseline(name), 0) for name in BASELINES}
        for row in [*self.rows, *self.baselines]:
            if row.value is None or row.model not in runs:
                continue
            arm, seed = runs[row.model]
            table = self._index.setdefault((arm, row.metric, row.part), {})
            table.setdefault(seed, {}).setdefault(row.track, {})[row.source] = row.value

    @property
    def name(self) -> str:
        """Name of the study."""
        return self.about.name

    @property
    def primary(self) -> str:
        """Metric that decides."""
        return self.about.primary

    def arm(self, name: str | None) -> Arm | None:
        """Return the arm of a name, if there is one."""
        return next((arm for arm in self.arms if arm.name == name), None)

    def values(self, arm: Arm, metric: str, part: str = WHOLE) -> Values:
        """Return the scores of an arm: seed -> track -> source -> value; empty where there are none."""
        return self._index.get((arm.name, metric, part), {})

    def parts(self, arm: Arm, metric: str) -> list[str]:
        """Return which parts of an arm's models were scored besides the whole."""
        return [part for name, of, part in self._index if (name, of) == (arm.name, metric) and part != WHOLE]

    @property
    def sources(self) -> tuple[str, ...]:
        """Stems that were scored, in the order of the models."""
        known = dict.fromkeys(row.source for row in self.rows)
        order = next((arm.model.sources for arm in self.arms if arm.model is not None), MUSIC_SOURCES)
        return tuple(source for source in order if source in known) + tuple(s for s in known if s not in order)

    @property
    def tracks(self) -> list[str]:
        """Tracks that were scored."""
        return list(dict.fromkeys(row.track for row in self.rows))


def _baseline(name: str) -> str:
    return f"baseline/{name}"  # no arm has a slash in its name


def baseline_arm(study: PaperStudy, name: str) -> Arm:
    """Return a baseline as an arm without runs."""
    return Arm(study.name, _baseline(name), {}, None, {}, ())


def track_means(values: Values, sources: Iterable[str] | None = None) -> dict[int, dict[str, float]]:
    """Average the scores of every track over its stems: seed -> track -> mean; all stems if `sources` is None."""
    wanted = None if sources is None else set(sources)
    means: dict[int, dict[str, float]] = {}
    for seed, tracks in values.items():
        means[seed] = {}
        for track, scores in tracks.items():
            kept = [score for source, score in scores.items() if wanted is None or source in wanted]
            if kept:
                means[seed][track] = float(np.mean(kept))
    return means


def seed_means(values: Values, sources: Iterable[str] | None = None) -> list[float]:
    """Return one number per seed: the mean over sources of the means over tracks."""
    chosen = None if sources is None else list(sources)
    numbers = []
    for tracks in values.values():
        by_source: dict[str, list[float]] = {}
        for scores in tracks.values():
            for source, score in scores.items():
                if chosen is None or source in chosen:
                    by_source.setdefault(source, []).append(score)
        if by_source:
            numbers.append(float(np.mean([np.mean(of) for of in by_source.values()])))
    return numbers


def read_studies(folders: Sequence[Path]) -> list[PaperStudy]:
    """Read studies."""
    studies = [read_paper_study(folder) for folder in folders]
    names = [study.name for study in studies]
    twin = next((name for name in names if names.count(name) > 1), None)
    if twin is not None:
        raise AnalysisError(f"two studies are called {twin!r}; give each of them once")
    return studies


def read_paper_study(folder: Path) -> PaperStudy:
    """Read one study, complete or not; what it kept goes before what lies in the folders of its runs."""
    about, history = read_study(folder), read_history(folder)
    costs = {model_name(cost.arm, cost.seed): cost for cost in read_costs(folder)}
    arms = tuple(_arm(folder, about, arm, costs, history) for arm in about.arms)
    return PaperStudy(folder, about, arms, read_rows(folder), read_rows(folder, BASELINES_FILE))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read JSON lines; a last line cut by a crash is left out."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    found = []
    for number, line in enumerate(lines, start=1):
        try:
            found.append(json_value(line, special=True))
        except ValueError as error:
            if number < len(lines):
                raise AnalysisError(f"{path}, line {number}: no JSON ({error}); restore the file") from error
    return found


def _arm(folder: Path, about: Study, arm: StudyArm, costs: Mapping[str, Cost], history: Mapping[str, History]) -> Arm:
    runs = []
    for seed in about.seeds:
        name, path = model_name(arm.name, seed), run_folder(folder, arm.name, seed)
        kept = history.get(name)
        epochs = read_lines(path / METRICS_FILE) if kept is None else kept.epochs
        runs.append(PaperRun(name, seed, path, epochs, costs.get(name), None if kept is None else kept.fusion))
    config: Mapping[str, Any] = arm.config
    found = next((run.folder / CONFIG_FILE for run in runs if (run.folder / CONFIG_FILE).is_file()), None)
    if not config and found is not None:
        config = {**read_yaml(found), "model": config_from_yaml(found).to_dict()}
    values = flatten({key: value for key, value in config.items() if key != "model"})
    training = {key: value for key, value in values.items() if key not in NOT_COMPARED}
    model = SeparatorConfig.from_dict(config["model"]) if config else None
    return Arm(about.name, arm.name, arm.settings, model, training, tuple(runs))


EQUAL_STEPS, EQUAL_TIME = "equal steps", "equal time"
TIME_TOLERANCE = 0.15
RESOLUTION_KEYS = ("model.n_fft",)
FUSION_KEYS = ("model.output", "model.bottleneck")
METHOD_KEYS = (*RESOLUTION_KEYS, *FUSION_KEYS, "model.transformer", "model.wave_branch", "model.hop")
"""What tells the methods of the family from one another, besides their width."""

Wanted = Callable[[SeparatorConfig], bool]


def differences(first: Arm, second: Arm) -> list[str]:
    """Return the dotted keys in which two arms differ, `model.…` or of the recipe, apart from training length."""
    if first.model is None or second.model is None:
        return []
    found = [f"model.{key}" for key in diff(first.model, second.model)]
    keys = dict.fromkeys((*first.training, *second.training))
    found += [key for key in keys if key not in LENGTH_KEYS and first.training.get(key) != second.training.get(key)]
    if len(first.model.n_fft) == 1 or len(second.model.n_fft) == 1:
        # What is done with one resolution alone makes no difference.
        found = [key for key in found if not key.startswith(FUSION_KEYS)]
    return found


def basis(first: Arm, second: Arm) -> str | None:
    """Say whether two arms trained for equal steps or equal time; None for neither."""
    if all(first.training.get(key) == second.training.get(key) for key in LENGTH_KEYS):
        return EQUAL_STEPS if first.training.get("epochs") is not None else EQUAL_TIME
    times = first.cost("train_s"), second.cost("train_s")
    if times[0] and times[1] and abs(times[0] - times[1]) <= TIME_TOLERANCE * max(times[0], times[1]):
        return EQUAL_TIME
    return None


def matches(
    studies: Sequence[PaperStudy], first: Wanted, second: Wanted, may_differ: Sequence[str], must: Sequence[str] = ()
) -> Iterator[tuple[PaperStudy, Arm, Arm]]:
    """Yield pairs of arms of one study that differ only in what is allowed."""
    for study in studies:
        ready = [arm for arm in study.arms if arm.model is not None]
        for one in (arm for arm in ready if arm.model is not None and first(arm.model)):
            for other in (arm for arm in ready if arm.model is not None and second(arm.model)):
                found = differences(one, other)
                if one is other or basis(one, other) is None:
                    continue
                allowed = all(key.startswith((*may_differ, *must)) for key in found)
                if allowed and all(any(key.startswith(start) for key in found) for start in must):
                    yield study, one, other


def families(study: PaperStudy, free: Sequence[str]) -> list[list[Arm]]:
    """Group the arms of a study that differ only in some keys; groups of one are left out."""
    groups: list[list[Arm]] = []
    for arm in (arm for arm in study.arms if arm.model is not None):
        for group in groups:
            # One resolution fuses nothing, so it may go with two arms that do not go with each other.
            if all(_differ_only(one, arm, free) for one in group):
                group.append(arm)
                break
        else:
            groups.append([arm])
    return [group for group in groups if len(group) > 1]


def _differ_only(first: Arm, second: Arm, free: Sequence[str]) -> bool:
    same = all(key.startswith(tuple(free)) for key in differences(first, second))
    return same and basis(first, second) is not None


def method_of(model: SeparatorConfig) -> str | None:
    """Return the row of the table of variants that a model matches in all but width and head; None if none does."""

    def shape(config: SeparatorConfig) -> tuple[object, ...]:
        fusions = (config.bottleneck.kind, config.output.kind) if len(config.n_fft) > 1 else ()
        return (config.n_fft, config.wave_branch, config.transformer.kind, *fusions)

    known = {shape(row): name for name, row in reversed(VARIANTS.items()) if not name.startswith("htdemucs")}
    if shape(model) == shape(VARIANTS["htdemucs_48"]):
        return "htdemucs"
    return known.get(shape(model))


def resolutions_text(model: SeparatorConfig | None) -> str:
    """Return the window lengths of a model in a few words."""
    return "–" if model is None else " ".join(map(str, model.n_fft))
