"""Cut a signal that arrives in pieces of any size into blocks of one size."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]


class BlockBuffer:
    """Collect pieces `[C, n]` and hand out blocks `[C, block_samples]`.

    Args:
        block_samples: Samples per block, 1 or more.
    """

    def __init__(self, block_samples: int) -> None:
        self.block_samples = block_samples
        self._parts: list[Wave] = []
        self._held = 0

    def push(self, piece: Wave) -> Iterator[Wave]:
        """Take a piece and yield every block that is full now."""
        self._parts.append(piece)
        self._held += piece.shape[1]
        if self._held < self.block_samples:
            return
        joined = self._joined()
        whole = self._held - self._held % self.block_samples
        self._parts = [joined[:, whole:]]
        self._held -= whole
        for at in range(0, whole, self.block_samples):
            yield np.ascontiguousarray(joined[:, at : at + self.block_samples])

    def rest(self) -> Wave | None:
        """Return the last, shorter block, or None if nothing is left."""
        if not self._held:
            return None
        joined = self._joined()
        self._parts, self._held = [], 0
        return np.ascontiguousarray(joined)

    def _joined(self) -> Wave:
        return self._parts[0] if len(self._parts) == 1 else np.concatenate(self._parts, axis=1)


def rechunk(pieces: Iterable[Wave], block_samples: int) -> Iterator[Wave]:
    """Yield the signal of `pieces` `[C, n]` in blocks of `block_samples`; only the last may be shorter."""
    buffer = BlockBuffer(block_samples)
    for piece in pieces:
        yield from buffer.push(piece)
    last = buffer.rest()
    if last is not None:
        yield last


def skip_samples(pieces: Iterable[Wave], count: int) -> Iterator[Wave]:
    """Leave out the first `count` samples of a signal that arrives in pieces `[C, n]`."""
    for piece in pieces:
        left, count = piece[:, count:], max(count - piece.shape[1], 0)
        if left.shape[1]:
            yield left


def trim_excess(pieces: Iterable[Wave], length: int, excess: int) -> Iterator[Wave]:
    """Cut a signal to `length` samples if it is longer by at most `excess`; else hand it on whole.

    Encoders fill their last frame up, and the container states the true length. A signal that goes on for much
    longer shows that the statement is wrong.
    """
    held = BlockBuffer(excess + 1)
    seen = 0
    for piece in pieces:
        inside = min(max(length - seen, 0), piece.shape[1])
        seen += piece.shape[1]
        if inside:
            yield piece[:, :inside]
        if inside < piece.shape[1]:
            yield from held.push(piece[:, inside:])
    last = held.rest()
    if seen > length + excess and last is not None:
        yield last
