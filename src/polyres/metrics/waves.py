"""References and estimates as arrays or tensors, cut into float64 pieces."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.dsp.axes import check_axes

Wave: TypeAlias = "Tensor | np.ndarray[Any, Any]"
WaveT = TypeVar("WaveT", Tensor, "np.ndarray[Any, Any]")
Piece: TypeAlias = tuple[Tensor, Tensor]


def as_float64(wave: Wave, device: torch.device) -> Tensor:
    """Convert samples to a float64 tensor of the same shape, without a copy where none is needed."""
    if isinstance(wave, Tensor):
        if wave.is_complex() or wave.dtype == torch.bool:
            raise InputError(f"waveforms of type {wave.dtype} cannot be scored; pass real samples")
        tensor = wave.detach().to(device, torch.float64)
    else:
        if np.asarray(wave).dtype.kind not in "fiu":
            raise InputError(f"waveforms of type {np.asarray(wave).dtype} cannot be scored; pass real samples")
        array = np.ascontiguousarray(wave, dtype=np.float64)
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy()).to(device)
    # The sum is finite only if every sample is, and takes one pass; an overflow of finite samples is ruled out after.
    if not torch.isfinite(tensor.sum()) and not torch.isfinite(tensor).all():
        raise InputError("the waveforms contain NaN or infinite samples; repair or leave out this track")
    return tensor


def returned_like(template: WaveT, values: Tensor) -> WaveT:
    """Return results as an array if the input was one, else as a tensor."""
    return values if isinstance(template, Tensor) else values.cpu().numpy()


def shape_of(wave: Wave) -> tuple[int, ...]:
    """Return the shape of an array or tensor as plain integers."""
    return tuple(int(size) for size in wave.shape)


def check_pair(references: Wave, estimates: Wave) -> None:
    """Check that references and estimates have the same shape `[S, C, T]`, with nothing empty."""
    wanted, given = shape_of(references), shape_of(estimates)
    if len(wanted) != 3 or 0 in wanted:
        raise InputError(f"references need the shape [sources, channels, samples], none of them 0, got {list(wanted)}")
    check_axes(wanted, "references")
    if wanted[:2] != given[:2]:
        raise InputError(
            f"references are {list(wanted)} but estimates {list(given)}; sources and channels must be the same"
        )
    if wanted != given:
        raise InputError(
            f"references have {wanted[2]} samples but estimates {given[2]}; cut or pad the estimates to the references"
        )


class Track:
    """True and separated sources `[S, C, T]` in memory, or in a memory map, cut into pieces as often as needed."""

    def __init__(self, references: Wave, estimates: Wave, device: torch.device) -> None:
        check_pair(references, estimates)
        self.references, self.estimates, self.device = references, estimates, device
        self.shape = shape_of(references)

    def cut(self, size_samples: int, hop_samples: int) -> Iterator[Piece]:
        """Yield float64 pieces `[S, C, n]` that start every hop; n is the size, or less where the track ends."""
        for start in range(0, self.shape[2], hop_samples):
            span = slice(start, start + size_samples)
            true, given = (as_float64(waves[:, :, span], self.device) for waves in (self.references, self.estimates))
            yield true, given

    def count_windows(self, window_samples: int, hop_samples: int) -> int:
        """Count the windows that are scored: an incomplete last one is dropped, unless it is the only one."""
        for name, value in (("window_samples", window_samples), ("hop_samples", hop_samples)):
            if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
                raise InputError(f"{name} must be a whole number of samples, at least 1, got {value!r}")
        return 1 + max(0, (self.shape[2] - window_samples) // hop_samples)

    def windows(self, window_samples: int, hop_samples: int) -> Iterator[Piece]:
        """Yield the windows `[S, C, n]` that are scored."""
        return islice(self.cut(window_samples, hop_samples), self.count_windows(window_samples, hop_samples))
