"""Averages of a source's mel spectra, for enhancers that match them: told, or sent along with a latent."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from polyres.inference.codec_stream import Measured, measure, run_encoder
from polyres.inference.codec_windows import Tensors
from polyres.inference.sources import BlockSource
from polyres.models.codec_base import Codec
from polyres.models.codec_latent import to_half
from polyres.models.staged import AVERAGES, StagedCodec
from polyres.nn.enhance_context import MelStatistics


def mel_averages(source: BlockSource, codec: Codec, found: Measured, mel: Callable[[Tensor], Tensor]) -> MelStatistics:
    """Measure the log-mel spectra of a source, window by window.

    Args:
        source: where samples come from; it is read once.
        codec: whose rate, level and windows are used.
        found: of a first pass over the source.
        mel: takes waves `[G, C, n]`, gives log-mel spectra `[G, N, M]`.

    Returns:
        Averages of each group of channels, `[G, M]` and `[G]`, on the device of the codec.

    Raises:
        InputError: when the source cannot be used.
    """

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
    """First pass over a source, and a second one where latents carry averages of it.

    Args:
        source: where samples come from.
        codec: what is to code them.

    Returns:
        Lengths, levels, and averages as they are stored.

    Raises:
        InputError: when the source cannot be used.
    """
    found = measure(source, codec)
    if not isinstance(codec, StagedCodec) or not codec.sends_averages:
        return found
    averages = mel_averages(source, codec, found, codec.picture.mel)
    values = (averages.mean, averages.std, averages.level)
    sent = {name: to_half(value, name) for name, value in zip(AVERAGES, values, strict=True)}
    return replace(found, side={**found.side, **sent})
