"""Augmentations of tempo and pitch, through the Signalsmith Stretch library."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.data.augment_base import AUGMENTATIONS
from polyres.data.augment_config import AugmentConfig, TempoConfig

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

    Args:
        wave: `[C, T]` with T ≥ 1.
        semitones: by which the pitch rises.
        speed: factor on the tempo, above 0.
        sample_rate_hz: of the wave.

    Returns:
        `[C, round(T / speed)]`; what was at sample n is at n / speed.

    Raises:
        ConfigError: if the library is not installed.

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
