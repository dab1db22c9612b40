"""The catalogue of augmentations, how stems and amounts are drawn, and changes of level."""

from __future__ import annotations

from collections.abc import Callable

import torch
from scipy.fft import next_fast_len
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.datasets.augment.config import AugmentConfig

Augmentation = Callable[[Tensor, AugmentConfig, torch.Generator], Tensor]
AUGMENTATIONS: Catalogue[Tensor] = Catalogue("augmentation")
"""Functions of stems, config and generator that return new stems and leave the given ones as they are."""

_SEEDS = 1 << 31


def draw_uniform(
    shape: tuple[int, ...], bounds: tuple[float, float], like: Tensor, generator: torch.Generator
) -> Tensor:
    """Draw numbers between two bounds, on the device and in the type of `like`."""
    drawn = torch.rand(shape, generator=generator) * (bounds[1] - bounds[0]) + bounds[0]
    return drawn.to(like)


def draw_chosen(stems: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Draw which stems `[B, S]` are changed."""
    return (torch.rand(stems.shape[:2], generator=generator) < probability).to(stems.device)


def change_chosen(
    stems: Tensor, probability: float, generator: torch.Generator, change: Callable[[Tensor, torch.Generator], Tensor]
) -> Tensor:
    """Change the chosen stems one by one, each with a generator of its own, and do nothing for the others.

    What a stem needs at random thus depends neither on how many are changed before it nor on how much those draw.

    `stems`: `[B, S, C, T]`; left as it is. `probability`: of each stem's being changed, 0 to 1. `generator`: chooses
    the stems and seeds their generators. `change`: maps float32 `[C, T]` on the CPU, and a generator, to the same
    shape; a silent stem is not handed over. Returns `[B, S, C, T]`; `stems` itself where nothing changes.
    """
    chosen = draw_chosen(stems, probability, generator)
    seeds = torch.randint(_SEEDS, stems.shape[:2], generator=generator)
    audible = (stems != 0).flatten(2).any(dim=2)
    picked = (chosen & audible).nonzero().tolist()
    if not picked:
        return stems
    result = stems.clone()
    for item, source in picked:
        own = torch.Generator().manual_seed(int(seeds[item, source]))
        result[item, source] = change(stems[item, source].to("cpu", torch.float32), own).to(stems)
    return result


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


def fast_fft_size(length: int) -> int:
    """Return the smallest even size of at least `length` whose prime factors are 2, 3 and 5."""
    return 2 * int(next_fast_len(-(-length // 2), real=True))
