"""Plan a study: resolve and check the recipes of its arms before training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from polyres.core.config import diff
from polyres.core.errors import ConfigError, TrainingError
from polyres.core.yaml_files import assign, merge, parse_override, read_yaml
from polyres.datasets.layouts import find_tracks
from polyres.separation.model import Separator
from polyres.separation.training.task import TrainConfig
from polyres.study.plan.config import RECIPE_KEY, StudyConfig, StudyDataConfig
from polyres.study.run.files import Arm, Study, model_name
from polyres.synth.cache import is_made
from polyres.training.run_folder import git_commit, versions
from polyres.training.task import resolve_roots


def check_run(data: StudyDataConfig, run: Run) -> int:
    """Build the model of a run, and look for the tracks that it trains, validates and is scored on.

    Roots that are to be made are taken to be there.

    Args:
        data: what is scored on.
        run: of the study.

    Returns:
        Number of parameters.

    Raises:
        TrainingError: if a folder is not there.
        InputError: if a folder has no tracks.
        ConfigError: if the model cannot be built.
    """
    config = run.config
    try:
        model = Separator(config.model)
        for root in config.data.roots:
            _look(root.path, config.data_dir, root.layout, root.split, config.model.sources)
        for path in config.valid.roots:
            _look(path, config.data_dir, config.valid.layout, config.valid.split, config.model.sources)
        for path in data.roots.values():
            _look(path, config.data_dir, data.layout, data.split, config.model.sources)
    except TrainingError as error:
        raise TrainingError(f"arm {run.arm}: {error}") from error
    return sum(parameter.numel() for parameter in model.parameters())


def _look(root: str, data_dir: str | None, layout: str, split: str, sources: Iterable[str]) -> None:
    """Look for tracks in a folder."""
    if not is_made(root):
        (folder,) = resolve_roots((root,), data_dir)
        find_tracks(Path(folder), layout, split, tuple(sources))


STUDY_PREFIX = "study."


@dataclass(frozen=True)
class Request:
    """What is asked for beside the study file.

    Args:
        data_dir: folder that roots are relative to; None leaves that to the recipes.
        seeds: in place of those of the study file.
        arms: names of the arms to run; None means all.
        overrides: `a.b=value` each, over the recipe of every arm; `study.a=value` over the study file.
    """

    data_dir: str | None = None
    seeds: tuple[int, ...] | None = None
    arms: tuple[str, ...] | None = None
    overrides: tuple[str, ...] = ()


@dataclass(frozen=True)
class Run:
    """One training run of a study.

    Args:
        arm: name of its arm.
        seed: its seed.
        config: its whole recipe.
    """

    arm: str
    seed: int
    config: TrainConfig

    @property
    def name(self) -> str:
        """What it is called in the rows."""
        return model_name(self.arm, self.seed)


@dataclass(frozen=True)
class Plan:
    """A study and its runs.

    Args:
        config: the study file, `study.` overrides included.
        study: what is written down of it.
        runs: first all arms with the first seed, then with the next, so that an early end leaves a whole comparison.
    """

    config: StudyConfig
    study: Study
    runs: tuple[Run, ...]


def make_plan(path: Path, request: Request = Request()) -> Plan:
    """Read a study file and resolve the recipe of every arm and seed.

    Args:
        path: the study file; its recipes are relative to it, and so are those of a study that it has as `base`.
        request: what is asked for beside it.

    Returns:
        The plan.

    Raises:
        ConfigError: if the file, a recipe or an override is wrong, two arms are the same, an arm is unknown, or a
            budget of equal steps is not kept.
    """
    config = _read(path, request)
    overrides = [parse_override(text) for text in request.overrides if not text.startswith(STUDY_PREFIX)]
    common = expand(config.common)
    recipes = {name: _recipe(path, config, name) for name in config.arms}
    base = merge(read_yaml(path.parent / config.recipe), common)
    runs, arms = [], []
    chosen = _chosen_arms(config, request.arms)
    for name, (recipe, delta) in recipes.items():
        before = merge(merge(recipe, common), delta)
        settings = flatten(delta) if RECIPE_KEY not in config.arms[name] else _differences(base, before, name)
        arms.append(Arm(name, settings))
        if name in chosen:
            runs += [Run(name, seed, _config(before, config, request, overrides, name, seed)) for seed in config.seeds]
    runs.sort(key=lambda run: config.seeds.index(run.seed))
    _refuse_twins(runs)
    if config.budget is not None and config.budget.equal == "steps":
        _check_equal_steps(runs)
    arms = [replace(arm, config=_kept(runs, arm.name)) for arm in arms]
    shared = {**flatten(common), **{".".join(keys): value for keys, value in overrides}}
    read = {key: _value_at(runs[0].config.to_dict(), key.split("."), value) for key, value in shared.items()}
    return Plan(config, _describe(path, config, arms, read), tuple(runs))


def _kept(runs: Sequence[Run], arm: str) -> dict[str, Any]:
    """Return the recipe of an arm as a study keeps it: without what tells seeds and machines apart."""
    config = next((run.config.to_dict() for run in runs if run.arm == arm), {})
    return {key: value for key, value in config.items() if key not in ("seed", "data_dir")}


def _read(path: Path, request: Request) -> StudyConfig:
    """Read the study file with what was asked for it."""
    own = [text.removeprefix(STUDY_PREFIX) for text in request.overrides if text.startswith(STUDY_PREFIX)]
    if request.seeds is not None:
        own.append(f"seeds={list(request.seeds)}")
    return StudyConfig.from_yaml(path, own)


def _chosen_arms(config: StudyConfig, names: Sequence[str] | None) -> set[str]:
    """Return the arms to run."""
    for name in names or ():
        if name not in config.arms:
            raise ConfigError(f"there is no arm {name!r}; the arms are {', '.join(config.arms)}")
    return set(config.arms) if names is None else set(names)


def _recipe(path: Path, config: StudyConfig, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values that an arm starts from, and its deltas."""
    delta = dict(config.arms[name])
    recipe = delta.pop(RECIPE_KEY, config.recipe)
    if not isinstance(recipe, str):
        raise ConfigError(f"{path}: the recipe of arm {name} is {recipe!r}; name a YAML file")
    return read_yaml(path.parent / recipe), expand(delta)


def expand(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn dotted keys into nested mappings: {"a.b": 1} into {"a": {"b": 1}}; of two values for a key the last wins."""
    expanded: dict[str, Any] = {}
    for key, value in values.items():
        inside = expand(value) if isinstance(value, Mapping) else value
        part = assign({}, str(key).split("."), inside)
        expanded = merge(expanded, part)
    return expanded


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested mappings into dotted keys, each after a prefix."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _value_at(values: Any, keys: Sequence[str], otherwise: Any) -> Any:
    """Return what a setting has become: `1e-3` is a text until a config reads it as a number."""
    for key in keys:
        if not isinstance(values, Mapping) or key not in values:
            return otherwise
        values = values[key]
    return values


def _differences(base: Mapping[str, Any], values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return in which settings an arm with a recipe of its own differs from the study's recipe."""
    changes = diff(_checked(base, "the recipe"), _checked(values, f"arm {name}"))
    return {key: there for key, (_, there) in changes.items()}


def _checked(values: Mapping[str, Any], what: str) -> TrainConfig:
    """Build a config, or say which arm is wrong."""
    try:
        return TrainConfig.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{what}: {error}") from error


def _config(
    before: Mapping[str, Any],
    config: StudyConfig,
    request: Request,
    overrides: Sequence[tuple[list[str], Any]],
    name: str,
    seed: int,
) -> TrainConfig:
    """Resolve the recipe of one run."""
    values: dict[str, Any] = {**before, "seed": seed}
    if config.budget is not None and config.budget.seconds is not None:
        values |= {"epochs": None, "time_budget_s": config.budget.seconds}
    if request.data_dir is not None:
        values["data_dir"] = request.data_dir
    for keys, value in overrides:
        values = assign(values, keys, value)
    if values["seed"] != seed:
        raise ConfigError("seed cannot be set for a study; give --seeds")
    return _checked(values, f"arm {name}")


def _refuse_twins(runs: Sequence[Run]) -> None:
    """Refuse two arms that would train the same."""
    seen: dict[str, Run] = {}
    for run in runs:
        other = seen.setdefault(run.config.fingerprint(), run)
        if other is not run:
            raise ConfigError(
                f"the arms {other.arm} and {run.arm} have the same settings; leave one of them out, "
                "or the --set that makes them the same"
            )


def planned_steps(config: TrainConfig) -> int | None:
    """Return how many optimiser steps a recipe takes; None where it ends by the clock."""
    if config.epochs is None or config.time_budget_s is not None:
        return None
    items = config.data.items_per_epoch
    return config.epochs * (config.steps_per_epoch or -(-items // (config.batch_size * config.accumulate)))


def _check_equal_steps(runs: Sequence[Run]) -> None:
    """Refuse arms that take other numbers of steps where they should be equal."""
    steps = {run.arm: planned_steps(run.config) for run in runs}
    if len(set(steps.values())) > 1 or None in steps.values():
        told = ", ".join(f"{arm} {'by the clock' if count is None else count}" for arm, count in steps.items())
        raise ConfigError(f"budget.equal is steps, but the arms take {told}; set epochs and steps_per_epoch for all")


def _describe(path: Path, config: StudyConfig, arms: Sequence[Arm], common: Mapping[str, Any]) -> Study:
    """Say what is compared."""
    return Study(
        name=config.name or path.stem,
        title=config.title,
        question=config.question,
        base=config.recipe,
        reference=config.reference,
        primary=config.primary or config.metrics[0],
        metrics=config.metrics,
        data=config.data.to_dict(),
        arms=tuple(arms),
        seeds=config.seeds,
        commit=git_commit(),
        versions=versions(),
        budget=None if config.budget is None else config.budget.to_dict(),
        common=common,
    )
