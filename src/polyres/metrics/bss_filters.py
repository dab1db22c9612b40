"""Distortion filters of BSSEval: correlations of a track, block by block, and the equations they solve."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.metrics.waves import Track

FILTER_SAMPLES = 512
JITTERS = (0.0, 1e-14, 1e-13)
"""Added to the unit diagonal of the Gram matrix until it can be factorised; from 1e-12 on the scores move."""
REFINEMENTS = 8
RESIDUAL_LIMIT = 1e-9
_BLOCKS = {"cpu": (8192, 4), "cuda": (65536, 16)}
"""FFT size, and how many of them at once, by kind of device."""


@dataclass(frozen=True)
class Correlations:
    """What the filters of a track follow from.

    Attributes:
        lags: `[R, R + E, 512]`: sum over t of reference channel r at t times channel k at t + lag, where the
            channels k are those of the references and then those of the estimates.
        sources: number of sources S; R = E = S·C.
        silent: True if a source or an estimate is silent from beginning to end.
    """

    lags: Tensor
    sources: int
    silent: bool


def silent_sources(piece: Tensor) -> Tensor:
    """Tell which sources are silent: their channels sum to exactly 0 in every sample, as in museval.

    Args:
        piece: `[S, C, n]`.

    Returns:
        Booleans `[S]`.
    """
    return (piece.sum(dim=1) == 0).all(dim=-1)


def correlate(track: Track) -> Correlations:
    """Correlate all channels of a track over lags 0 to 511, in one pass and with memory for a few blocks.

    Args:
        track: references and estimates `[S, C, T]`.

    Returns:
        The correlations.
    """
    n_fft, count = _BLOCKS.get(track.device.type, _BLOCKS["cpu"])
    reach = FILTER_SAMPLES - 1
    block = n_fft - reach
    total: Tensor | None = None
    silent: Tensor | None = None
    sources = 0
    for references, estimates in track.cut(count * block + reach, count * block):
        sources, channels, length = references.shape
        quiet = torch.stack([silent_sources(references), silent_sources(estimates)])
        silent = quiet if silent is None else silent & quiet
        rows = sources * channels
        piece = torch.cat([references.reshape(rows, length), estimates.reshape(rows, length)])
        piece = F.pad(piece, (0, count * block + reach - length))
        cross = _cross_spectra(piece, rows, n_fft)
        total = cross if total is None else total.add_(cross)
    assert total is not None and silent is not None  # a track has at least one sample
    lags = torch.fft.irfft(total.permute(1, 2, 0), n=n_fft)[..., :FILTER_SAMPLES]
    return Correlations(lags.contiguous(), sources, bool(silent.any()))


def _cross_spectra(piece: Tensor, rows: int, n_fft: int) -> Tensor:
    """Sum `conj(reference) · channel` over the blocks of a piece `[2R, n]`; returns `[bins, R, 2R]`."""
    block = n_fft - FILTER_SAMPLES + 1
    # Each block of a reference meets the same samples and 511 more, so that no lag is cut off or wraps around.
    ahead = torch.fft.rfft(piece.unfold(-1, n_fft, block))
    own = torch.fft.rfft(piece[:rows].unfold(-1, n_fft, block)[..., :block], n=n_fft)
    return torch.bmm(own.conj().permute(2, 0, 1), ahead.permute(2, 1, 0))


def gram_matrix(lags: Tensor) -> Tensor:
    """Lay out the inner products of all delayed channels from their correlations.

    Args:
        lags: `[K, K, L]`: correlations at lags 0 to L − 1.

    Returns:
        `[K·L, K·L]`; entry (a, i), (b, j) is the product of channel a delayed by i and channel b delayed by j.
    """
    channels, _, length = lags.shape
    two_sided = torch.cat([lags.transpose(0, 1)[..., 1:].flip(-1), lags], dim=-1)
    toeplitz = two_sided.unfold(-1, length, 1).flip(-1)
    return toeplitz.permute(0, 2, 1, 3).reshape(channels * length, channels * length)


def solve_projection(gram: Tensor, products: Tensor) -> Tensor:
    """Solve the normal equations of a projection, also where the matrix is singular.

    One Cholesky factorisation serves all right-hand sides. Where it fails, a jitter far below the precision of the
    scores is added, and what it changes is taken back by iterative refinement; the last resort is the
    pseudo-inverse.

    Args:
        gram: symmetric, positive semidefinite, unit diagonal `[n, n]`; its diagonal is written to and restored.
        products: right-hand sides `[n, m]` from the range of the matrix.

    Returns:
        `[n, m]` with `gram @ result = products` up to rounding.
    """
    diagonal = gram.diagonal()
    unit = diagonal.clone()
    for jitter in JITTERS:
        diagonal.add_(jitter)
        factor, failed = torch.linalg.cholesky_ex(gram)
        diagonal.copy_(unit)
        if int(failed):
            continue
        solution = torch.cholesky_solve(products, factor)
        for _ in range(REFINEMENTS):
            residual = products - gram @ solution
            if bool(residual.abs().max() <= RESIDUAL_LIMIT * products.abs().max()):
                return solution
            solution = solution + torch.cholesky_solve(residual, factor)
        if bool(torch.isfinite(solution).all()):
            return solution
    values, vectors = torch.linalg.eigh(gram)
    floor = gram.shape[0] * torch.finfo(gram.dtype).eps * values[-1]
    inverse = torch.where(values > floor, 1 / values.clamp(min=floor), torch.zeros_like(values))
    return vectors @ (inverse.unsqueeze(1) * (vectors.T @ products))


def projection_filters(correlations: Correlations) -> tuple[Tensor, Tensor]:
    """Find the 512-tap filters from the references to every estimate, over the whole track.

    Args:
        correlations: of the track.

    Returns:
        Filters from all reference channels to all estimate channels `[S·C, S·C, 512]` (input, output, tap), and
        from the channels of each source to those of its own estimate `[S, C, C, 512]`.
    """
    lags, sources = correlations.lags, correlations.sources
    rows, length = lags.shape[0], lags.shape[2]
    channels = rows // sources
    energy = lags[:, :rows, 0].diagonal()
    gain = torch.where(energy > 0, energy.clamp(min=torch.finfo(energy.dtype).tiny).rsqrt(), torch.ones_like(energy))
    scaled = lags * gain.view(rows, 1, 1)
    scaled[:, :rows] *= gain.view(1, rows, 1)
    gram = gram_matrix(scaled[:, :rows])
    # A channel without sound must not make the matrix singular: its filters come out as 0.
    gram.diagonal().add_((energy == 0).to(gram).repeat_interleave(length))
    products = scaled[:, rows:].permute(0, 2, 1).reshape(rows * length, rows)
    own = []
    for source in range(sources):
        block = slice(source * channels * length, (source + 1) * channels * length)
        outputs = slice(source * channels, (source + 1) * channels)
        own.append(solve_projection(gram[block, block], products[block, outputs]))
    everything = solve_projection(gram, products) if sources > 1 else own[0]
    full = everything.view(rows, length, rows).transpose(1, 2) * gain.view(rows, 1, 1)
    single = torch.stack(own).view(sources, channels, length, channels).transpose(2, 3)
    return full, single * gain.view(sources, channels, 1, 1)
