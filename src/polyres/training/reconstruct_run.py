"""A whole training run of what makes reconstructions better: recipe in, run folder out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from polyres.core.errors import TrainingError
from polyres.training.bandwidth_task import BandwidthTask
from polyres.training.devices import build_fabric
from polyres.training.enhance_task import AutoencoderTask, MelTask
from polyres.training.reconstruct_config import ReconstructConfig
from polyres.training.run_folder import CONFIG_FILE, RunFolder
from polyres.training.run_lock import held, refuse_if_held
from polyres.training.solver import Solver
from polyres.training.state import TrainResult


def build_task(config: ReconstructConfig) -> MelTask | BandwidthTask:
    """Build what a recipe trains.

    Args:
        config: the recipe.

    Returns:
        The task.

    Raises:
        TrainingError: if codec, weights or data are not there or do not fit each other.
        InputError: if a root has no tracks, or one cannot be read.
        ConfigError: if some source is in no track.
    """
    if config.task == "bandwidth":
        return BandwidthTask(config)
    return AutoencoderTask(config) if config.task == "autoencoder" else MelTask(config)


def run_reconstruction(
    recipe: Path | None, out: Path, overrides: Sequence[str] = (), resume: bool = False
) -> TrainResult:
    """Train, or go on; prints a summary before and after on standard error.

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
        InputError: if a root of the data has no readable track.
        OutputError: if the run folder cannot be written.
    """
    config = ReconstructConfig.from_yaml(recipe if recipe is not None else out / CONFIG_FILE, overrides)
    if config.devices > 1:
        raise TrainingError(f"devices is {config.devices}, but tasks of reconstruction train on one; set devices=1")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    fabric = build_fabric(config)
    task = build_task(config)
    refuse_if_held(out)
    run = (RunFolder.reopen if resume else RunFolder.create)(out, config, config.seed)
    with held(out):
        solver: Solver[torch.nn.Module] = Solver(config, task, run, resume, fabric)
        _say(_opening(config, solver))
        for line in task.warnings:
            _say(f"warning: {line}")
        result = solver.fit()
    _say(_closing(config, out, result))
    return result


def _opening(config: ReconstructConfig, solver: Solver[torch.nn.Module]) -> str:
    """Word what is about to happen."""
    parameters = sum(parameter.numel() for parameter in solver.model.parameters() if parameter.requires_grad)
    behind = "" if config.task == "bandwidth" else f" of {config.codec}"
    batch = f"{config.batch_size} × {config.data.segment_samples / config.data.sample_rate_hz:.1f} s"
    return "\n".join(
        [
            f"task       {config.task}{behind}: {parameters:,} parameters",
            f"data       {' '.join(root.path for root in config.data.roots)}: batch {batch}",
            f"steps      {solver.steps_per_epoch} per epoch, at step {solver.state.step}, on {solver.fabric.device}",
            f"run        {solver.run.path}  {solver.run.identity['fingerprint']}",
        ]
    )


def _closing(config: ReconstructConfig, out: Path, result: TrainResult) -> str:
    """Word how it went, and what to do with it."""
    best = "no validation"
    if result.best is not None:
        shown = {name: value for name, value in result.best["valid"].items() if name != "score"}
        best = f"best at epoch {result.best['epoch']}: " + "  ".join(f"{name} {v:.4f}" for name, v in shown.items())
    if result.stopped_by is not None:
        return f"stopped at step {result.step}; go on with: polyres train --out {out} --resume\n{best}"
    use = {
        "learned_enhancer": f"polyres enhance AUDIO --codec {config.codec} --network learned={out}",
        "refiner": f"polyres enhance AUDIO --codec {config.codec} --network "
        f"{'refine_informed' if config.network.informed else 'refine'}={out}",
        "autoencoder": f"polyres reconstruct AUDIO --codec {out / 'codec'}",
        "bandwidth": "polyres.models.network_weights.load_network",
    }[config.task]
    return f"finished after {result.step} steps, {result.elapsed_s:.0f} s; {best}\nuse it with: {use}"


def _say(text: str) -> None:
    """Print to standard error, which keeps standard output for results."""
    print(text, file=sys.stderr, flush=True)
