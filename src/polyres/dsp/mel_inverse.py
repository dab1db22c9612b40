"""Invert mel spectrograms to linear magnitudes by several methods."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.core.errors import InputError
from polyres.dsp.mel import MelConfig, mel_filterbank

NNLS_ITERATIONS = 60
"""Rounds of `nnls`; the mels then fit to about 1e-4 in their logarithm."""

SMOOTH_ROUNDS = 20
"""Rounds of `smooth`: more fit the mels better, fewer are smoother."""

MelInverse = Callable[[Tensor, Tensor], Tensor]
"""Takes mels `[K, M]` and filters `[M, F]` with rows of length 1; gives `[K, F]`, >= 0."""

MEL_INVERSES: Catalogue[MelInverse] = Catalogue("mel inverse")


def mel_to_linear(mel: Tensor, config: MelConfig, method: str = "nnls") -> Tensor:
    """Find magnitudes whose mel spectrogram is the given one, or comes close to it.

    `mel`: `[..., N, M]`, >= 0, before the logarithm; returns `[..., F, N]`, >= 0, as the phase methods take them. Bins
    that no filter reaches are 0.
    """
    solve = MEL_INVERSES.build(method)
    _check_mel(mel, config)
    if float(mel.min() if mel.numel() else 0) < 0:
        raise InputError(f"mels go down to {float(mel.min()):g}; they must be >= 0 (use log_mel_to_linear for logs)")
    filters = mel_filterbank(config).to(mel)
    length = filters.norm(dim=1).clamp_min(torch.finfo(mel.dtype).tiny)
    flat = mel.reshape(-1, mel.shape[-1])
    # Frames one by one in scale: soft ones are solved as well as loud ones.
    peak = flat.amax(dim=1, keepdim=True)
    scale = torch.where(peak > 0, peak, 1)
    heard = length > torch.finfo(mel.dtype).tiny
    solved = solve((flat / scale / length)[:, heard], (filters / length[:, None])[heard]) * scale
    solved = solved * (filters.sum(dim=0) > 0)  # the pseudo-inverse leaves rounding errors elsewhere
    if config.power == 2:
        solved = solved.sqrt()
    return solved.reshape(*mel.shape[:-1], -1).transpose(-1, -2)


def log_mel_to_linear(log_mel: Tensor, config: MelConfig, method: str = "nnls") -> Tensor:
    """Find magnitudes for a log-mel spectrogram.

    `log_mel`: `[..., N, M]`, natural logarithm; `config`: the front end that made it. Returns `[..., F, N]`, >= 0, as
    the phase methods take them. Raises InputError on a tensor that is no such mel spectrogram; UnknownNameError on an
    unknown method.
    """
    _check_mel(log_mel, config)
    return mel_to_linear(log_mel.exp(), config, method)


def _check_mel(mel: Tensor, config: MelConfig) -> None:
    """Refuse tensors that cannot be spectrograms of the front end."""
    if mel.ndim < 2 or mel.shape[-1] != config.mel_bins or not mel.dtype.is_floating_point:
        hint = " (frames come before mel bins; transpose it?)" if config.mel_bins in mel.shape[:-1] else ""
        raise InputError(
            f"mels have shape {tuple(mel.shape)} and type {mel.dtype}; "
            f"[..., N, {config.mel_bins}] of floats is needed{hint}"
        )
    if not bool(torch.isfinite(mel).all()):
        raise InputError("mels hold NaN or infinity; only finite values can be used")


@MEL_INVERSES.register("pinv", "pseudo-inverse, negative values cut off; fastest, and the least exact")
def _build_pinv() -> MelInverse:
    """Build the solution of least energy, cut off at 0."""
    return lambda mel, filters: (mel @ torch.linalg.pinv(filters).T).clamp_min(0)


@MEL_INVERSES.register("nnls", "non-negative least squares; fits the mels exactly where anything does")
def _build_nnls() -> MelInverse:
    """Build projected gradient descent with momentum from the pseudo-inverse.

    Source: Beck & Teboulle, "A fast iterative shrinkage-thresholding algorithm", SIAM J. Imaging Sciences 2009.
    """

    def solve(mel: Tensor, filters: Tensor) -> Tensor:
        step = 1 / float(torch.linalg.matrix_norm(filters, 2) ** 2)
        former: Tensor = (mel @ torch.linalg.pinv(filters).T).clamp_min(0)
        ahead = former
        speed = 1.0
        for _ in range(NNLS_ITERATIONS):
            here = (ahead - step * ((ahead @ filters.T - mel) @ filters)).clamp_min(0)
            faster = (1 + (1 + 4 * speed * speed) ** 0.5) / 2
            ahead = here + (speed - 1) / faster * (here - former)
            former, speed = here, faster
        return former

    return solve


@MEL_INVERSES.register("smooth", "scaled up from a flat spectrum and stopped early; no holes between filters")
def _build_smooth() -> MelInverse:
    """Build multiplicative fitting from a flat spectrum: early stopping is what keeps it smooth.

    Source: Richardson 1972 and Lucy 1974; Lee & Seung, "Algorithms for non-negative matrix factorization", 2001.
    """

    def solve(mel: Tensor, filters: Tensor) -> Tensor:
        tiny = torch.finfo(mel.dtype).tiny
        weight = filters.sum(dim=0)
        inverse = torch.where(weight > 0, 1 / weight.clamp_min(tiny), 0)
        guess = (weight > 0).to(mel).expand(mel.shape[0], -1)
        for _ in range(SMOOTH_ROUNDS):
            guess = guess * (((mel / (guess @ filters.T).clamp_min(tiny)) @ filters) * inverse)
        return guess

    return solve
