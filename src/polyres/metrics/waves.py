"""References and estimates as arrays, tensors or streams of blocks, cut into float64 pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeAlias, TypeVar

import numpy as np
import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.dsp.axes import check_axes

Wave: TypeAlias = "Tensor | np.ndarray[Any, Any]"
WaveT = TypeVar("WaveT", Tensor, "np.ndarray[Any, Any]")
Piece: TypeAlias = tuple[Tensor, Tensor]
OpenBlocks: TypeAlias = Callable[[], Iterable[tuple[Wave, Wave]]]
"""Opens a track anew: blocks `[S, C, n]` of the references and of the estimates, one after the other."""


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


def check_window(window_samples: int, hop_samples: int) -> None:
    """Check that windows and hops are whole numbers of samples, 1 or more."""
    for name, value in (("window_samples", window_samples), ("hop_samples", hop_samples)):
        if not isinstance(value, int | np.integer) or isinstance(value, bool) or value < 1:
            raise InputError(f"{name} must be a whole number of samples, at least 1, got {value!r}")


class Track(Protocol):
    """Sources of one track that can be cut into pieces as often as needed."""

    device: torch.device

    def cut(self, size_samples: int, hop_samples: int) -> Iterator[Piece]:
        """Yield float64 pieces `[S, C, n]` that start every hop; n is the size, or less where the track ends."""


class ArrayTrack:
    """A track that lies in memory (or in a memory map) as a whole."""

    def __init__(self, references: Wave, estimates: Wave, device: torch.device) -> None:
        """Check the shapes of true and separated sources, `[S, C, T]`."""
        check_pair(references, estimates)
        self.references, self.estimates, self.device = references, estimates, device

    def cut(self, size_samples: int, hop_samples: int) -> Iterator[Piece]:
        """Yield float64 pieces `[S, C, n]` that start every hop; n is the size, or less where the track ends."""
        for start in range(0, shape_of(self.references)[2], hop_samples):
            span = slice(start, start + size_samples)
            yield (
                as_float64(self.references[:, :, span], self.device),
                as_float64(self.estimates[:, :, span], self.device),
            )


class BlockTrack:
    """A track that is read block by block, anew for every pass."""

    def __init__(self, open_blocks: OpenBlocks, device: torch.device) -> None:
        """Keep the opener without reading anything."""
        self.open_blocks, self.device = open_blocks, device

    def _pairs(self) -> Iterator[Tensor]:
        """Yield blocks `[2, S, C, n]` after making sure that they fit the first."""
        first: tuple[int, ...] | None = None
        for references, estimates in self.open_blocks():
            check_pair(references, estimates)
            first = first or shape_of(references)[:2]
            if shape_of(references)[:2] != first:
                raise InputError(f"a block has [sources, channels] {list(shape_of(references)[:2])}, not {list(first)}")
            yield torch.stack([as_float64(references, self.device), as_float64(estimates, self.device)])
        if first is None:
            raise InputError("the track has no blocks; there is nothing to score")

    def cut(self, size_samples: int, hop_samples: int) -> Iterator[Piece]:
        held: Tensor | None = None
        skip = 0  # samples between the end of the last piece and the start of the next, where hops are longer
        for block in self._pairs():
            held = block if held is None else torch.cat([held, block], dim=-1)
            dropped = min(skip, held.shape[-1])
            held, skip = held[..., dropped:], skip - dropped
            while held.shape[-1] >= size_samples:
                yield held[0, ..., :size_samples], held[1, ..., :size_samples]
                skip = max(0, hop_samples - held.shape[-1])
                held = held[..., hop_samples:]
        while held is not None and held.shape[-1] > 0:
            yield held[0, ..., :size_samples], held[1, ..., :size_samples]
            held = held[..., hop_samples:]


def cut_windows(track: Track, window_samples: int, hop_samples: int) -> Iterator[Piece]:
    """Yield the windows `[S, C, n]` that are scored: an incomplete last one is dropped, unless it is the only one."""
    for index, piece in enumerate(track.cut(window_samples, hop_samples)):
        if index == 0 or piece[0].shape[-1] == window_samples:
            yield piece
