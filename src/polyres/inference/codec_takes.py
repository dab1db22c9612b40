"""Versions of one file while they are compared: float samples in scratch files, read back piece by piece."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyres.data.writer import AudioWriter, WriteSpec
from polyres.ops.levels import peak_level

_ENCODE_SAMPLES = 1 << 17


class Take:
    """One version of a file, on disk as raw float samples."""

    def __init__(self, path: Path, channels: int) -> None:
        """Start an empty scratch file.

        Args:
            path: of the scratch file.
            channels: of the audio.
        """
        self.path, self.channels = path, channels
        self.peak = 0.0
        self.length_samples = 0

    def fill(self, blocks: Iterable[Tensor]) -> Take:
        """Write all blocks.

        Args:
            blocks: `[C, n]` float32.

        Returns:
            The take.
        """
        for block in blocks:
            self.append(block)
        return self

    def append(self, block: Tensor) -> None:
        """Write one block after those that are there.

        Args:
            block: `[C, n]` float32.
        """
        self.peak = max(self.peak, peak_level(block))
        with self.path.open("ab" if self.length_samples else "wb") as file:
            block.T.contiguous().numpy().tofile(file)
        self.length_samples += block.shape[-1]

    def read(self, start: int, stop: int) -> Tensor:
        """Read a piece.

        Args:
            start: first sample.
            stop: sample after the last one, at most the length.

        Returns:
            `[C, stop - start]` float32.
        """
        count = (stop - start) * self.channels
        samples = np.fromfile(self.path, np.float32, count, offset=4 * start * self.channels)
        return torch.from_numpy(np.ascontiguousarray(samples.reshape(-1, self.channels).T))

    def encode(self, path: Path, spec: WriteSpec, gain: float) -> None:
        """Write an audio file.

        Args:
            path: the file.
            spec: how to write it.
            gain: factor on all samples.

        Raises:
            OutputError: when it cannot be written.
        """
        with AudioWriter(path, spec) as writer:
            for start in range(0, self.length_samples, _ENCODE_SAMPLES):
                block = self.read(start, min(start + _ENCODE_SAMPLES, self.length_samples))
                writer.write((block * gain if gain != 1.0 else block).numpy())
