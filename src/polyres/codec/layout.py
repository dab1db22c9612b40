"""Check the tensors of a latent against codec and length before decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from polyres.audio.resample import resampled_length
from polyres.audio.sources import BlockSource, channel_groups
from polyres.codec.base import Codec
from polyres.codec.enhance.context import MelStatistics
from polyres.codec.latent import Latent, to_half
from polyres.codec.staged.codec import AVERAGES, StagedCodec
from polyres.codec.stream import (
    LOG2_PEAK,
    LOUDEST_LOG2,
    LOUDEST_MEAN,
    MEAN,
    SILENCE_LOG2,
    Measured,
    measure,
    run_encoder,
    step_count,
)
from polyres.codec.windows import Tensors
from polyres.core.errors import ConfigError

RANGES = {
    MEAN: (-LOUDEST_MEAN, LOUDEST_MEAN),
    LOG2_PEAK: (SILENCE_LOG2, LOUDEST_LOG2),
    **dict.fromkeys(AVERAGES, (-64.0, 64.0)),
    AVERAGES[1]: (0.0, 64.0),
}
"""What side information may be."""


def check_layout(latent: Latent, codec: Codec) -> None:
    """Refuse a latent whose counts, shapes or levels the codec cannot have written."""
    if latent.sample_rate_hz != codec.sample_rate_hz:
        raise latent.damaged(f"sample_rate_hz is {latent.sample_rate_hz}; {codec.name} has {codec.sample_rate_hz}")
    groups = len(channel_groups(latent.channels, codec.audio_channels))
    steps = step_count(codec, resampled_length(latent.length_samples, latent.input_rate_hz, codec.sample_rate_hz))
    told = {key: latent.config[key] for key in codec.code_settings if key in latent.config}
    try:
        one = (codec.reconfigured(told) if told else codec).step_shapes()
    except ConfigError as error:
        raise latent.damaged(f"its config: {error}") from error
    _compare(
        latent,
        {name: tuple(value.shape) for name, value in latent.tensors.items()},
        {name: (groups, shape[0], steps * shape[1], *shape[2:]) for name, shape in one.items()},
    )
    side = {MEAN: (latent.channels, 2), LOG2_PEAK: (latent.channels,)} if codec.level == "peak" else {}
    if any(name in latent.side for name in AVERAGES):
        bands = latent.side[AVERAGES[0]].shape[-1:] if AVERAGES[0] in latent.side else (0,)
        side |= dict.fromkeys(AVERAGES[:2], (groups, *bands)) | {AVERAGES[2]: (groups,)}
    _compare(latent, {name: tuple(value.shape) for name, value in latent.side.items()}, side)
    for name, value in latent.side.items():
        _check_range(latent, name, value)


def _compare(latent: Latent, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    for name in dict.fromkeys((*wanted, *found)):
        if found.get(name) != wanted.get(name):
            here, there = (list(shapes[name]) if name in shapes else "absent" for shapes in (found, wanted))
            raise latent.damaged(
                f"{name!r} is {here}; for {latent.length_samples} samples at {latent.input_rate_hz} Hz in "
                f"{latent.channels} channels it must be {there}"
            )


def _check_range(latent: Latent, name: str, value: Tensor) -> None:
    low, high = RANGES[name]
    if not bool(((value >= low) & (value <= high)).all()):
        raise latent.damaged(
            f"{name!r} goes from {float(value.min()):g} to {float(value.max()):g}; {low:g} to {high:g} is possible"
        )


def mel_averages(source: BlockSource, codec: Codec, found: Measured, mel: Callable[[Tensor], Tensor]) -> MelStatistics:
    """Average the log-mel spectra of a source window by window: `[G, M]` and `[G]` for G groups of channels."""

    def run(window: Tensors) -> Tensors:
        return {"mel": mel(window["wave"])[:, None].double().cpu()}

    count, total, squares, power = 0, torch.zeros(()), torch.zeros(()), torch.zeros(())
    for block in run_encoder(source, codec, found, run):
        spectra: Tensor = block["mel"][:, 0]
        count += spectra.shape[1]
        total, squares = total + spectra.sum(dim=1), squares + spectra.square().sum(dim=1)
        power = power + (2 * spectra).exp().sum(dim=(1, 2))
    mean = total / count
    std = (squares / count - mean.square()).clamp_min(0).sqrt()
    level = (power / (count * mean.shape[1])).log() / 2
    device = codec.device
    return MelStatistics(mean.float().to(device), std.float().to(device), level.float().to(device), informed=True)


def measured(source: BlockSource, codec: Codec) -> Measured:
    """Measure lengths, levels and, where latents carry them, averages of a source."""
    found = measure(source, codec)
    if not isinstance(codec, StagedCodec) or not codec.sends_averages:
        return found
    averages = mel_averages(source, codec, found, codec.picture.mel)
    values = (averages.mean, averages.std, averages.level)
    sent = {name: to_half(value, name) for name, value in zip(AVERAGES, values, strict=True)}
    return replace(found, side={**found.side, **sent})
