"""Resample streams with exact length and without delay, and cut them into blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import soxr

from polyres.core.errors import ConfigError

Wave = npt.NDArray[np.float32]

DEFAULT_BLOCK_SAMPLES = 65536
_QUALITY = "VHQ"


def resampled_length(length_samples: int, in_hz: int, out_hz: int) -> int:
    """Return how many samples `length_samples` become: ceil(length · out / in)."""
    return -(-length_samples * out_hz // in_hz)


class StreamResampler:
    """Resample a signal that arrives in blocks; the blocks' sizes do not change the result.

    The filter has linear phase and its delay is taken out, so sample n of the output lies at time n / out_hz.
    The signal is taken to be zero before its start and after its end. Equal rates hand the blocks on untouched.

    Args:
        in_hz: Sample rate of what is pushed, in Hz, 1 or more.
        out_hz: Sample rate of what comes out, in Hz, 1 or more.
        channels: Number of channels C, 1 or more.

    Raises:
        ConfigError: A rate or the channel count is below 1.

    Source: the SoX Resampler library, https://sourceforge.net/p/soxr.
    """

    def __init__(self, in_hz: int, out_hz: int, channels: int) -> None:
        for name, value in (("in_hz", in_hz), ("out_hz", out_hz), ("channels", channels)):
            if value < 1:
                raise ConfigError(f"{name} is {value}; it must be 1 or more")
        self.in_hz = in_hz
        self.out_hz = out_hz
        self.channels = channels
        self._pushed = 0
        self._returned = 0
        self._finished = False
        self._stream = (
            None if in_hz == out_hz else soxr.ResampleStream(in_hz, out_hz, channels, dtype="float32", quality=_QUALITY)
        )

    def push(self, block: Wave) -> Wave:
        """Take the next block and return what is ready so far.

        Args:
            block: `[C, n]` float32, n ≥ 0.

        Returns:
            `[C, m]` float32; m may be 0, as the filter looks ahead.

        Raises:
            ValueError: The block has another number of channels, or the stream has been finished.
        """
        if block.ndim != 2 or block.shape[0] != self.channels:
            raise ValueError(f"block has shape {block.shape}; it must be [{self.channels}, n]")
        if self._finished:
            raise ValueError("the stream has been finished; make a new StreamResampler")
        self._pushed += block.shape[1]
        if self._stream is None or not block.shape[1]:
            return block
        return self._feed(np.ascontiguousarray(block.T, dtype=np.float32), last=False)

    def finish(self) -> Wave:
        """End the signal and return its rest, so that all returned samples are ceil(n · out_hz / in_hz) in number."""
        self._finished = True
        if self._stream is None or not self._pushed:
            return np.zeros((self.channels, 0), np.float32)
        missing = resampled_length(self._pushed, self.in_hz, self.out_hz) - self._returned
        # The library rounds its own length down now and then: silence after the end makes it go far enough.
        silence = np.zeros((resampled_length(2, self.out_hz, self.in_hz) + 1, self.channels), np.float32)
        rest = self._feed(silence, last=True)[:, :missing]
        return np.pad(rest, ((0, 0), (0, missing - rest.shape[1])))

    def _feed(self, frames: Wave, last: bool) -> Wave:
        """Pass `[n, C]` through the library and count what returns, as `[C, m]`."""
        if self._stream is None:
            raise ValueError("equal rates have no stream")
        out = np.ascontiguousarray(self._stream.resample_chunk(frames, last=last).T)
        self._returned += out.shape[1]
        return out


def resample(wave: Wave, in_hz: int, out_hz: int, block_samples: int = DEFAULT_BLOCK_SAMPLES) -> Wave:
    """Resample a whole signal through `StreamResampler`, bit-equal to the streaming path.

    Args:
        wave: `[C, T]` float32.
        in_hz: Sample rate of `wave` in Hz.
        out_hz: Wanted sample rate in Hz.
        block_samples: Samples per block, 1 or more.

    Returns:
        `[C, ceil(T · out_hz / in_hz)]` float32; `wave` itself where the rates are equal.

    Raises:
        ConfigError: A rate is below 1.
    """
    stream = StreamResampler(in_hz, out_hz, wave.shape[0])
    if in_hz == out_hz:
        return wave
    parts = [stream.push(wave[:, at : at + block_samples]) for at in range(0, wave.shape[1], block_samples)]
    return np.concatenate([*parts, stream.finish()], axis=1)


class BlockBuffer:
    """Collect pieces `[C, n]` and hand out blocks `[C, block_samples]`."""

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
    """Cut a signal to `length` samples if it is longer by at most `excess`; else hand it on whole."""
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
