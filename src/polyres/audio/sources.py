"""Read samples from memory or a file through one interface, and keep results in float files."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from polyres.audio.files import AudioInfo, AudioReader, probe
from polyres.audio.resample import StreamResampler
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import InputError
from polyres.dsp.axes import check_axes, scale_warning
from polyres.dsp.levels import peak_level, shared_gain

if TYPE_CHECKING:
    from torch import Tensor

Block = npt.NDArray[np.float32]


class BlockSource(Protocol):
    """Audio that can be read from the start more than once."""

    name: str
    sample_rate_hz: int
    channels: int

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """Yield `[C, n]` float32 blocks; all but the last hold `block_samples`."""
        ...


Wave: TypeAlias = "Tensor | np.ndarray"
"""Samples in memory, `[C, T]`."""


class MemorySource:
    """A waveform in memory."""

    def __init__(self, wave: Wave, sample_rate_hz: int) -> None:
        """Check and keep the waveform.

        Args:
            wave: `[C, T]` floating point, C >= 1, T >= 1, finite; a tensor or a NumPy array.
            sample_rate_hz: its rate, >= 1.

        Raises:
            InputError: when one of these does not hold.

        Warns:
            UserWarning: when the samples are far above full scale.
        """
        checked = _array(wave)
        if sample_rate_hz < 1:
            raise InputError(f"sample rate {sample_rate_hz} Hz is not possible; give that of the wave, such as 44100")
        self._wave = checked
        peak = peak_level(checked)
        if not math.isfinite(peak):
            raise InputError("wave holds NaN or infinite samples; repair it first, for example with torch.nan_to_num")
        if (warning := scale_warning(peak)) is not None:
            warnings.warn(f"wave {warning}", UserWarning, stacklevel=3)
        self.name = "wave"
        self.sample_rate_hz = sample_rate_hz
        self.channels = self._wave.shape[0]

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """Yield `[C, n]` float32 blocks; all but the last hold `block_samples`."""
        for start in range(0, self._wave.shape[1], block_samples):
            yield self._wave[:, start : start + block_samples]


def _array(wave: Wave) -> Block:
    """Check shape and type of a wave, and make it an array of float32."""
    if not isinstance(wave, np.ndarray):
        torch = sys.modules.get("torch")  # who holds a tensor has loaded it
        if torch is None or not isinstance(wave, torch.Tensor):
            raise InputError(f"a wave cannot be a {type(wave).__name__}; give a tensor or NumPy array [C, T]")
    floating = np.issubdtype(wave.dtype, np.floating) if isinstance(wave, np.ndarray) else wave.is_floating_point()
    if wave.ndim != 2 or 0 in wave.shape or not floating:
        raise InputError(
            f"wave of shape {tuple(wave.shape)} and type {wave.dtype} cannot be used; "
            f"expected floating point [C, T] with at least one channel and one sample{_remedy(wave)}"
        )
    check_axes(wave.shape)
    array = wave if isinstance(wave, np.ndarray) else wave.detach().float().cpu().numpy()
    return np.require(array, np.float32, ["C", "W"])


def _remedy(wave: Wave) -> str:
    """Suggest how to convert a wave of another common type."""
    for full_scale, kind in ((32768, "int16"), (2147483648, "int32")):
        if str(wave.dtype).removeprefix("torch.") == kind:
            return f"; these integers become that by wave / {full_scale}"
    if wave.ndim == 1 and wave.shape[0]:
        return "; a mono wave becomes that by wave[None]"
    return ""


class FileSource:
    """An audio file."""

    def __init__(self, path: Path, stream: int | None = None) -> None:
        """Look at the head of a file.

        Args:
            path: anything the audio reader can decode.
            stream: which of its audio streams, from 1; None is the one that it marks as the default.

        Raises:
            InputError: when it cannot be read, or has no such stream.
        """
        self.path = path
        self._stream_index = None if stream is None else stream - 1
        self.info: AudioInfo = probe(path, self._stream_index)
        self.name = str(path)
        self.sample_rate_hz = self.info.sample_rate_hz
        self.channels = self.info.channels
        self.warnings: tuple[str, ...] = ()

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """Yield `[C, n]` float32 blocks; all but the last hold `block_samples`."""
        with AudioReader(self.path, self._stream_index) as reader:
            for block in reader.blocks(block_samples):
                yield np.require(block, np.float32, ["C", "W"])
            self.warnings = tuple(dict.fromkeys((*self.info.notes, *reader.warnings)))


class PieceSource(FileSource):
    """A piece of an audio file."""

    def __init__(self, path: Path, start_s: float, seconds: float) -> None:
        """Look at the head of a file.

        Args:
            path: anything the audio reader can decode.
            start_s: where the piece begins; it ends with the file at the latest.
            seconds: of the piece; may be infinite.

        Raises:
            InputError: when the file cannot be read.
        """
        super().__init__(path)
        self._start = round(start_s * self.sample_rate_hz)
        self._stop = self._start + round(seconds * self.sample_rate_hz) if math.isfinite(seconds) else math.inf

    def blocks(self, block_samples: int) -> Iterator[Block]:
        """Yield `[C, n]` float32 blocks, of `block_samples` at most."""
        first = 0
        for block in super().blocks(block_samples):
            low, high = max(0, self._start - first), int(min(self._stop - first, block.shape[-1]))
            first += block.shape[-1]
            if low < high:
                yield block[:, low:high]
            if first >= self._stop:
                return


class FloatSink:
    """Writes float files straight away; nothing clips in them."""

    gain = 1.0

    def __init__(self, paths: Sequence[Path], spec: WriteSpec) -> None:
        """Open one file per stem."""
        self._writers = [AudioWriter(path, spec) for path in paths]

    def write(self, stems: Block) -> None:
        """Take `[W, C, n]`."""
        for writer, stem in zip(self._writers, stems, strict=True):
            writer.write(np.ascontiguousarray(stem))

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
            gain: gain of stems of the same track that are there already, else 1.
            block_samples: samples encoded at a time.
        """
        self.gain = gain
        self._paths, self._spec, self._block_samples = paths, spec, block_samples
        self._peak = 0.0
        self._scratch: list[BinaryIO] = [path.with_suffix(".f32").open("w+b") for path in paths]

    def write(self, stems: Block) -> None:
        """Take `[W, C, n]`."""
        self._peak = max(self._peak, peak_level(stems))
        for file, stem in zip(self._scratch, stems, strict=True):
            np.ascontiguousarray(stem.T).tofile(file)

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


Progress = Callable[[float], None]


def resampled(source: BlockSource, rate_hz: int, block_samples: int) -> Iterator[tuple[Block, Block]]:
    """Read a source and resample it as a stream.

    Args:
        block_samples: samples read at a time.

    Yields:
        (`[C, n]` block as read, `[C, m]` samples at the wanted rate); the last pair has no block to read (n = 0).
    """
    resampler = StreamResampler(source.sample_rate_hz, rate_hz, source.channels)
    for block in source.blocks(block_samples):
        yield block, resampler.push(block)
    yield np.zeros((source.channels, 0), np.float32), resampler.finish()


def channel_groups(channels: int, audio_channels: int) -> list[range]:
    """Split the channels of a file into groups a model can take.

    Args:
        channels: channels of the file, >= 1.
        audio_channels: channels of the model, >= 1.

    Returns:
        As many full groups as possible, then single channels.
    """
    full = channels // audio_channels * audio_channels
    groups = [range(first, first + audio_channels) for first in range(0, full, audio_channels)]
    return groups + [range(first, first + 1) for first in range(full, channels)]


def split_groups(block: Block, groups: Sequence[range]) -> list[Block]:
    """Cut `[C, n]` into its groups of channels."""
    return [block[group.start : group.stop] for group in groups]


DEFAULT_BLOCK_SAMPLES = 1 << 17
