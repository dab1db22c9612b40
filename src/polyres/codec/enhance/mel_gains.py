"""Apply enhancers of mel spectra to decoded waves as gains; phases stay."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.codec.enhance.context import EnhanceContext
from polyres.codec.enhance.enhancers import ENHANCERS, enhance
from polyres.core.errors import ConfigError
from polyres.dsp.framing import FrameTransform
from polyres.dsp.mel import MelConfig, mel_centres_hz, mel_framing, mel_of_magnitude

MOST_GAIN_NEPER = 4.6
"""40 dB: silence is not turned into noise."""


def enhance_wave(name: str, wave: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    """Apply the change that an enhancer makes to the mel spectrum of waves `[B, C, T]` as gains; phases stay."""
    if ENHANCERS.build(name).domain != "mel":
        raise ConfigError(f"enhancer {name!r} changes latents; only those of mel spectra can change waves")
    if strength == 0:
        return wave
    config = context.mel
    transform = FrameTransform(mel_framing(config, wave.shape[-1]), wave.dtype, wave.device)
    magnitude = transform.analyse(wave.mean(dim=1)).abs().transpose(-1, -2)
    before = mel_of_magnitude(magnitude, config).clamp_min(config.floor).log()
    change = enhance(name, before, strength, context) - before
    gain = (change.clamp(-MOST_GAIN_NEPER, MOST_GAIN_NEPER) @ _spread(config).to(change)).exp()
    spectra = transform.analyse(wave.flatten(0, 1))
    added = spectra * (gain.repeat_interleave(wave.shape[1], dim=0) - 1)
    # Only what is changed goes through the transform and back; the rest keeps every bit.
    return wave + transform.synthesise(added).reshape(wave.shape)


def _spread(config: MelConfig) -> Tensor:
    """Weights `[M, F]` of mel bands at every bin: straight lines between their middles, the ends go on."""
    bins_hz = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64) * config.sample_rate_hz / config.n_fft
    centres_hz = mel_centres_hz(config)
    right = torch.searchsorted(centres_hz, bins_hz).clamp(1, len(centres_hz) - 1)
    left = right - 1
    share = ((bins_hz - centres_hz[left]) / (centres_hz[right] - centres_hz[left])).clamp(0, 1)
    weights = torch.zeros(len(centres_hz), len(bins_hz), dtype=torch.float64)
    columns = torch.arange(len(bins_hz))
    weights[left, columns] = 1 - share
    weights[right, columns] += share
    return weights
