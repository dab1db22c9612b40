"""Filters for decoded waves by name."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.catalogue import Catalogue
from polyres.ops.framing import FrameTransform, Framing

PostFilter = Callable[[Tensor], Tensor]
"""Takes waves `[B, C, T]`, gives waves of the same shape."""

POST_FILTERS: Catalogue[PostFilter] = Catalogue("post filter")

N_FFT, HOP = 1024, 256
QUIET_SHARE = 0.25
"""Quantile over time of the power of a bin that `wiener` takes for noise."""
OVERSUBTRACTION, SMALLEST_GAIN = 1.5, 0.1


def post_filter(name: str, wave: Tensor) -> Tensor:
    """Filter decoded waves.

    Args:
        name: in POST_FILTERS.
        wave: `[B, C, T]` float32.

    Returns:
        Same shape; waves shorter than a frame as they are.

    Raises:
        UnknownNameError: on an unknown name.
    """
    run = POST_FILTERS.build(name)
    return run(wave) if wave.shape[-1] > N_FFT else wave


def _with_gains(wave: Tensor, gains: Callable[[Tensor], Tensor]) -> Tensor:
    """Multiply the spectra with gains that follow from their magnitudes `[B, N, F]`."""
    flat = wave.flatten(0, 1)
    transform = FrameTransform(Framing.centred(N_FFT, HOP, wave.shape[-1]), wave.dtype, wave.device)
    spectra = transform.analyse(flat)
    return transform.synthesise(spectra * gains(spectra.abs())).reshape(wave.shape)


@POST_FILTERS.register("spectral_smoothing", "median of every 3 x 3 neighbours in the magnitude spectrogram")
def _build_smoothing() -> PostFilter:
    """Build the median filter: it takes single peaks and holes away."""

    def gains(magnitude: Tensor) -> Tensor:
        padded = F.pad(magnitude[:, None], (1, 1, 1, 1), mode="replicate")
        around = padded.unfold(2, 3, 1).unfold(3, 3, 1).flatten(-2)[:, 0]
        return around.median(dim=-1).values / magnitude.clamp_min(1e-9)

    def run(wave: Tensor) -> Tensor:
        return _with_gains(wave, lambda magnitude: gains(magnitude).clamp_max(10.0))

    return run


@POST_FILTERS.register("wiener", "takes what never stops in a bin for noise and turns the bin down when it is near it")
def _build_wiener() -> PostFilter:
    """Build the Wiener-like filter.

    Source: Boll, "Suppression of acoustic noise in speech using spectral subtraction", IEEE TASSP 1979.
    """

    def gains(magnitude: Tensor) -> Tensor:
        power = magnitude.square()
        floor = torch.quantile(power, QUIET_SHARE, dim=1, keepdim=True)
        return (1 - OVERSUBTRACTION * floor / power.clamp_min(1e-18)).clamp(SMALLEST_GAIN, 1.0)

    return lambda wave: _with_gains(wave, gains)
