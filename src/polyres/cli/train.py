"""`polyres train`: from a recipe to weights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from polyres.cli.shared.terminal import examples
from polyres.core.errors import ConfigError, TrainingError

EPILOG = examples(
    "polyres train recipes/debug.yaml --out RUN — the whole path in a minute, on songs that are made on the spot",
    "polyres train recipes/cpu_small.yaml --data DATA --out RUN — DATA holds train/ and valid/, folders of songs",
    "polyres train recipes/cpu_small.yaml --data DATA --out RUN --set batch_size=8 --time-budget 90m — other values",
    "polyres train --resume RUN — goes on where it was stopped, with the same bits",
    "polyres separate song.wav --model RUN — uses what was trained",
    "A run folder holds config.yaml (all values), metrics.jsonl (scores of every epoch), the last state and the best "
    "weights. Ctrl-C saves the state first.",
)


def seconds_of(text: str) -> float:
    """Read a duration above 0 in seconds, or with the unit s, m or h."""
    match = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*([smh]?)", text.strip().lower())
    seconds = float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0
    if seconds <= 0:
        raise ConfigError(f"--time-budget is {text!r}; write a duration such as 45s, 90m or 1.5h")
    return seconds


def train(
    recipe: Annotated[
        Path | None, typer.Argument(help="Recipe (YAML file), packed bundle, or with --resume the folder of a run.")
    ] = None,
    run: Annotated[Path | None, typer.Argument(help="Folder of the run, the same as --out.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the run; inside a bundle by default.")] = None,
    data: Annotated[
        str | None,
        typer.Option("--data", envvar="POLYRES_DATA", help="Folder of the songs that the recipe names."),
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change a value of the recipe, such as optimiser.lr=3e-4; repeatable."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run that is named.")] = False,
    time_budget: Annotated[
        str | None, typer.Option(help="End after this long (45s, 90m, 1.5h); the schedule ends with it.")
    ] = None,
    init: Annotated[
        str | None, typer.Option(help="Start from these weights: a name, a weight file or a run folder.")
    ] = None,
) -> None:
    """Train a model as a recipe says, and leave its best weights in the folder of the run."""
    from polyres.study.run.train import run_training
    from polyres.training.run_folder import is_run

    if run is not None and out is not None and run != out:
        raise TrainingError(f"two folders for the run, {run} and {out}; name one")
    out = out or run
    changes = list(overrides or ())
    if time_budget is not None:
        changes.append(f"time_budget_s={seconds_of(time_budget)}")
    for key, value in (("data_dir", data), ("init", init)):
        if value is not None:
            changes.append(f"{key}={quoted(value)}")
    if recipe is not None and out is None and resume and is_run(recipe):
        recipe, out = None, recipe
    elif recipe is not None and recipe.is_dir():
        recipe, out, resume = _from_bundle(recipe, out, resume, changes)
    if out is None:
        raise TrainingError("no folder for the run; name one with --out DIR")
    if recipe is None and not resume:
        raise TrainingError("no recipe given; name a YAML file, or add --resume to go on with the run in --out")
    result = run_training(recipe, out, changes, resume)
    if result.stopped_by is not None:
        raise typer.Exit(128 + result.stopped_by)


def _from_bundle(folder: Path, out: Path | None, resume: bool, changes: list[str]) -> tuple[Path, Path, bool]:
    """Find recipe and run folder of a bundle, and lay its own values under those asked for. --resume starts the run
    where there is none yet, so that one command may be repeated until the training is over.
    """
    from polyres.separation.training.pack import open_bundle

    recipe, values = open_bundle(folder)
    changes[:0] = [f"{key}={quoted(value)}" for key, value in values.items()]
    out = out or folder / "run"
    return recipe, out, resume and out.exists()


def quoted(value: str) -> str:
    """Return a text as a YAML string, whatever it holds."""
    return "'" + value.replace("'", "''") + "'"
