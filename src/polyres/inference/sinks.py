"""Where finished stems go while a track is separated: files at once, or scratch until the shared gain is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import Tensor

from polyres.data.writer import AudioWriter, WriteSpec
from polyres.ops.levels import peak_level, shared_gain


class FloatSink:
    """Writes float files straight away; nothing clips in them."""

    gain = 1.0

    def __init__(self, paths: Sequence[Path], spec: WriteSpec) -> None:
        """Open one file per stem.

        Args:
            paths: one per stem.
            spec: how to write.
        """
        self._writers = [AudioWriter(path, spec) for path in paths]

    def write(self, stems: Tensor) -> None:
        """Take `[W, C, n]`."""
        for writer, stem in zip(self._writers, stems, strict=True):
            writer.write(stem.contiguous().numpy())

    def finish(self) -> None:
        """Complete all files."""
        for writer in self._writers:
            writer.close()

    def abort(self) -> None:
        """Remove all files."""
        for writer in self._writers:
            writer.abort()


class ScaledSink:
    """Keeps float samples in scratch files, then writes all stems with one gain that lets none of them clip."""

    def __init__(self, paths: Sequence[Path], spec: WriteSpec, gain: float, block_samples: int) -> None:
        """Open the scratch files.

        Args:
            paths: one per stem; the scratch files lie beside them.
            spec: how to write.
            gain: gain of stems of the same track that are there already, else 1.
            block_samples: samples encoded at a time.
        """
        self.gain = gain
        self._paths, self._spec, self._block_samples = paths, spec, block_samples
        self._peak = 0.0
        self._scratch: list[BinaryIO] = [path.with_suffix(".f32").open("w+b") for path in paths]

    def write(self, stems: Tensor) -> None:
        """Take `[W, C, n]`."""
        self._peak = max(self._peak, peak_level(stems))
        for file, stem in zip(self._scratch, stems, strict=True):
            stem.T.contiguous().numpy().tofile(file)

    def finish(self) -> None:
        """Encode all files with the shared gain."""
        self.gain *= shared_gain(self._peak * self.gain)
        for file, path in zip(self._scratch, self._paths, strict=True):
            self._encode(file, path)

    def abort(self) -> None:
        """Close the scratch files; the folder they lie in is removed as a whole."""
        for file in self._scratch:
            file.close()

    def _encode(self, file: BinaryIO, path: Path) -> None:
        channels = self._spec.channels
        file.flush()
        file.seek(0)
        with AudioWriter(path, self._spec) as writer:
            while len(samples := np.fromfile(file, np.float32, self._block_samples * channels)):
                block = samples.reshape(-1, channels).T
                writer.write(np.ascontiguousarray(block * np.float32(self.gain) if self.gain != 1.0 else block))
        file.close()
        path.with_suffix(".f32").unlink()
