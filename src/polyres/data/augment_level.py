"""Augmentations of level, sign, channels and waveform."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.data.augment_base import AUGMENTATIONS, change_chosen, draw_chosen, draw_uniform
from polyres.data.augment_config import AugmentConfig
from polyres.data.augment_filter import fast_fft_size


@AUGMENTATIONS.register("gain", "multiply each stem by a random factor")
def gain(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Multiply each chosen stem by a random factor."""
    factors = draw_uniform((*stems.shape[:2], 1, 1), config.gain.range, stems, generator)
    chosen = draw_chosen(stems, config.gain.probability, generator)[..., None, None]
    return stems * torch.where(chosen, factors, 1.0)


@AUGMENTATIONS.register("flip_channels", "swap left and right")
def flip_channels(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Reverse the channels of each chosen stem."""
    chosen = draw_chosen(stems, config.flip_channels.probability, generator)
    result = stems.clone()
    result[chosen] = stems[chosen].flip(1)
    return result


@AUGMENTATIONS.register("flip_sign", "turn the wave upside down")
def flip_sign(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Negate each chosen stem."""
    chosen = draw_chosen(stems, config.flip_sign.probability, generator)[..., None, None]
    return stems * (1.0 - 2.0 * chosen.to(stems.dtype))


@AUGMENTATIONS.register("width", "change the stereo width, down to mono")
def width(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Scale what differs between the channels of each chosen stem; their mean stays."""
    shape = (*stems.shape[:2], 1, 1)
    factors = draw_uniform(shape, config.width.range, stems, generator)
    mono = torch.rand(shape, generator=generator).to(stems) < config.width.mono_probability
    chosen = draw_chosen(stems, config.width.probability, generator)
    if not chosen.any():
        return stems
    picked = stems[chosen]
    middle = picked.mean(dim=1, keepdim=True)
    result = stems.clone()
    result[chosen] = torch.lerp(middle, picked, factors.masked_fill(mono, 0.0)[chosen])
    return result


@AUGMENTATIONS.register("saturation", "soft clipping at an unchanged level")
def saturation(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Bend the peaks of each chosen stem with tanh and bring its RMS back."""
    drive = draw_uniform((*stems.shape[:2], 1, 1), config.saturation.drive, stems, generator)
    chosen = draw_chosen(stems, config.saturation.probability, generator)
    if not chosen.any():
        return stems
    picked = stems[chosen]
    rms = picked.square().mean(dim=(1, 2), keepdim=True).sqrt()
    knee = drive[chosen] * rms + 1e-8
    bent = knee * torch.tanh(picked / knee)
    bent = bent * (rms / (bent.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-8))
    result = stems.clone()
    result[chosen] = bent
    return result


@AUGMENTATIONS.register("noise", "add noise below the stem's level")
def noise(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Add noise of a random colour to each chosen stem, its level given relative to the stem's RMS."""
    settings = config.noise

    def add(stem: Tensor, own: torch.Generator) -> Tensor:
        level_db = draw_uniform((1,), settings.level_db, stem, own)
        tilt = draw_uniform((1,), settings.tilt_db_per_octave, stem, own)
        size = fast_fft_size(stem.shape[-1])
        frequency_hz = torch.fft.rfftfreq(size, 1.0 / config.sample_rate_hz).clamp(min=20.0)
        response = 10.0 ** (tilt * torch.log2(frequency_hz / 1000.0) / 20.0)
        white = torch.fft.rfft(torch.randn((stem.shape[0], size), generator=own))
        shaped = torch.fft.irfft(white * response, size)[:, : stem.shape[1]]
        wanted_rms = stem.square().mean().sqrt() * 10.0 ** (level_db / 20.0)
        return stem + shaped * (wanted_rms / shaped.square().mean().sqrt().clamp(min=1e-12))

    return change_chosen(stems, settings.probability, generator, add)
