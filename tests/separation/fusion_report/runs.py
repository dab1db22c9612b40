"""Small models and hand-made run folders for the tests of this folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from torch import Tensor

from polyres.core.config import Config
from polyres.nn.fusion.base import FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.weights import save_separator
from polyres.training.checkpoint import save_state, with_prefix
from polyres.training.run_folder import RunFolder

RATE_HZ = 8000
SMALL = SeparatorConfig(
    sources=("drums", "vocals"),
    sample_rate_hz=RATE_HZ,
    segment_samples=6000,
    n_fft=(512, 1024, 2048),
    channels=4,
    norm_starts=9,
    head="mask",
    wave_branch=False,
    transformer=TransformerConfig(kind="none"),
    output=FusionConfig(kind="source_weights"),
)


class Recipe(Config):
    """The part of a recipe that the analyses read."""

    model: SeparatorConfig = SMALL


def small(changes: Mapping[str, Any] | None = None, seed: int = 0) -> Separator:
    """A model whose branches differ and whose weights are not even."""
    model = Separator(SMALL.with_values(changes or {}), seed=seed).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 0:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def tables(model: Separator) -> dict[str, list[list[float]]]:
    """Its weights as a row of the metrics holds them."""
    return {name: weights.tolist() for name, weights in model.fusion_weights().items()}


def write_run(
    folder: Path, models: list[Separator], averages: Mapping[str, Separator] | None = None, best: bool = True
) -> RunFolder:
    """A finished run: one epoch per model; the last one is the checkpoint's raw weights."""
    last = models[-1]
    run = RunFolder.create(folder, Recipe(model=last.config), seed=0)
    for epoch, model in enumerate(models, start=1):
        norms = {f"branch@{n_fft}": float(epoch + place) for place, n_fft in enumerate(model.config.n_fft)}
        run.append_row({"epoch": epoch, "step": 10 * epoch, "grad_norms": norms, "fusion": tables(model)})
    tensors: dict[str, Tensor] = with_prefix("model", last.state_dict())
    for name, model in (averages or {}).items():
        tensors |= with_prefix(name, dict(model.named_parameters()))
    save_state(run.checkpoint, tensors, {"state": {}, "run": {}})
    if best:
        save_separator(last, run.best, {"epoch": len(models)}, dtype="fp32")
    return run


def write_tracks(folder: Path, lengths: tuple[int, ...] = (9000,), silent: str | None = None) -> Path:
    """Tracks of noise bursts and tones."""
    for number, length in enumerate(lengths):
        rng = np.random.default_rng(number)
        time = np.arange(length) / RATE_HZ
        bursts = 0.3 * rng.standard_normal((length, 2)) * (np.sin(2 * np.pi * 4 * time)[:, None] > 0.7)
        tone = 0.2 * np.sin(2 * np.pi * 440 * time)[:, None] * np.array([1.0, 0.8])
        track = folder / f"track {number}"
        track.mkdir(parents=True)
        for source, wave in (("drums", bursts), ("vocals", tone)):
            soundfile.write(track / f"{source}.wav", wave * (source != silent), RATE_HZ, subtype="FLOAT")
    return folder
