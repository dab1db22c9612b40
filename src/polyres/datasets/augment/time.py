"""Augmentations in time: shifts, crops, exchange between items, tempo and pitch."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyres.core.errors import ConfigError, InputError
from polyres.datasets.augment.base import AUGMENTATIONS, draw_chosen
from polyres.datasets.augment.config import AugmentConfig, TempoConfig


@AUGMENTATIONS.register("remix", "exchange stems between the items of a batch")
def remix(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Permute each chosen source within every group of items, independently of the other sources and groups."""
    batch, sources = stems.shape[:2]
    groups = remix_groups(batch, config.remix.group_size)
    columns = []
    chosen = torch.rand(sources, generator=generator) < config.remix.probability
    for source in range(sources):
        order = torch.cat([group[torch.randperm(len(group), generator=generator)] for group in groups])
        columns.append(order if chosen[source] else torch.arange(batch))
    order = torch.stack(columns, dim=1).to(stems.device)
    return stems[order, torch.arange(sources, device=stems.device)]


def remix_groups(batch: int, group_size: int | None) -> tuple[Tensor, ...]:
    """Cut the items of a batch into runs that exchange stems."""
    return torch.tensor_split(torch.arange(batch), max(1, batch // (group_size or batch)))


@AUGMENTATIONS.register("shift", "move each stem a little in time")
def shift(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Move each chosen stem later or earlier; zeros move in and nothing wraps around."""
    length = stems.shape[-1]
    limit = min(config.shift.max_samples, length)
    offsets = torch.randint(-limit, limit + 1, stems.shape[:2], generator=generator)
    chosen = draw_chosen(stems, config.shift.probability, generator)
    moved = stems.clone()
    for item, source in chosen.nonzero().tolist():
        offset = int(offsets[item, source])
        kept = length - abs(offset)
        moved[item, source] = 0.0
        start_to, start_from = max(offset, 0), max(-offset, 0)
        moved[item, source, :, start_to : start_to + kept] = stems[item, source, :, start_from : start_from + kept]
    return moved


@AUGMENTATIONS.register("crop", "cut a shorter segment, each stem at its own place")
def crop(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Cut every stem to the segment less the shift, each chosen one from a random place, the others from the start."""
    settings = config.crop
    spare = crop_samples(config)
    length = stems.shape[-1] - spare
    if length < 1:
        raise InputError(
            f"segments of {stems.shape[-1]} samples leave nothing after crop.shift_s = {settings.shift_s:g} s "
            f"({spare} samples); read longer segments or lower it"
        )
    if spare == 0:
        return stems
    offsets = torch.randint(spare, stems.shape[:2], generator=generator)
    offsets = offsets * draw_chosen(stems, settings.probability, generator).cpu()
    if settings.same:
        offsets = offsets[:, :1].expand_as(offsets)
    items = [
        torch.stack([stem[:, start : start + length] for stem, start in zip(item, starts, strict=True)])
        for item, starts in zip(stems, offsets.tolist(), strict=True)
    ]
    return torch.stack(items)


def crop_samples(config: AugmentConfig) -> int:
    """Return by how many samples `crop` shortens a segment."""
    return round(config.crop.shift_s * config.sample_rate_hz)


_PADDING_S = 0.25  # two blocks of the library, which fades out what it takes for the end
_PAIR = 2  # channels that the library takes at a time


@AUGMENTATIONS.register("repitch", "move the pitch by semitones, and the tempo")
def repitch(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Move pitch and tempo of each chosen item or stem."""
    limit = config.repitch.max_semitones
    semitones = torch.randint(-limit, limit + 1, stems.shape[:2], generator=generator)
    return _stretch_chosen(stems, semitones, config.repitch, config.sample_rate_hz, generator)


@AUGMENTATIONS.register("tempo", "play faster or slower at the same pitch")
def tempo(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change the tempo of each chosen item or stem."""
    semitones = torch.zeros(stems.shape[:2], dtype=torch.long)
    return _stretch_chosen(stems, semitones, config.tempo, config.sample_rate_hz, generator)


def trimmed_length(length_samples: int, settings: TempoConfig) -> int:
    """Return the samples that a tempo augmentation makes of a segment: fewer only where it trims."""
    return int(length_samples * (1.0 - settings.max_tempo_percent / 100.0)) if settings.trim else length_samples


def _stretch_chosen(
    stems: Tensor, semitones: Tensor, settings: TempoConfig, sample_rate_hz: int, generator: torch.Generator
) -> Tensor:
    """Stretch stems `[B, S, C, T]` by these semitones and a random tempo."""
    if settings.probability > 0.0:
        _library()  # a recipe that lacks it stops at the first batch, and not where the first stem is chosen
    limit = settings.max_tempo_percent
    percent = (torch.randn(semitones.shape, generator=generator) * settings.tempo_std_percent).clamp(-limit, limit)
    chosen = torch.rand(semitones.shape, generator=generator) < settings.probability
    if settings.same:
        semitones, percent, chosen = (drawn[:, :1].expand_as(drawn) for drawn in (semitones, percent, chosen))
    length = trimmed_length(stems.shape[-1], settings)
    changes = chosen & ((semitones != 0) | (percent != 0.0))
    if not changes.any():
        return stems[..., :length]
    result = stems[..., :length].clone()
    for item, source in changes.nonzero().tolist():
        wave = stems[item, source].to("cpu", torch.float32).numpy()
        if not wave.any():
            continue
        speed = 1.0 + float(percent[item, source]) / 100.0
        moved = stretch(wave, float(semitones[item, source]), speed, sample_rate_hz)[:, :length]
        result[item, source] = 0.0
        result[item, source, :, : moved.shape[1]] = torch.from_numpy(moved).to(stems)
    return result


def stretch(
    wave: npt.NDArray[np.float32], semitones: float, speed: float, sample_rate_hz: int
) -> npt.NDArray[np.float32]:
    """Change pitch and tempo of a signal, the one without the other.

    `wave`: `[C, T]` with T ≥ 1. Returns `[C, round(T / speed)]`; what was at sample n is at n / speed.

    Source: https://github.com/Signalsmith-Audio/signalsmith-stretch, https://github.com/gregogiudici/python-stretch.
    """
    library = _library()
    length = round(wave.shape[1] / speed)
    padding = round(_PADDING_S * sample_rate_hz)
    padded = np.pad(wave, ((0, 0), (0, padding)), mode="symmetric")
    parts = []
    for first in range(0, len(wave), _PAIR):
        pair = np.ascontiguousarray(padded[first : first + _PAIR], np.float32)
        stretcher = library.Stretch(0)
        stretcher.preset(len(pair), float(sample_rate_hz))
        stretcher.setTransposeSemitones(semitones)
        stretcher.timeFactor = speed
        parts.append(stretcher.process(pair)[:, :length])
    return np.concatenate(parts)


def _library() -> ModuleType:
    try:
        from python_stretch import Signalsmith
    except ImportError as error:
        raise ConfigError(
            "the augmentations repitch and tempo need python-stretch; install it with pip install 'polyres[augment]' "
            "or take them out of augment.chain"
        ) from error
    return Signalsmith
