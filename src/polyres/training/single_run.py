"""A whole training run on one device: task in, run folder out."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import nn

from polyres.core.errors import TrainingError
from polyres.training.config import SolverConfig
from polyres.training.devices import build_fabric
from polyres.training.progress import TrainResult
from polyres.training.run_folder import RunFolder, held, refuse_if_held
from polyres.training.solver import Solver
from polyres.training.task import Model, Task


class WarningTask(Task[Model], Protocol[Model]):
    """A task that knows what is odd about its data."""

    @property
    def warnings(self) -> Sequence[str]:
        """One line for each odd thing."""


SomeConfig = TypeVar("SomeConfig", bound=SolverConfig)


def run_single(
    config: SomeConfig,
    build_task: Callable[[SomeConfig], WarningTask[Any]],
    out: Path,
    resume: bool,
    opening: Callable[[Solver[nn.Module]], str],
    closing: Callable[[TrainResult], str],
) -> TrainResult:
    """Train a task on one device, or go on; prints a summary before and after on standard error.

    Args:
        build_task: finds data and weights; is called before anything is written.
        resume: go on with the run in `out`.
        opening: words what is about to happen.
        closing: words what to do with a finished run; how it went is worded here.

    Raises:
        TrainingError: if the run cannot start or go on, has diverged, is going on already, or is to use more devices.
        ConfigError: if the recipe is wrong, or a source is in no track.
        InputError: if a root of the data has no readable track.
        OutputError: if the run folder cannot be written.
    """
    if config.devices > 1:
        raise TrainingError(f"devices is {config.devices}, but tasks of reconstruction train on one; set devices=1")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    fabric = build_fabric(config)
    refuse_if_held(out)
    task = build_task(config)
    run = (RunFolder.reopen if resume else RunFolder.create)(out, config, config.seed)
    with held(out):
        solver: Solver[nn.Module] = Solver(config, task, run, resume, fabric)
        _say(opening(solver))
        _say(
            f"steps      {solver.steps_per_epoch} per epoch, at step {solver.state.step}, on {solver.fabric.device}\n"
            f"run        {solver.run.path}  {solver.run.identity['fingerprint']}"
        )
        for line in task.warnings:
            _say(f"warning: {line}")
        result = solver.fit()
    _say(_ending(out, result, closing))
    return result


def trained_parameters(solver: Solver[nn.Module]) -> int:
    """Count the numbers that training moves."""
    return sum(parameter.numel() for parameter in solver.model.parameters() if parameter.requires_grad)


def _ending(out: Path, result: TrainResult, closing: Callable[[TrainResult], str]) -> str:
    """Word how it went, and what to do with it."""
    best = "no validation"
    if result.best is not None:
        shown = {name: value for name, value in result.best["valid"].items() if name != "score"}
        best = f"best at epoch {result.best['epoch']}: " + "  ".join(f"{name} {v:.4f}" for name, v in shown.items())
    if result.stopped_by is not None:
        return f"stopped at step {result.step}; go on with: polyres train --out {out} --resume\n{best}"
    return f"finished after {result.step} steps, {result.elapsed_s:.0f} s; {best}\nuse it with: {closing(result)}"


def _say(text: str) -> None:
    """Print to standard error, which keeps standard output for results."""
    print(text, file=sys.stderr, flush=True)
