"""Filters of decoded waves by name: strength 0 is the identity, 1 the full filter."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.catalogue import Catalogue
from polyres.core.errors import ConfigError, InputError
from polyres.dsp.stft import istft, stft

WINDOW_S = 0.064
"""Length of the windows: 1024 samples at 16 kHz."""

WIENER_FLOOR = 0.1
"""Smallest gain of `wiener`: what is taken for noise is lowered by 20 dB at most."""

_NOISE_QUANTILE = 0.1
_NEIGHBOURS = 21

Gain = Callable[[Tensor], Tensor]
"""Takes magnitudes `[K, F, N]`, gives gains of the same shape."""


@dataclass(frozen=True)
class PostFilter:
    """A filter and where it is from."""

    name: str  # as in `POST_FILTERS`
    source: str  # paper or book
    gain: Gain  # what every time-frequency bin is multiplied with; phases stay


POST_FILTERS: Catalogue[PostFilter] = Catalogue("post filter")
"""Filters by name; `POST_FILTERS.build(name)` returns the `PostFilter`."""


def post_filter(name: str, wave: Tensor, sample_rate_hz: int, strength: float = 1.0) -> Tensor:
    """Filter a decoded wave.

    Args:
        name: of `POST_FILTERS`.
        wave: `[..., T]`, float32 or float64, T >= 1.
        sample_rate_hz: > 0.
        strength: 0 is the identity, 1 the full filter; up to 1.

    Raises:
        UnknownNameError: if there is no such filter.
        ConfigError: if the strength is not between 0 and 1.
        InputError: if the wave is empty or the rate not positive.
    """
    chosen = POST_FILTERS.build(name)
    if not 0 <= strength <= 1:
        raise ConfigError(f"strength is {strength}; 0 (nothing is changed) to 1 (the full filter) is possible")
    if sample_rate_hz <= 0 or wave.ndim < 1 or not wave.numel():
        raise InputError(f"a wave of shape {list(wave.shape)} at {sample_rate_hz} Hz cannot be filtered")
    if strength == 0:
        return wave
    n_fft = max(16, 2 ** round(math.log2(sample_rate_hz * WINDOW_S)))
    hop = n_fft // 4
    spectrum = stft(wave.reshape(-1, wave.shape[-1]), n_fft, hop)
    gain = chosen.gain(spectrum.abs())
    # Only what is changed goes through the transform and back; the rest keeps every bit.
    change = istft(spectrum * (gain - 1), hop, wave.shape[-1])
    return wave + strength * change.reshape(wave.shape)


def _median(values: Tensor, over_bins: int, over_frames: int) -> Tensor:
    """Return the median of every neighbourhood of `[K, F, N]`; edges repeat."""
    pad_bins, pad_frames = over_bins // 2, over_frames // 2
    padded = F.pad(values[:, None], (pad_frames, pad_frames, pad_bins, pad_bins), mode="replicate")[:, 0]
    around = padded.unfold(1, over_bins, 1).unfold(2, over_frames, 1)
    return around.flatten(-2).median(dim=-1).values


@POST_FILTERS.register("median", "magnitudes become the median of their 3 by 3 neighbourhood; phases stay")
def _build_median() -> PostFilter:
    """Build the smoothing of magnitudes by medians."""

    def gain(magnitude: Tensor) -> Tensor:
        tiny = torch.finfo(magnitude.dtype).tiny
        # A bin is never raised: its phase means little where it is far softer than its neighbours.
        return (_median(magnitude, 3, 3) / magnitude.clamp_min(tiny)).clamp_max(1)

    return PostFilter("median", "Tukey 1977, Exploratory data analysis; on spectrograms FitzGerald 2010", gain)


@POST_FILTERS.register("wiener", "lowers bins near the steady noise floor; phases stay")
def _build_wiener() -> PostFilter:
    """Build a Wiener filter whose noise is the floor that every band falls back to."""

    def gain(magnitude: Tensor) -> Tensor:
        power = magnitude.square()
        tiny = torch.finfo(power.dtype).tiny
        floor = torch.quantile(power, _NOISE_QUANTILE, dim=-1, keepdim=True)
        # A steady tone is no noise: the floor of a bin cannot stand out of those around it.
        around = _median(floor, min(_NEIGHBOURS, floor.shape[1] // 2 * 2 - 1), 1)
        # Of noise with exponentially distributed power the quantile is this share of the mean.
        noise = torch.minimum(floor, around) / -math.log(1 - _NOISE_QUANTILE)
        smooth = F.avg_pool1d(F.pad(power, (1, 1), mode="replicate"), 3, 1)
        ratio = (smooth / noise.clamp_min(tiny) - 1).clamp_min(0)
        return (ratio / (1 + ratio)).clamp_min(WIENER_FLOOR)

    return PostFilter("wiener", "Wiener 1949; noise by minimum statistics, Martin 2001, as one quantile", gain)
