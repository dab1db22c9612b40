"""Augmentations that filter: random equalisation and dullness."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyres.data.augment_base import AUGMENTATIONS, draw_chosen, draw_uniform
from polyres.data.augment_config import AugmentConfig


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


def fast_fft_size(length: int) -> int:
    """Return the smallest even size of at least `length` whose prime factors are 2, 3 and 5."""
    best = 1 << max(1, (length - 1).bit_length())
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 2 * three
            while two < length:
                two *= 2
            best = min(best, two)
            three *= 3
        five *= 5
    return best
