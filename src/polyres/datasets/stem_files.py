"""Parts: the files whose sum is one stem, read block by block or whole."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from itertools import zip_longest
from typing import Protocol

import numpy as np
import numpy.typing as npt

from polyres.audio.files import AudioReader
from polyres.audio.resample import StreamResampler, rechunk
from polyres.audio.track_files import Part
from polyres.core.errors import InputError
from polyres.datasets.collections import StemStreamReader
from polyres.synth.modules.tracks import ModulePartReader

Wave = npt.NDArray[np.float32]

_WHOLE_BLOCK_SAMPLES = 1 << 18


class PartReader(Protocol):
    """One file that is read block by block."""

    warnings: list[str]

    def blocks(self, block_samples: int) -> Generator[Wave, None, None]:
        """Pass over the file once, yielding `[C, n]`."""
        ...


class StemReader:
    """Read a stem, the sum of its parts, in constant memory.

    Parts of other rates are brought to the rate of the first; a part with fewer channels repeats its last one; those
    that end early count as silent behind their end.

    `sample_rate_hz`: Sample rate of the sum, that of the first part. `lengths_samples`: Samples of each part at its own
    rate; known once `blocks` has ended. Raises InputError: A file is missing or cannot be read.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        opened = [_open(part) for part in parts]
        self._readers: list[PartReader] = [reader for reader, _, _ in opened]
        self.sample_rates_hz = [rate_hz for _, rate_hz, _ in opened]
        self.sample_rate_hz = self.sample_rates_hz[0]
        self.channels = max(channels for _, _, channels in opened)
        self.lengths_samples = [0] * len(opened)

    @property
    def warnings(self) -> list[str]:
        """One line for each thing that went wrong in the last pass."""
        return [line for reader in self._readers for line in reader.warnings]

    def blocks(self, block_samples: int) -> Generator[Wave, None, None]:
        """Pass over all parts once.

        `block_samples`: Samples per block at the rate of the sum, 1 or more. Yields `[C, n]` float32; n is
        `block_samples` in all blocks but the last. Raises InputError: A file cannot be decoded, or holds NaN or
        infinite samples.
        """
        self.lengths_samples = [0] * len(self._readers)
        streams = [self._part(index, block_samples) for index in range(len(self._readers))]
        try:
            if len(streams) == 1:
                yield from streams[0]
                return
            for blocks in zip_longest(*streams):
                yield self._sum([block for block in blocks if block is not None])
        finally:
            for stream in streams:
                stream.close()

    def _part(self, index: int, block_samples: int) -> Generator[Wave, None, None]:
        """Yield one part at the rate of the sum."""
        reader, rate_hz = self._readers[index], self.sample_rates_hz[index]
        if rate_hz == self.sample_rate_hz:
            for block in reader.blocks(block_samples):
                self.lengths_samples[index] += block.shape[1]
                yield block
            return
        yield from rechunk(self._resampled(index, block_samples), block_samples)

    def _resampled(self, index: int, block_samples: int) -> Iterator[Wave]:
        resampler = None
        for block in self._readers[index].blocks(block_samples):
            if resampler is None:
                resampler = StreamResampler(self.sample_rates_hz[index], self.sample_rate_hz, len(block))
            self.lengths_samples[index] += block.shape[1]
            yield resampler.push(block)
        if resampler is not None:
            yield resampler.finish()

    def _sum(self, blocks: Sequence[Wave]) -> Wave:
        total = np.zeros((self.channels, max(block.shape[1] for block in blocks)), np.float32)
        for block in blocks:
            total[:, : block.shape[1]] += spread_channels(block, self.channels)
        return total


def _open(part: Part) -> tuple[PartReader, int, int]:
    """Return a reader with its rate and channels."""
    if part.instruments is not None:
        module = ModulePartReader(part)
        return module, module.sample_rate_hz, module.channels
    if part.stream is not None:
        stream = StemStreamReader(part.path, part.stream)
        return stream, stream.sample_rate_hz, stream.channels
    file = AudioReader(part.path)
    return file, file.info.sample_rate_hz, file.info.channels


def spread_channels(wave: Wave, channels: int) -> Wave:
    """Bring `[C, n]` to a number of channels: the last one is repeated, extra ones are left out."""
    return wave[np.minimum(np.arange(channels), len(wave) - 1)]


def refuse_warnings(warnings: Sequence[str]) -> None:
    """Refuse a file that did not end well. Raises InputError if there is a warning."""
    if warnings:
        raise InputError(f"{warnings[0]}; copy the file again or take it away")


def read_whole(part: Part) -> tuple[Wave, int]:
    """Read one file into memory. Returns `[C, T]` float32 and the sample rate in Hz."""
    reader, rate_hz, _ = _open(part)
    wave = np.concatenate(list(reader.blocks(_WHOLE_BLOCK_SAMPLES)), axis=1)
    refuse_warnings(reader.warnings)
    return wave, rate_hz
