"""A whole training run of a codec: recipe in, run folder out."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from polyres.core.errors import TrainingError
from polyres.core.yaml_files import read_yaml
from polyres.training.codec import CodecTask, CodecTrainConfig
from polyres.training.devices import build_fabric
from polyres.training.run_folder import CONFIG_FILE, RunFolder
from polyres.training.run_lock import held, refuse_if_held
from polyres.training.solver import Solver
from polyres.training.state import TrainResult


def is_codec_recipe(path: Path) -> bool:
    """Say whether a recipe is for `polyres_wave`.

    Args:
        path: YAML file.

    Returns:
        True if its task is `polyres_wave`.

    Raises:
        ConfigError: if it cannot be read.
    """
    return read_yaml(path).get("task") == "polyres_wave"


def run_codec_training(
    recipe: Path | None, out: Path, overrides: Sequence[str] = (), resume: bool = False
) -> TrainResult:
    """Train a codec, or go on with it; prints a summary before and after on standard error.

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
    if recipe is None and not (out / CONFIG_FILE).exists():
        raise TrainingError(f"{out} holds no run to resume; name a recipe to start one there")
    config = CodecTrainConfig.from_yaml(recipe if recipe is not None else out / CONFIG_FILE, overrides)
    if config.devices > 1:
        raise TrainingError(f"devices is {config.devices}; a codec trains on one device")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    refuse_if_held(out)
    task = CodecTask(config)
    run = (RunFolder.reopen if resume else RunFolder.create)(out, config, config.seed)
    with held(out):
        solver = Solver(config, task, run, resume, build_fabric(config))
        count = sum(parameter.numel() for parameter in solver.model.parameters())
        print(f"codec      {count:,} parameters, {config.pool_items} segments", file=sys.stderr, flush=True)
        result = solver.fit()
    best = "" if result.best is None else f"; best score {result.best['score']:.3f} (epoch {result.best['epoch']})"
    print(
        f"{'finished' if result.finished else 'stopped'} after {result.step} steps{best}", file=sys.stderr, flush=True
    )
    return result
