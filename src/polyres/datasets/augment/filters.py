"""Augmentations that filter: equalisation, dullness and rooms."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyres.datasets.augment.base import AUGMENTATIONS, change_chosen, draw_chosen, draw_uniform, fast_fft_size
from polyres.datasets.augment.config import AugmentConfig, ReverbConfig


@AUGMENTATIONS.register("eq", "random tilt, shelves and peaks")
def eq(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Filter each chosen stem with its own smooth zero-phase curve."""
    settings = config.eq
    count = stems.shape[0] * stems.shape[1]

    def spread(deviation: float) -> Tensor:
        return (torch.randn(count, 1, generator=generator) * deviation).to(stems)

    def curve(frequency_hz: Tensor) -> Tensor:
        octave = torch.log2(frequency_hz.clamp(min=20.0) / 1000.0)
        gain_db = spread(settings.tilt_db_per_octave) * octave
        for low, high, side in ((-4.0, -1.5, -1.0), (1.0, 3.5, 1.0)):
            corner = draw_uniform((count, 1), (low, high), stems, generator)
            gain_db = gain_db + spread(settings.shelf_db) * torch.sigmoid(side * 4.0 * (octave - corner))
        for _ in range(settings.peaks):
            centre = draw_uniform((count, 1), (-4.0, 4.0), stems, generator)
            octaves = draw_uniform((count, 1), (0.3, 1.5), stems, generator)
            gain_db = gain_db + spread(settings.peak_db) * torch.exp(-0.5 * ((octave - centre) / octaves) ** 2)
        return 10.0 ** (gain_db.clamp(-settings.max_db, settings.max_db) / 20.0)

    chosen = draw_chosen(stems, settings.probability, generator)
    return _filter_chosen(stems, chosen, curve, config.sample_rate_hz)


@AUGMENTATIONS.register("low_pass", "make a stem dull")
def low_pass(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Cut the treble of each chosen stem above a random frequency, about 50 dB within half an octave."""
    low, high = (torch.log2(torch.tensor(bound)).item() for bound in config.low_pass.cutoff_hz)
    count = stems.shape[0] * stems.shape[1]
    cutoff = draw_uniform((count, 1), (low, high), stems, generator)

    def curve(frequency_hz: Tensor) -> Tensor:
        above = (torch.log2(frequency_hz.clamp(min=20.0)) - cutoff).clamp(0.0, 0.5)
        return 10.0 ** (-100.0 * above / 20.0)

    chosen = draw_chosen(stems, config.low_pass.probability, generator)
    return _filter_chosen(stems, chosen, curve, config.sample_rate_hz)


_CURVE_POINTS = 512


def _filter_chosen(stems: Tensor, chosen: Tensor, curve: Callable[[Tensor], Tensor], sample_rate_hz: int) -> Tensor:
    """Filter the chosen stems; `curve` maps frequencies `[F]` in Hz to gains `[B * S, F]`."""
    # The curve is smooth in log frequency, so it is drawn on few points and interpolated.
    top = torch.log2(torch.tensor(sample_rate_hz / 2.0)).item()
    points = torch.linspace(0.0, 1.0, _CURVE_POINTS, device=stems.device)
    bottom = 4.0  # 16 Hz
    gains = curve(2.0 ** (bottom + points * (top - bottom)))
    if not chosen.any():
        return stems
    picked = stems[chosen]
    length = picked.shape[-1]
    size = fast_fft_size(length + sample_rate_hz // 50)
    frequency_hz = torch.fft.rfftfreq(size, 1.0 / sample_rate_hz, device=stems.device).clamp(min=16.0)
    place = ((torch.log2(frequency_hz) - bottom) / (top - bottom)).clamp(0.0, 1.0) * (_CURVE_POINTS - 1)
    left = place.floor().long().clamp(max=_CURVE_POINTS - 2)
    share = (place - left).to(gains)
    gains = gains[chosen.flatten()]
    response = gains[:, left] * (1.0 - share) + gains[:, left + 1] * share
    spectrum = torch.fft.rfft(picked, size) * response[:, None]
    result = stems.clone()
    result[chosen] = torch.fft.irfft(spectrum, size)[..., :length].to(stems.dtype)
    return result


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

    Returns float32 `[C, N]`: 1 at sample 0 for the direct sound, then the room, of the same energy in all channels.
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
