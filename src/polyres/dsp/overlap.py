"""Cut a long signal into overlapping segments and cross-fade the results, block by block."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from polyres.core.errors import ConfigError, InputError

Wave = npt.NDArray[np.float32]


def stride_samples(segment_samples: int, overlap: float) -> int:
    """Distance between the starts of neighbouring segments."""
    if not 0.0 <= overlap < 1.0:
        raise ConfigError(f"overlap {overlap} is not possible; choose 0 <= overlap < 1, such as 0.25")
    return max(1, int((1.0 - overlap) * segment_samples))


def triangle_weight(segment_samples: int) -> Wave:
    """Cross-fade weight of a segment: rises by equal steps to 1 in the middle, then falls, never zero.

    Returns `[segment_samples]` float32 in (0, 1].

    Source: Defossez et al., "Music Source Separation in the Waveform Domain", 2019 (weighting of overlapping segments).
    """
    half = segment_samples // 2
    rising = np.arange(1, half + 1, dtype=np.float32)
    falling = np.arange(segment_samples - half, 0, -1, dtype=np.float32)
    weight: Wave = np.concatenate([rising, falling])
    weight /= weight.max()
    return weight


def centred_bounds(start: int, length_samples: int, segment_samples: int) -> tuple[int, int]:
    """Range that a segment of full length takes around a shorter piece, the piece in its middle."""
    first = start - (segment_samples - length_samples) // 2
    return first, first + segment_samples


class OverlapAdd:
    """Weighted overlap-add that hands out samples as soon as they are complete, in bounded memory."""

    def __init__(self, weight: Wave) -> None:
        """Start at sample 0.

        `weight`: `[L]` positive cross-fade weight of a full segment; a shorter segment uses its first samples.
        """
        self._weight = weight
        self._sum: Wave | None = None
        self._norm = np.zeros(0, np.float32)
        self._position = 0

    def add(self, segment: Wave, start: int) -> None:
        """Add one segment to the sum. `segment`: `[..., n]`, n <= L."""
        if start < self._position:
            raise InputError(f"segment at sample {start} comes too late; samples before {self._position} are finished")
        length = segment.shape[-1]
        first = start - self._position
        total = self._grown(segment, first + length)
        weight = self._weight[:length]
        total[..., first : first + length] += weight * segment
        self._norm[first : first + length] += weight

    def take(self, end: int) -> Wave | None:
        """Hand out the finished samples before `end` and forget them.

        Returns `[..., m]` cross-faded samples, or None when there are none.
        """
        count = end - self._position
        if self._sum is None or count <= 0:
            return None
        done = self._sum[..., :count] / self._norm[:count]
        self._sum = self._sum[..., count:]
        self._norm = self._norm[count:]
        self._position = end
        return done

    def _grown(self, like: Wave, size: int) -> Wave:
        total = np.zeros((*like.shape[:-1], 0), np.float32) if self._sum is None else self._sum
        missing = size - total.shape[-1]
        if missing > 0:
            total = np.concatenate([total, np.zeros((*like.shape[:-1], missing), np.float32)], axis=-1)
            self._norm = np.concatenate([self._norm, np.zeros(missing, np.float32)])
        self._sum = total
        return total


Runner = Callable[[Wave], Wave]


class Fifo:
    """First in, first out for samples."""

    def __init__(self) -> None:
        self._parts: deque[Wave] = deque()
        self.length = 0

    def push(self, block: Wave) -> None:
        """Append `[..., n]`."""
        if block.shape[-1]:
            self._parts.append(block)
            self.length += block.shape[-1]

    def take(self, count: int) -> Wave:
        """Remove and return the oldest `count` samples, 1 <= count <= length."""
        parts: list[Wave] = []
        missing = count
        while missing:
            part = self._parts.popleft()
            if part.shape[-1] > missing:
                self._parts.appendleft(part[..., missing:])
                part = part[..., :missing]
            parts.append(part)
            missing -= part.shape[-1]
        self.length -= count
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=-1)


class SegmentStream:
    """Separates a stream of known length segment by segment.

    Segments are cut, padded with their real surroundings, cross-faded and numbered as Demucs does it, so that equal
    models give equal results. The result does not depend on how the stream is cut into blocks.

    Source:
        Rouard, Massa, Defossez, "Hybrid Transformers for Music Source Separation", ICASSP 2023 (released inference).
    """

    def __init__(
        self, runner: Runner, segment_samples: int, overlap: float, batch: int, end: int, start: int = 0
    ) -> None:
        """Prepare a stream.

        `runner`: model call, `[N, C, segment_samples]` to `[N, K, C, segment_samples]`, 1 <= N <= batch.
        `segment_samples`: length the model is always called with. `overlap`: share of a segment that the next one
        covers again, 0 <= overlap < 1. `batch`: segments per call; the last call may have fewer. `end`: length of the
        stream in samples, >= 1. `start`: where the first segment begins, <= 0; zeros stand before the stream.
        """
        self._runner = runner
        self._length = segment_samples
        self._stride = stride_samples(segment_samples, overlap)
        self._batch = batch
        self._start, self._end = start, end
        self._next = start
        self._buffer: Wave | None = None
        self._buffer_start = 0
        self._waiting: list[tuple[Wave, int, int]] = []
        self._overlap_add = OverlapAdd(triangle_weight(segment_samples))
        self._emitted = 0

    @property
    def segment_count(self) -> int:
        """Number of segments over the whole stream."""
        return len(range(self._start, self._end, self._stride))

    def push(self, block: Wave) -> Wave | None:
        """Take in the next samples.

        `block`: `[C, n]`. Returns `[K, C, m]` samples that are finished now, following those returned before; None if
        there are none.
        """
        self._buffer = block if self._buffer is None else np.concatenate([self._buffer, block], axis=-1)
        done: list[Wave] = []
        while self._next < self._end and self._is_ready():
            self._cut()
            if len(self._waiting) == self._batch or self._next >= self._end:
                done.extend(self._run())
        return np.concatenate(done, axis=-1) if done else None

    def _bounds(self) -> tuple[int, int, int]:
        length = min(self._length, self._end - self._next)
        first, last = centred_bounds(self._next, length, self._length)
        return first, last, length

    def _is_ready(self) -> bool:
        held = 0 if self._buffer is None else self._buffer.shape[-1]
        return self._buffer_start + held >= min(self._bounds()[1], self._end)

    def _cut(self) -> None:
        """Move the next segment, padded to full length, to the waiting ones and drop samples no longer needed."""
        if self._buffer is None:
            return
        first, last, length = self._bounds()
        low = max(0, first)
        high = max(low, min(last, self._end))
        inside = self._buffer[:, low - self._buffer_start : high - self._buffer_start]
        before = min(self._length, low - first)
        padded = np.pad(inside, ((0, 0), (before, self._length - before - inside.shape[-1])))
        self._waiting.append((padded, self._next, length))
        self._next += self._stride
        if self._next < self._end:
            needed = max(0, self._bounds()[0])
            self._buffer = self._buffer[:, needed - self._buffer_start :]
            self._buffer_start = needed

    def _run(self) -> list[Wave]:
        """Call the model on the waiting segments and collect what is finished after each."""
        outputs = self._runner(np.stack([padded for padded, _, _ in self._waiting]))
        done: list[Wave] = []
        for output, (_, position, length) in zip(outputs, self._waiting, strict=True):
            trim = (self._length - length) // 2
            self._overlap_add.add(output[..., trim : trim + length], position - self._start)
            finished = self._overlap_add.take(min(position + self._stride, self._end) - self._start)
            done.extend(self._after_start(finished))
        self._waiting.clear()
        return done

    def _after_start(self, finished: Wave | None) -> list[Wave]:
        """Drop what lies before sample 0 of the stream."""
        if finished is None:
            return []
        before = max(0, -(self._start + self._emitted))
        self._emitted += finished.shape[-1]
        kept = finished[..., before:]
        return [kept] if kept.shape[-1] else []
