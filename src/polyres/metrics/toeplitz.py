"""Least squares on delayed channels: symmetric block-Toeplitz equations, also singular ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

JITTERS = (0.0, 1e-14, 1e-13)
"""Added to the unit diagonal of the matrix until it can be factorised; from 1e-12 on the scores would move."""
REFINEMENTS = 6
CHANGE_LIMIT = 1e-18
"""Energy that a last correction may have, as a fraction of that of the solution."""
TRUST_LIMIT = 1e-14
"""Corrections above this say that the quick factorisation was not accurate enough."""

DEPENDENT_LIMIT = 1e-14
"""Energy of a channel, as a fraction of its own, that others must leave of it so that it counts."""

BLOCK_ROWS = 16
"""Rows of a step of the factorisation where so many come together from few channels."""

Solver = Callable[[Tensor], Tensor]


def independent_channels(products: Tensor) -> list[int]:
    """Return the channels that do not depend linearly on those before them, by their inner products `[K, K]`.

    What is nothing in energy is nothing in every sample, so the inner products without delay tell it all.

    Source: Golub and Van Loan 2013, Matrix Computations, section 4.2.8 (Cholesky factorisation with zero pivots).
    """
    matrix = products.double().cpu().numpy()
    kept: list[int] = []
    rows = np.zeros((0, len(matrix)))
    for channel in range(len(matrix)):
        row = matrix[channel] - rows[:, channel] @ rows
        if row[channel] > DEPENDENT_LIMIT:
            kept.append(channel)
            rows = np.vstack([rows, row / np.sqrt(row[channel])])
    return kept


def dense_matrix(lags: Tensor) -> Tensor:
    """Lay out correlations `[K, K, L]` (channel a at t times b at t + lag) as the matrix `[L·K, L·K]` of delayed
    channels.
    """
    return _delayed(lags, lags.shape[-1])


def _delayed(lags: Tensor, delays: int) -> Tensor:
    """Lay out the rows of the first delays: `[delays·K, L·K]`."""
    channels, _, length = lags.shape
    two_sided = torch.cat([lags.transpose(0, 1)[..., 1:].flip(-1), lags[..., :delays]], dim=-1)
    toeplitz = two_sided.unfold(-1, length, 1).flip(-1)
    return toeplitz.permute(2, 0, 3, 1).reshape(delays * channels, length * channels)


def multiply(lags: Tensor, vectors: Tensor) -> Tensor:
    """Multiply the matrix of `dense_matrix` by vectors `[L·K, M]` by FFT, without laying it out."""
    channels, _, length = lags.shape
    n_fft = 2 << (length - 1).bit_length()
    circle = lags.new_zeros(channels, channels, n_fft)
    circle[..., :length] = lags
    circle[..., n_fft - length + 1 :] = lags.transpose(0, 1)[..., 1:].flip(-1)
    spectra = torch.fft.rfft(vectors.view(length, channels, -1), n=n_fft, dim=0)
    product = torch.bmm(torch.fft.rfft(circle).permute(2, 0, 1), spectra)
    return torch.fft.irfft(product, n=n_fft, dim=0)[:length].reshape(vectors.shape)


def schur_factor(lags: Tensor) -> Tensor | None:
    """Factorise the matrix of `dense_matrix` by the block Schur algorithm in L² steps; None if not positive definite.

    Several delays make one step, as a matrix of blocks `[K, K]` is one of blocks `[G·K, G·K]` too: with few channels
    most of the time goes into starting small operations.

    Source: Kailath and Sayed 1995, Displacement Structure: Theory and Applications, section 4; the second row of the
    rotation from the result of the first, as Chandrasekaran and Sayed 1996, Stabilizing the Generalized Schur
    Algorithm.
    """
    channels, _, length = lags.shape
    group = math.gcd(length, 1 << max(1, BLOCK_ROWS // channels).bit_length() - 1)
    rows = group * channels
    row = _delayed(lags, group)
    start, info = torch.linalg.cholesky_ex(row[:, :rows], upper=True)
    if int(info):
        return None
    factor = row.new_zeros(length * channels, length * channels)
    upper = torch.linalg.solve_triangular(start.T, row, upper=False)
    factor[:rows] = upper
    lower = upper[:, rows:]
    one = torch.eye(rows, dtype=row.dtype, device=row.device)
    failed = info.clone()
    for first in range(rows, length * channels, rows):
        upper = upper[:, :-rows]
        slope = torch.linalg.solve_triangular(upper[:, :rows], lower[:, :rows], upper=True, left=False)
        shrink = torch.stack([one - slope.T @ slope, one - slope @ slope.T])
        roots, infos = torch.linalg.cholesky_ex(shrink, upper=True)
        failed += infos.sum()
        turned = torch.linalg.solve_triangular(roots[0].T, torch.addmm(upper, slope.T, lower, alpha=-1), upper=False)
        back = torch.linalg.solve_triangular(roots[0], roots[1] @ slope, upper=True, left=False)
        factor[first : first + rows, first:] = turned
        lower = torch.addmm(roots[1] @ lower, back, turned, alpha=-1)[:, rows:]
        upper = turned
    return None if int(failed) or not bool(torch.isfinite(factor[-1, -1])) else factor


def _refined(lags: Tensor, products: Tensor, solver: Solver) -> tuple[Tensor, float]:
    """Solve and correct until corrections vanish; also returns the energy share of the last one."""
    solution = solver(products)
    last = torch.inf
    for _ in range(REFINEMENTS):
        residual = products - multiply(lags, solution)
        correction = solver(residual)
        # The energy of a projection is the product of its filter and the right-hand side.
        change = float(((correction * residual).sum(0).abs() / _positive((solution * products).sum(0))).max())
        if not change < last:
            break
        solution, last = solution + correction, change
        if change <= CHANGE_LIMIT:
            break
    return solution, last


def _positive(energies: Tensor) -> Tensor:
    """Keep energies off zero, so that they can divide."""
    return energies.clamp(min=torch.finfo(energies.dtype).tiny)


def solve(lags: Tensor, products: Tensor) -> Tensor:
    """Solve the normal equations for right-hand sides `[L·K, M]` of a projection on delayed channels `[K, K, L]`.

    Channels that follow from others are left out and get zeros. One factorisation serves all right-hand sides: the
    block Schur algorithm or, where the matrix is nearly singular, a dense Cholesky factorisation, with a jitter far
    below the precision of the scores if need be. What either lacks in accuracy is made up by iterative refinement. The
    last resort is the pseudo-inverse.
    """
    kept = independent_channels(lags[..., 0])
    if len(kept) < len(lags):
        right = products.view(lags.shape[-1], len(lags), -1)
        solution = torch.zeros_like(right)
        few = lags[kept][:, kept].contiguous()
        solution[:, kept] = solve(few, right[:, kept].flatten(0, 1)).view(len(right), len(kept), -1)
        return solution.flatten(0, 1)
    upper = schur_factor(lags)
    if upper is not None:
        solution, change = _refined(lags, products, partial(_substitute, upper))
        if change <= TRUST_LIMIT:
            return solution
    return solve_dense(lags, products)


def _substitute(upper: Tensor, right: Tensor) -> Tensor:
    """Solve `upper.T @ upper @ x = right`."""
    half = torch.linalg.solve_triangular(upper.T, right, upper=False)
    return torch.linalg.solve_triangular(upper, half, upper=True)


def solve_dense(lags: Tensor, products: Tensor) -> Tensor:
    """Solve as `solve` does, from the matrix laid out in full."""
    matrix = dense_matrix(lags)
    for jitter in JITTERS:
        factor, failed = torch.linalg.cholesky_ex(matrix + jitter * torch.eye(len(matrix)).to(matrix), upper=True)
        if not int(failed):
            solution, change = _refined(lags, products, partial(_substitute, factor))
            if change < 1:
                return solution
    values, vectors = torch.linalg.eigh(matrix)
    floor = len(matrix) * torch.finfo(matrix.dtype).eps * values[-1]
    inverse = torch.where(values > floor, 1 / values.clamp(min=floor), torch.zeros_like(values))
    return vectors @ (inverse.unsqueeze(1) * (vectors.T @ products))
