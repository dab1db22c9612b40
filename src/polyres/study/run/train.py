"""Train a separator from a recipe into a run folder."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from lightning_fabric import Fabric

from polyres.codec.tasks.run import run_task
from polyres.core.errors import PolyresError, TrainingError
from polyres.core.yaml_files import read_yaml
from polyres.separation.training.task import SeparationTask, TrainConfig
from polyres.training.devices import Ranks, build_fabric, is_to_be_spawned, spawned
from polyres.training.progress import TrainResult
from polyres.training.run_folder import CONFIG_FILE, RunFolder, held, refuse_if_held
from polyres.training.solver import Solver


def run_training(recipe: Path | None, out: Path, overrides: Sequence[str] = (), resume: bool = False) -> TrainResult:
    """Train a separator, or go on with it; prints a summary before and after on standard error.

    A recipe that says a `task` is for something else, see `run_task`, and trained as such.

    Args:
        recipe: YAML file; None takes the config of the run that is resumed.
        out: folder of the run.
        overrides: `a.b=value` each, over the recipe.
        resume: go on with the run in `out`.

    Returns:
        How the run ended.

    Raises:
        TrainingError: if the run cannot start or go on, has diverged, or is going on already.
        ConfigError: if recipe or overrides are wrong, or a source is in no track.
        UnknownNameError: if the recipe's task is not known.
        InputError: if a root of the data has no readable track.
        OutputError: if the run folder cannot be written.
    """
    if recipe is None and not (out / CONFIG_FILE).exists():
        raise TrainingError(f"{out} holds no run to resume; name a recipe to start one there")
    path = recipe if recipe is not None else out / CONFIG_FILE
    task = read_yaml(path).get("task")
    if task is not None:
        return run_task(task, path, out, overrides, resume)
    config = TrainConfig.from_yaml(path, overrides)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    fabric = build_fabric(config)
    if is_to_be_spawned(fabric):
        outcome = spawned(fabric, _in_process, config, out, resume)
        if isinstance(outcome, PolyresError):
            raise outcome
        return outcome
    if fabric.world_size > 1:
        fabric.launch()
    try:
        return _train(fabric, config, out, resume)
    except PolyresError as error:
        if fabric.global_rank > 0:  # the first process ends with the error, unless it is of this one alone
            _say(f"process {fabric.global_rank}: {error}")
            raise SystemExit(error.exit_code) from error
        raise


def _in_process(fabric: Fabric, config: TrainConfig, out: Path, resume: bool) -> TrainResult | PolyresError:
    """Train in one of several processes; a user's error is handed back to the process that started them."""
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    try:
        return _train(fabric, config, out, resume)
    except PolyresError as error:
        if fabric.global_rank > 0:
            _say(f"process {fabric.global_rank}: {error}")
        return error


def _train(fabric: Fabric, config: TrainConfig, out: Path, resume: bool) -> TrainResult:
    """Train, together with the other processes if there are any."""
    ranks = Ranks(fabric)
    task = SeparationTask(config, goes_on=resume)
    run = ranks.from_first(lambda: _open(config, out, resume))
    with held(out):
        solver = Solver(config, task, run, resume, fabric)
        if ranks.is_first:
            _say(_opening(config, solver))
            for line in task.warnings:
                _say(f"warning: {line}")
        result = solver.fit()
    if ranks.is_first:
        _say(_closing(out, result))
    return result


def _open(config: TrainConfig, out: Path, resume: bool) -> RunFolder:
    """Start or reopen the folder of the run, unless somebody trains there."""
    refuse_if_held(out)
    opened = RunFolder.reopen if resume else RunFolder.create
    return opened(out, config, config.seed)


def _opening(config: TrainConfig, solver: Solver) -> str:
    """Describe the run before it starts."""
    parameters = sum(parameter.numel() for parameter in solver.model.parameters())
    model = f"{parameters:,} parameters, n_fft {' '.join(map(str, config.model.n_fft))}, head {config.model.head}"
    length = f"{config.data.segment_samples / config.data.sample_rate_hz:.1f} s"
    batch = f"batch {config.batch_size} × {length}" + (f" × {config.accumulate}" if config.accumulate > 1 else "")
    several = f" and {solver.fabric.world_size - 1} more" if solver.fabric.world_size > 1 else ""
    end = [f"{config.epochs} epochs"] if config.epochs is not None else []
    end += [f"{config.time_budget_s / 60:.1f} min"] if config.time_budget_s is not None else []
    return "\n".join(
        [
            f"model      {config.variant or 'separator'}: {model}",
            f"data       {' '.join(root.path for root in config.data.roots)}: {batch}",
            f"steps      {solver.steps_per_epoch} per epoch, until {' or '.join(end)}; at step {solver.state.step}",
            f"optimiser  {config.optimiser.name} {config.optimiser.lr:g}, {config.schedule.name}, "
            f"{config.precision} on {solver.fabric.device}{several}, {torch.get_num_threads()} threads",
            f"run        {solver.run.path}  {solver.run.identity['fingerprint']}",
        ]
    )


def _closing(out: Path, result: TrainResult) -> str:
    """Describe the run after it has ended."""
    best = "no validation"
    if result.best is not None:
        shown = {name: value for name, value in result.best["valid"].items() if name != "score" and "@" not in name}
        scores = "  ".join(f"{name} {value:.2f}" for name, value in shown.items())
        where = f"{result.best['weights']}, epoch {result.best['epoch']}"
        best = f"best nSDR {result.best['score']:.2f} dB ({where}): {scores}"
    if result.stopped_by is not None:
        return f"stopped at step {result.step}; go on with: polyres train --out {out} --resume\n{best}"
    return f"finished after {result.step} steps, {result.elapsed_s:.0f} s; {best}"


def _say(text: str) -> None:
    """Print to standard error, which keeps standard output for results."""
    print(text, file=sys.stderr, flush=True)
