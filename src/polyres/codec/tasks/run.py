"""Run the training task of a recipe: enhancers, refiners, bandwidth extension, autoencoders and codecs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from polyres.codec.tasks.config import TASKS as MEL_CODEC_TASKS
from polyres.codec.tasks.config import MelTrainConfig, ReconstructConfig
from polyres.codec.tasks.enhance import AutoencoderTask, BandwidthTask, MelTask
from polyres.codec.tasks.mel import MelCodecTask
from polyres.codec.tasks.wave import CodecTask, CodecTrainConfig
from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import TrainingError, UnknownNameError
from polyres.training.config import SolverConfig
from polyres.training.devices import build_fabric
from polyres.training.progress import TrainResult
from polyres.training.run_folder import RunFolder, held, refuse_if_held
from polyres.training.solver import Solver


def build_task(config: ReconstructConfig) -> MelTask | BandwidthTask:
    """Build the training task of a recipe."""
    if config.task == "bandwidth":
        return BandwidthTask(config)
    return AutoencoderTask(config) if config.task == "autoencoder" else MelTask(config)


@dataclass(frozen=True)
class _Kind:
    """A kind of recipe: its config, its task, what it is called and what a finished run is good for."""

    config: type[SolverConfig]
    build: Callable[[Any], Any]
    called: Callable[[Any], str]
    use: Callable[[Any, Path], str]


def _use(config: ReconstructConfig, out: Path) -> str:
    return {
        "learned_enhancer": f"polyres enhance AUDIO --codec {config.codec} --network learned={out}",
        "refiner": f"polyres enhance AUDIO --codec {config.codec} --network "
        f"{'refine_informed' if config.network.informed else 'refine'}={out}",
        "autoencoder": f"polyres reconstruct AUDIO --codec {out / 'codec' if (out / 'codec').is_dir() else out}",
        "bandwidth": f"polyres reconstruct AUDIO --bandwidth {out}",
    }[config.task]


def _use_codec(config: SolverConfig, out: Path) -> str:
    return f"polyres reconstruct AUDIO --codec {out}"


_PART = _Kind(
    ReconstructConfig,
    build_task,
    lambda config: config.task if config.task == "bandwidth" else f"{config.task} of {config.codec}",
    _use,
)
_WAVE = _Kind(CodecTrainConfig, CodecTask, lambda config: config.task, _use_codec)
_MEL = _Kind(MelTrainConfig, MelCodecTask, lambda config: config.task, _use_codec)

_KINDS = {
    **dict.fromkeys(("learned_enhancer", "refiner", "bandwidth", "autoencoder"), _PART),
    "polyres_wave": _WAVE,
    **dict.fromkeys(MEL_CODEC_TASKS, _MEL),
}


def run_task(task: object, recipe: Path, out: Path, overrides: Sequence[str] = (), resume: bool = False) -> TrainResult:
    """Run or resume the training of a task; prints a summary before and after on standard error.

    Args:
        task: as the recipe says it.
        overrides: `a.b=value` each, over the recipe.
        resume: go on with the run in `out`.

    Raises:
        UnknownNameError: for a task that is not known.
        TrainingError: if the run cannot start or go on, has diverged, or is going on already.
        ConfigError: if recipe or overrides are wrong, or a source is in no track.
        InputError: if a root of the data has no readable track.
        OutputError: if the run folder cannot be written.
    """
    kind = _KINDS.get(str(task))
    if kind is None:
        raise UnknownNameError(unknown_name_message("task", str(task), _KINDS))
    config: Any = kind.config.from_yaml(recipe, overrides)
    if config.devices > 1:
        raise TrainingError(f"devices is {config.devices}, but tasks of reconstruction train on one; set devices=1")
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    fabric = build_fabric(config)
    refuse_if_held(out)
    built = kind.build(config)
    run = (RunFolder.reopen if resume else RunFolder.create)(out, config, config.seed)
    with held(out):
        solver: Solver[nn.Module] = Solver(config, built, run, resume, fabric)
        _say(_opening(config, kind, solver))
        for line in built.warnings:
            _say(f"warning: {line}")
        result = solver.fit()
    best = "no validation"
    if result.best is not None:
        shown = {name: value for name, value in result.best["valid"].items() if name != "score"}
        best = f"best at epoch {result.best['epoch']}: " + "  ".join(f"{name} {v:.4f}" for name, v in shown.items())
    if result.stopped_by is not None:
        _say(f"stopped at step {result.step}; go on with: polyres train --out {out} --resume\n{best}")
    else:
        ended = f"finished after {result.step} steps, {result.elapsed_s:.0f} s; {best}"
        _say(f"{ended}\nuse it with: {kind.use(config, out)}")
    return result


def _opening(config: Any, kind: _Kind, solver: Solver[nn.Module]) -> str:
    """Word what is about to happen."""
    trained = sum(parameter.numel() for parameter in solver.model.parameters() if parameter.requires_grad)
    batch = f"{config.batch_size} × {config.data.segment_samples / config.data.sample_rate_hz:.1f} s"
    return (
        f"task       {kind.called(config)}: {trained:,} parameters\n"
        f"data       {' '.join(root.path for root in config.data.roots)}: batch {batch}\n"
        f"steps      {solver.steps_per_epoch} per epoch, at step {solver.state.step}, on {solver.fabric.device}\n"
        f"run        {solver.run.path}  {solver.run.identity['fingerprint']}"
    )


def _say(text: str) -> None:
    """Print to standard error, which keeps standard output for results."""
    print(text, file=sys.stderr, flush=True)
