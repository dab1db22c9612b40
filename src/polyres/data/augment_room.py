"""Augmentation by rooms: synthetic responses with early reflections and a decaying tail."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.data.augment_base import AUGMENTATIONS, change_chosen, draw_uniform
from polyres.data.augment_config import AugmentConfig, ReverbConfig
from polyres.data.augment_filter import fast_fft_size

_REFLECTIONS = 10
_EARLY_S = 0.06  # reflections are told apart for about this long
_EARLY_SHARE = (0.2, 0.6)  # of the room's energy
_BUILD_UP_S = 0.01
_DAMPING_HZ = (1_500.0, 6_000.0)  # walls and air take the treble above this
_DAMPING = 0.4  # of the time that the bass takes to decay


@AUGMENTATIONS.register("reverb", "put a stem into a random room")
def reverb(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Add a random room to each chosen stem; the direct sound stays where it is, and the RMS what it is."""

    def place(stem: Tensor, own: torch.Generator) -> Tensor:
        response = room_response(config.reverb, stem.shape[0], config.sample_rate_hz, own)[:, : stem.shape[1]]
        size = fast_fft_size(stem.shape[1] + response.shape[1] - 1)
        wet = torch.fft.irfft(torch.fft.rfft(stem, size) * torch.fft.rfft(response, size), size)[:, : stem.shape[1]]
        return wet * (stem.square().mean().sqrt() / wet.square().mean().sqrt().clamp(min=1e-12))

    return change_chosen(stems, config.reverb.probability, generator, place)


def room_response(settings: ReverbConfig, channels: int, sample_rate_hz: int, generator: torch.Generator) -> Tensor:
    """Draw the response of a room.

    Args:
        settings: ranges of decay, level and delay.
        channels: C, which hear the room from different places.
        sample_rate_hz: of the response.
        generator: source of randomness.

    Returns:
        float32 `[C, N]`: 1 at sample 0 for the direct sound, then the room, of the same energy in all channels.
    """
    like = torch.empty(0)
    decay_s, level_db, delay_s = (
        float(draw_uniform((1,), bounds, like, generator))
        for bounds in (settings.decay_s, settings.level_db, settings.delay_s)
    )
    early_share = float(draw_uniform((1,), _EARLY_SHARE, like, generator))
    onset = max(1, round(delay_s * sample_rate_hz))
    length = onset + max(round((decay_s + _EARLY_S) * sample_rate_hz), _REFLECTIONS)
    early = _reflections(channels, length, onset, sample_rate_hz, generator)
    late = _tail(channels, length - onset, decay_s, sample_rate_hz, generator)
    room = early * early_share**0.5
    room[:, onset:] += late * (1.0 - early_share) ** 0.5
    room *= 10.0 ** (level_db / 20.0) / room.square().sum(dim=1, keepdim=True).sqrt()
    room[:, 0] = 1.0
    return room


def _reflections(channels: int, length: int, onset: int, sample_rate_hz: int, generator: torch.Generator) -> Tensor:
    """Draw single echoes `[C, N]` of unit energy, later ones weaker, at times of its own in every channel."""
    span = max(1, round(_EARLY_S * sample_rate_hz))
    delays = torch.randint(span, (channels, _REFLECTIONS), generator=generator)
    signs = 2.0 * torch.randint(2, delays.shape, generator=generator) - 1.0
    strengths = signs * draw_uniform(tuple(delays.shape), (0.4, 1.0), torch.empty(0), generator)
    echoes = torch.zeros(channels, length)
    echoes.scatter_add_(1, onset + delays, strengths * onset / (onset + delays))
    return echoes / echoes.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-6)


def _tail(channels: int, length: int, decay_s: float, sample_rate_hz: int, generator: torch.Generator) -> Tensor:
    """Draw noise `[C, N]` of unit energy that decays by 60 dB in `decay_s`, its treble faster."""
    size = fast_fft_size(length)
    corner_hz = float(draw_uniform((1,), _DAMPING_HZ, torch.empty(0), generator))
    spectrum = torch.fft.rfft(torch.randn(channels, size, generator=generator))
    share = 1.0 / (1.0 + (torch.fft.rfftfreq(size, 1.0 / sample_rate_hz) / corner_hz) ** 2)
    bass, treble = (torch.fft.irfft(part, size)[:, :length] for part in (spectrum * share, spectrum * (1.0 - share)))
    time_s = torch.arange(length) / sample_rate_hz
    tail = bass * 10.0 ** (-3.0 * time_s / decay_s) + treble * 10.0 ** (-3.0 * time_s / (_DAMPING * decay_s))
    tail = tail * (1.0 - torch.exp(-time_s / _BUILD_UP_S))
    return tail / tail.square().sum(dim=1, keepdim=True).sqrt().clamp(min=1e-6)
