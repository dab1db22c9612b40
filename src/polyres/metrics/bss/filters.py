"""Distortion filters of BSSEval: from the correlations of a track, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.metrics.bss.threads import side_by_side
from polyres.metrics.bss.toeplitz import solve
from polyres.metrics.waves import Track

FILTER_SAMPLES = 512
_STRIDE = 61
_BLOCKS = {"cpu": (4096, 4), "cuda": (65536, 16)}
"""FFT size, and how many of them at once, by kind of device."""


@dataclass(frozen=True)
class Correlations:
    """Correlations that determine the filters of a track."""

    lags: Tensor  # `[R, R + E, 512]`: reference channel at t times any channel at t + lag, summed over t
    sources: int  # number of sources S; R = E = S·C
    silent: bool  # True if a source or an estimate is silent from beginning to end


def silent_sources(piece: Tensor) -> Tensor:
    """Say which sources of `[S, C, n]` are silent: their channels sum to exactly 0 in every sample, as in museval."""
    heard = piece[..., ::_STRIDE].sum(dim=1).any(dim=-1)  # settles nearly all cases without a look at every sample
    return ~heard if bool(heard.all()) else ~piece.sum(dim=1).any(dim=-1)


def correlate(track: Track, threads: int = 1) -> Correlations:
    """Correlate all channels of a track over lags 0 to 511 in one pass of bounded memory."""
    n_fft, count = _BLOCKS.get(track.device.type, _BLOCKS["cpu"])
    span = count * (n_fft - FILTER_SAMPLES + 1) + FILTER_SAMPLES - 1
    total: Tensor | None = None
    silent: Tensor | None = None
    sources = 0

    def pieces() -> Iterator[Tensor]:
        nonlocal silent, sources
        for references, estimates in track.cut(span, span - FILTER_SAMPLES + 1):
            if silent is None or bool(silent.any()):  # once every source has been heard, there is no need to look
                quiet = torch.stack([silent_sources(references), silent_sources(estimates)])
                silent = quiet if silent is None else silent & quiet
            sources = len(references)
            piece = torch.cat([references.flatten(0, 1), estimates.flatten(0, 1)])
            yield F.pad(piece, (0, span - piece.shape[-1]))

    for references, channels in side_by_side(partial(_block_spectra, n_fft=n_fft), pieces(), threads):
        if total is None:
            total = references.new_zeros(len(references), references.shape[1], channels.shape[2])
        torch.baddbmm(total, references, channels, out=total)
    if total is None or silent is None:
        raise InputError("the track has no samples; there is nothing to score")
    lags = torch.fft.irfft(total.permute(1, 2, 0), n=n_fft)[..., :FILTER_SAMPLES]
    return Correlations(lags.contiguous(), sources, bool(silent.any()))


def _block_spectra(piece: Tensor, n_fft: int) -> tuple[Tensor, Tensor]:
    """Spectra of the blocks of a piece `[2R, n]`: conjugate ones of references `[bins, R, blocks]`, of all channels
    `[bins, blocks, 2R]`.
    """
    # Each block of a reference meets the same samples and 511 more, so that no lag is cut off or wraps around.
    block = n_fft - FILTER_SAMPLES + 1
    rows = len(piece) // 2
    blocks = piece.unfold(-1, n_fft, block).contiguous()
    ahead = torch.fft.rfft(blocks).flatten(0, 1)
    blocks[:rows, :, block:] = 0
    own = torch.fft.rfft(blocks[:rows]).flatten(0, 1)
    # Plain two-dimensional transposes: copies of other layouts are many times slower.
    left = own.t().contiguous().conj_physical_().unflatten(1, (rows, -1))
    return left, ahead.t().contiguous().unflatten(1, (2 * rows, -1)).transpose(1, 2)


def projection_filters(correlations: Correlations, threads: int = 1) -> tuple[Tensor, Tensor]:
    """Find the 512-tap filters to the estimates: from all channels `[S·C, S·C, 512]`, from the own `[S, C, C, 512]`."""
    lags, sources = correlations.lags, correlations.sources
    rows = lags.shape[0]
    channels = rows // sources
    energy = lags[:, :rows, 0].diagonal()
    audible = energy > 0
    gain = torch.where(audible, energy.clamp(min=torch.finfo(energy.dtype).tiny).rsqrt(), torch.ones_like(energy))
    scaled = lags * gain.view(rows, 1, 1)
    scaled[:, :rows] *= gain.view(1, rows, 1)
    # A channel without sound must not make the matrix singular: its filters come out as 0.
    scaled[:, :rows, 0].diagonal().masked_fill_(~audible, 1.0)
    own = [slice(source * channels, (source + 1) * channels) for source in range(sources)]
    problems = [slice(0, rows), *own] if sources > 1 else own  # the largest first
    full, *single = side_by_side(partial(_filters, scaled), problems, threads)
    alone = torch.stack(single if sources > 1 else [full])
    return full * gain.view(rows, 1, 1), alone * gain.view(sources, channels, 1, 1)


def _filters(lags: Tensor, channels: slice) -> Tensor:
    """Filters `[K, K, L]` from K of the channels `[R, 2R, L]` to the same of the estimates."""
    inputs = lags[channels, channels]
    products = lags[channels, slice(channels.start + len(lags), channels.stop + len(lags))]
    count, _, length = inputs.shape
    solution = solve(inputs.contiguous(), products.permute(2, 0, 1).reshape(length * count, count))
    return solution.view(length, count, count).permute(1, 2, 0)
