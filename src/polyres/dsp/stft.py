"""Short-time Fourier transform shared by every branch, with two inverses."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.dsp.real_graph import ComplexParts

Inverse = Literal["exact", "demucs"]


def frame_count(length_samples: int, hop_length: int) -> int:
    """Number of frames kept for a signal: ceil(length / hop).

    `length_samples`: signal length, >= 1; `hop_length`: distance between frames in samples.
    """
    return -(-length_samples // hop_length)


def check_sizes(n_fft: int, hop_length: int) -> None:
    """Refuse transform sizes the padding scheme cannot serve.

    `n_fft`: window length in samples; `hop_length`: frame distance in samples. Raises InputError when hop does not
    divide n_fft, is more than half of it, or their difference is odd.
    """
    if n_fft < 4 or hop_length < 1 or n_fft % hop_length or 2 * hop_length > n_fft or (n_fft - hop_length) % 2:
        raise InputError(
            f"n_fft {n_fft} with hop_length {hop_length} is not possible: "
            "hop_length must divide n_fft, be at most n_fft/2, and n_fft - hop_length must be even"
        )


def reflect_pad(wave: Tensor, left: int, right: int) -> Tensor:
    """Pad the last axis by reflection; a signal too short for that gets zeros first, on the right before the left.

    `wave`: `[..., T]`. Returns `[..., left + T + right]`.
    """
    missing = max(left, right) - wave.shape[-1] + 1
    if missing > 0:
        zeros_right = min(right, missing)
        zeros_left = missing - zeros_right
        wave = F.pad(wave, (zeros_left, zeros_right))
        left, right = left - zeros_left, right - zeros_right
    flat = wave.reshape(1, -1, wave.shape[-1])
    return F.pad(flat, (left, right), mode="reflect").reshape(*wave.shape[:-1], -1)


def stft(wave: Tensor, n_fft: int, hop_length: int) -> Tensor:
    """Unit-norm complex spectrogram without the Nyquist bin.

    Frame k is centred on sample (k + 1/2) * hop_length, so grids of different n_fft line up.

    `wave`: `[..., T]`, T >= 1. `n_fft`: window length in samples (periodic Hann). `hop_length`: frame distance in
    samples; divides n_fft, at most n_fft / 2. Returns complex `[..., n_fft / 2, ceil(T / hop_length)]`, scaled by 1 /
    sqrt(n_fft). Raises InputError on impossible sizes or an empty signal.

    Source: padding and scaling of Hybrid Demucs (Défossez 2021, ISMIR MDX workshop); equal to it for hop n_fft / 4.
    """
    check_sizes(n_fft, hop_length)
    length = wave.shape[-1]
    if length < 1:
        raise InputError("the signal has 0 samples; at least 1 is needed")
    frames = frame_count(length, hop_length)
    pad = (n_fft - hop_length) // 2
    padded = reflect_pad(wave, pad, pad + frames * hop_length - length)
    flat = padded.reshape(-1, padded.shape[-1])
    window = torch.hann_window(n_fft, dtype=wave.dtype, device=wave.device)
    spec = torch.stft(flat, n_fft, hop_length, window=window, center=False, normalized=True, return_complex=True)
    return spec[:, :-1].reshape(*wave.shape[:-1], n_fft // 2, frames)


def istft(spec: Tensor, hop_length: int, length_samples: int, inverse: Inverse = "exact") -> Tensor:
    """Wave of a spectrogram made by `stft`.

    The Nyquist bin counts as zero: istft(stft(x)) is x less what the frames hold exactly at half the sample rate
    (about 1e-4 of a smooth signal at its very ends for n_fft 512, nothing elsewhere; some of white noise everywhere).

    `spec`: complex `[..., n_fft / 2, N]`. `hop_length`: frame distance in samples. `length_samples`: length to return;
    N must be ceil(length / hop). `inverse`: `exact` divides by the window energy of the N frames that exist (round trip
    to the first and last sample); `demucs` also counts n_fft / (2 hop) absent frames on each side, which fades the
    ends. Returns `[..., length_samples]`. Raises InputError when the number of frames does not fit the length.
    """
    n_fft = 2 * spec.shape[-2]
    frames = spec.shape[-1]
    check_sizes(n_fft, hop_length)
    if frames != frame_count(length_samples, hop_length):
        raise InputError(f"{frames} frames of hop {hop_length} do not make {length_samples} samples")
    window = torch.hann_window(n_fft, dtype=spec.real.dtype, device=spec.device)
    flat = spec.reshape(-1, *spec.shape[-2:])
    if isinstance(flat, ComplexParts):
        whole = flat.overlapped(window, hop_length)
    else:
        pieces = torch.fft.irfft(flat.transpose(1, 2), n=n_fft, norm="ortho") * window
        whole = overlap_add(pieces, hop_length)
    absent = n_fft // (2 * hop_length) if inverse == "demucs" else 0
    energy = window.square().expand(1, frames + 2 * absent, n_fft)
    envelope = overlap_add(energy, hop_length)[:, absent * hop_length :]
    pad = (n_fft - hop_length) // 2
    wave = whole[:, pad : pad + length_samples] / envelope[:, pad : pad + length_samples]
    return wave.reshape(*spec.shape[:-2], length_samples)


class _OverlapAdd(torch.autograd.Function):
    """Overlap-add whose gradient is a view: framing, its transpose, copies nothing."""

    @staticmethod
    def forward(pieces: Tensor, hop_length: int) -> Tensor:
        """Sum frames `[B, N, n]` at their places."""
        batch, frames, size = pieces.shape
        parts = size // hop_length
        cells = pieces.reshape(batch, frames, parts, hop_length)
        total = pieces.new_zeros(batch, frames + parts - 1, hop_length)
        for part in range(parts):
            total[:, part : part + frames] += cells[:, :, part]
        return total.reshape(batch, -1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, int], output: Tensor) -> None:
        pieces, hop_length = inputs
        ctx.sizes = (pieces.shape[-1], hop_length)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        """Cut the gradient `[B, T]` into frames."""
        return gradient.unfold(-1, *ctx.sizes), None


def overlap_add(pieces: Tensor, hop_length: int) -> Tensor:
    """Sum frames at their places.

    `pieces`: `[B, N, n]`, n a multiple of hop_length; returns `[B, (N - 1) * hop_length + n]`.
    """
    if torch.compiler.is_compiling():  # a graph has no writing into slices
        parts = pieces.reshape(*pieces.shape[:2], -1, hop_length).unbind(dim=2)
        shifted = (F.pad(part, (0, 0, at, len(parts) - 1 - at)) for at, part in enumerate(parts))
        return reduce(torch.add, shifted).flatten(1)
    return cast(Tensor, _OverlapAdd.apply(pieces, hop_length))  # type: ignore[no-untyped-call]


REFERENCE_N_FFT = 4096


def reference_index(n_ffts: Sequence[int]) -> int:
    """Position of the resolution whose grid carries the shared bottleneck.

    Returns index of 4096 where present, else of the nearest window length, the smaller on a tie.
    """
    return min(range(len(n_ffts)), key=lambda i: (abs(n_ffts[i] - REFERENCE_N_FFT), n_ffts[i]))


def resample_grid(features: Tensor, size: tuple[int, int]) -> Tensor:
    """Antialiased linear interpolation of a feature map to another grid.

    Cells are areas (not points): a grid with half the cells covers the same time and frequency.

    `features`: `[B, D, F, N]`; `size`: wanted `(F, N)`. Returns `[B, D, *size]`; the input itself where the size is
    already right.
    """
    if tuple(features.shape[-2:]) == size:
        return features
    # Half precision has no antialiased kernel on the CPU.
    out = F.interpolate(features.float(), size=size, mode="bilinear", align_corners=False, antialias=True)
    return out.to(features.dtype)
