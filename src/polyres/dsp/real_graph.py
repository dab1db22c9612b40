"""Transforms as products of real matrices, for graphs of formats that know no complex numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


def turns(numerators: npt.NDArray[np.int64], size: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of 2 pi n / size, computed in float64, as float32."""
    phase = numerators % size * (2 * math.pi / size)
    return _constant(np.cos(phase)), _constant(np.sin(phase))


def _constant(values: npt.NDArray[np.float64]) -> Tensor:
    return torch.from_numpy(values.astype(np.float32))


class RealDft:
    """Transform of real signals and its inverse, each as two products of matrices that leave frames in the last axis.

    With sample n = n1 + a n2, bin k = k1 b + k2 and w(x) = exp(-2 pi i x): w(n k / ab) = w(n1 k1 / a) w(k2 n / ab).
    So there is one matrix over n2 for each n1, and one over n1 for all.

    Args:
        size: samples n, a multiple of 4.

    Source: Cooley & Tukey 1965, "An Algorithm for the Machine Calculation of Complex Fourier Series", eqs. 5-8.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.inner = next(b for b in range(math.isqrt(size), 0, -1) if size % (2 * b) == 0)
        self.outer = size // self.inner
        n1, k2, k1 = np.arange(self.outer), np.arange(self.inner), np.arange(self.outer // 2)
        near, far = turns(-np.outer(n1, k2), size), turns(-np.outer(k2, k2), self.inner)
        c = near[0][..., None] * far[0] - near[1][..., None] * far[1]  # as products, so that files stay small
        s = near[0][..., None] * far[1] + near[1][..., None] * far[0]
        self._each = torch.stack([c, s], dim=1).flatten(1, 2)  # [n1, (c k2), n2]
        c, s = turns(-np.outer(k1, n1), self.outer)
        self._all = torch.stack([torch.stack([c, -s], dim=2), torch.stack([s, c], dim=2)]).flatten(2).flatten(0, 1)

    def forward(self, frames: Tensor) -> ComplexParts:
        """Frames `[B, n, N]` to bins `[B, n / 2, N]` without Nyquist."""
        x = frames.reshape(len(frames), self.inner, self.outer, -1).transpose(1, 2)
        x = self._all @ (self._each @ x).reshape(len(frames), 2 * self.outer, -1)
        re, im = (part.reshape(len(frames), self.size // 2, -1) for part in x.chunk(2, dim=1))
        return ComplexParts(re, im)

    def inverse(self, bins: ComplexParts) -> Tensor:
        """Bins `[B, n / 2, N]` to frames `[B, n, N]`; Nyquist and the imaginary part of bin 0 count as zero."""
        batch, _, count = bins.shape
        halves = torch.cat([bins.real[:, :1] / 2, bins.real[:, 1:], bins.imag], dim=1)
        back = self._all.T * (2 / self.size)
        x = (back @ halves.view(batch, self.outer, -1)).view(batch, self.outer, -1, count)
        return (self._each.transpose(1, 2) @ x).transpose(1, 2).flatten(1, 2)


@dataclass(frozen=True)
class ComplexParts:
    """Stands for a complex tensor where its real and imaginary part are kept apart; does what models do with one."""

    real: Tensor
    imag: Tensor

    @property
    def shape(self) -> torch.Size:
        """Of either part."""
        return self.real.shape

    @property
    def device(self) -> torch.device:
        """Of either part."""
        return self.real.device

    def _each(self, change: Callable[[Tensor], Tensor]) -> ComplexParts:
        return ComplexParts(change(self.real), change(self.imag))

    def __getitem__(self, index: Any) -> ComplexParts:
        return self._each(lambda part: part[index])

    def reshape(self, *shape: int) -> ComplexParts:
        """As of a tensor."""
        return self._each(lambda part: part.reshape(*shape))

    def transpose(self, first: int, second: int) -> ComplexParts:
        """As of a tensor."""
        return self._each(lambda part: part.transpose(first, second))

    def __add__(self, real: float) -> ComplexParts:
        return ComplexParts(self.real + real, self.imag)

    def __mul__(self, other: ComplexParts | Tensor) -> ComplexParts:
        if isinstance(other, Tensor):
            return self._each(lambda part: part * other)
        re = self.real * other.real - self.imag * other.imag
        return ComplexParts(re, self.real * other.imag + self.imag * other.real)

    def overlapped(self, window: Tensor, hop_length: int) -> Tensor:
        """Sum of the windowed frames of bins `[B, n / 2, N]` at their places, `[B, (N - 1) * hop_length + n]`."""
        size = len(window)
        frames = RealDft(size).inverse(self) * (window * math.sqrt(size))[:, None]
        parts = frames.reshape(len(frames), -1, hop_length, frames.shape[-1]).unbind(dim=1)
        shifted = (F.pad(part, (at, len(parts) - 1 - at)) for at, part in enumerate(parts))
        return reduce(torch.add, shifted).transpose(1, 2).flatten(1)


class RealGraph(TorchFunctionMode):
    """While it is entered, short-time spectra are computed as real matrix products, and grids resampled as such."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Replace the functions that graphs have no equal of."""
        return _real(func, args, kwargs or {})


def _real(func: Any, args: Any, kwargs: Any) -> Any:
    if func is torch.hann_window:
        return turns(np.arange(args[0]), 2 * args[0])[1].square()
    if func is torch.stft:
        return _stft(args[0], args[1], kwargs["hop_length"], kwargs["window"])
    if func is torch.complex:
        return ComplexParts(*args)
    if func is torch.view_as_complex:
        return ComplexParts(*args[0].unbind(dim=-1))
    if func is F.interpolate and kwargs.get("antialias"):
        return _resampled(args[0], kwargs["size"])
    if func is torch.std_mean:
        return _std_mean(args[0], kwargs["dim"])
    if func in (torch.chunk, Tensor.chunk, torch.unbind, Tensor.unbind):  # graphs would hold sequences
        x, dim = args[0], kwargs.get("dim", 0)
        if "unbind" in func.__name__:
            return tuple(x.select(dim, at) for at in range(x.shape[dim]))
        size = x.shape[dim] // args[1]
        return tuple(x.narrow(dim, at * size, size) for at in range(args[1]))
    return func(*args, **kwargs)


def _stft(waves: Tensor, n_fft: int, hop_length: int, window: Tensor) -> ComplexParts:
    """`torch.stft` of `[B, T]` without centring, of unit norm; the Nyquist bin is zero."""
    cells = waves.reshape(len(waves), -1, hop_length).transpose(1, 2)
    parts = n_fft // hop_length
    frames = cells.shape[2] - parts + 1
    framed = torch.cat([cells[:, :, at : at + frames] for at in range(parts)], dim=1)
    bins = RealDft(n_fft).forward(framed * (window / math.sqrt(n_fft))[:, None])
    return ComplexParts(*(F.pad(part, (0, 0, 0, 1)) for part in (bins.real, bins.imag)))


def _std_mean(x: Tensor, dims: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """`torch.std_mean` that keeps its axes, one after the other: runtimes sum many numbers less exactly than torch."""

    def mean(values: Tensor) -> Tensor:
        for dim in reversed(dims):
            values = values.mean(dim=dim, keepdim=True)
        return values

    middle = mean(x)
    count = math.prod(x.shape[dim] for dim in dims)
    return (mean((x - middle).square()) * (count / (count - 1))).sqrt(), middle


def _resampled(features: Tensor, size: tuple[int, int]) -> Tensor:
    """`F.interpolate` as one matrix per axis, `[..., F, N]` to `[..., *size]`."""
    bins, frames = features.shape[-2:]
    if bins != size[0]:
        features = _resampling(bins, size[0]) @ features
    return features @ _resampling(frames, size[1]).T if frames != size[1] else features


def _resampling(before: int, after: int) -> Tensor:
    """Matrix `[after, before]` of the antialiased linear interpolation."""
    unit = torch.eye(before)[None, None]
    return F.interpolate(unit, size=(after, before), mode="bilinear", align_corners=False, antialias=True)[0, 0]
