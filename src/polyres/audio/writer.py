"""Write a stream of blocks to an audio file that appears only when complete."""

from __future__ import annotations

import errno
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import av
import mutagen
import numpy as np
import numpy.typing as npt
import soundfile

from polyres.audio.encode import MAX_RIFF_BYTES, BitDepth, GuardedFile, LibavSink, PcmSink, Sink, SndfileSink
from polyres.audio.file_names import shorten_name, shown
from polyres.audio.resample import StreamResampler
from polyres.core.catalogue import nearest
from polyres.core.errors import ConfigError, OutputError

Wave = npt.NDArray[np.float32]

FORMATS = ("wav", "flac", "mp3", "m4a", "ogg", "opus")
BIT_DEPTHS: tuple[BitDepth, ...] = (16, 24, "float")

_FIXES = {
    errno.ENOSPC: "free some space or choose another folder",
    errno.EDQUOT: "free some space or choose another folder",
    errno.EFBIG: "choose another folder or a smaller format",
    errno.EACCES: "choose a folder you may write to",
    errno.EPERM: "choose a folder you may write to",
    errno.EROFS: "choose a folder you may write to",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EISDIR: "a folder has this name, choose another",
    errno.ENOTDIR: "a file stands where a folder is needed, choose another folder",
    errno.EEXIST: "a file stands where a folder is needed, choose another folder",
}
_ENCODER_ERRORS = (av.FFmpegError, soundfile.SoundFileError, mutagen.MutagenError)


@dataclass(frozen=True)
class WriteSpec:
    """How to write a file.

    Raises:
        ConfigError: Unknown format or bit depth, or a bit depth that the format does not have.
        OutputError: No format holds this sample rate or channel count.
    """

    # Sample rate of the blocks in Hz. A rate that the format does not have is resampled to the next above, else to the
    # highest; `note` says so. Opus files always hold 48 kHz.
    sample_rate_hz: int
    channels: int  # number of channels C of the blocks. More than the format has are mixed down to two.
    format: str = "wav"  # one of `FORMATS`
    # 16 or 24 bits for wav and flac, or `float` (32-bit) for wav; lossy formats have none and take 16 or 24 without a
    # difference
    bit_depth: BitDepth = 16
    tags: Mapping[str, str] = field(default_factory=dict)  # tags by the names in `polyres.audio.tags.TAG_NAMES`.

    def __post_init__(self) -> None:
        """Validate the format."""
        if self.format not in FORMATS:
            near = nearest(self.format, FORMATS)
            hint = f"; did you mean {near!r}?" if near else ""
            raise ConfigError(f"unknown audio format {self.format!r}; choose one of {', '.join(FORMATS)}{hint}")
        if self.bit_depth not in get_args(BitDepth):
            raise ConfigError(f"bit depth {self.bit_depth!r} is unknown; choose 16, 24 or 'float'")
        if self.bit_depth == "float" and self.format != "wav":
            raise ConfigError(f"{self.format} has no float samples; choose bit depth 16 or 24, or the format wav")
        if not 1 <= self.channels <= MAX_CHANNELS["wav"]:
            raise OutputError(f"no format holds {self.channels} channels; give 1 to {MAX_CHANNELS['wav']}")
        if not 1 <= self.sample_rate_hz <= MAX_RATE_HZ:
            raise OutputError(f"no format holds {self.sample_rate_hz} Hz; give 1 to {MAX_RATE_HZ} Hz")

    @property
    def note(self) -> str | None:
        """One line if the file holds another rate or fewer channels than the blocks; else None."""
        return fit_note(self.format, self.sample_rate_hz, self.channels)


class AudioWriter:
    """Write blocks to an audio file under a temporary name; `close` gives it its own name.

    Equal samples give equal bytes. Integer formats round half to even and hold samples inside their range.
    Used as a context manager it closes at the end, and removes the file if the block raised.

    Args:
        path: The file to make or replace; missing parent folders are made.
        max_riff_bytes: A longer WAV file becomes RF64.

    Raises:
        OutputError: The folder or file cannot be made.
    """

    def __init__(self, path: str | os.PathLike[str], spec: WriteSpec, max_riff_bytes: int = MAX_RIFF_BYTES) -> None:
        self.path = Path(path)
        self.spec = spec
        self.written_samples = 0
        self.partial_path = partial_path(self.path)
        self._guard: GuardedFile | None = None
        self._sink: Sink | None = None
        with self._guarded():
            if self.path.is_dir():
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._guard = GuardedFile(self.partial_path)
            self._sink = _make_sink(self._guard, spec, max_riff_bytes)
            self._fitter = Fitter(spec.format, spec.sample_rate_hz, spec.channels)

    def write(self, block: Wave) -> None:
        """Append a block.

        Args:
            block: `[C, n]` float32, full scale at ±1.

        Raises:
            OutputError: It cannot be written, or holds NaN or infinite samples.
            ValueError: The block has another number of channels, or the file has been closed.
        """
        if self._sink is None:
            raise ValueError(f"{shown(self.path)} has been closed")
        if block.ndim != 2 or block.shape[0] != self.spec.channels:
            raise ValueError(f"block has shape {block.shape}; it must be [{self.spec.channels}, n]")
        if not np.isfinite(block).all():
            self.abort()
            raise OutputError(
                f"{shown(self.path)} would hold NaN or infinite samples; the model or its input is broken"
            )
        with self._guarded():
            if block.shape[1]:
                _write(self._sink, self._fitter.push(block.astype(np.float32, copy=False)))
        self.written_samples += block.shape[1]

    def close(self) -> None:
        """End the file and give it its name; nothing happens if that is done or it was aborted.

        Raises:
            OutputError: It cannot be written, or no sample was; nothing is left behind.
        """
        if self._sink is None:
            return
        if not self.written_samples:
            self.abort()
            raise OutputError(f"{shown(self.path)} would hold no samples; write at least one")
        with self._guarded():
            _write(self._sink, self._fitter.finish())
            self._sink.finish()
            os.replace(self.partial_path, self.path)
            self._sink = self._guard = None

    def abort(self) -> None:
        """Throw the unfinished file away; a file that had the name before stays as it was."""
        sink, self._sink = self._sink, None
        guard, self._guard = self._guard, None
        if sink is not None:
            sink.discard()
        if guard is not None:
            guard.drop()
            with suppress(OSError):
                self.partial_path.unlink(missing_ok=True)

    def __enter__(self) -> AudioWriter:
        """Return the writer."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close the file, or throw it away if the block raised."""
        if kind is None:
            self.close()
        else:
            self.abort()

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Throw the file away on any error, and put the system's and the encoders' into one line."""
        try:
            yield
        except (OSError, *_ENCODER_ERRORS) as error:
            self.abort()
            raise OutputError(f"{shown(self.path)} cannot be written ({_reason(error)}); {_fix(error)}") from error
        except BaseException:
            self.abort()
            raise


def partial_path(path: Path) -> Path:
    """Return the temporary name beside a file under which this process writes it."""
    ending = f".partial-{os.getpid()}"
    return path.with_name(f".{shorten_name(path.name, 254 - len(ending))}{ending}")


def _write(sink: Sink, block: Wave) -> None:
    if block.shape[1]:
        sink.write(block)


def _make_sink(guard: GuardedFile, spec: WriteSpec, max_riff_bytes: int) -> Sink:
    """Open the encoder for the format."""
    rate_hz, channels = held_rate_hz(spec.format, spec.sample_rate_hz), held_channels(spec.format, spec.channels)
    if spec.format == "wav":
        return PcmSink(guard, rate_hz, channels, spec.bit_depth, spec.tags, max_riff_bytes)
    if spec.format in ("flac", "ogg", "mp3"):
        return SndfileSink(guard, spec.format, rate_hz, channels, spec.bit_depth, spec.tags)
    return LibavSink(guard, spec.format, rate_hz, channels, spec.tags)


def _system_error(error: BaseException) -> OSError | None:
    """Return the system's error, which mutagen wraps into its own."""
    if isinstance(error, OSError) and error.errno in errno.errorcode:
        return error
    inner = error.args[0] if error.args else None
    return inner if isinstance(inner, OSError) else None


def _reason(error: BaseException) -> str:
    """Put the reason into few words."""
    system = _system_error(error)
    text = (system.strerror if system is not None else None) or str(error)
    return " ".join(text.split()) or type(error).__name__


def _fix(error: BaseException) -> str:
    """Suggest the fix."""
    system = _system_error(error)
    return _FIXES.get(system.errno or 0, "choose another folder") if system is not None else "choose another format"


MAX_CHANNELS = {"wav": 65535, "flac": 8, "mp3": 2, "m4a": 2, "ogg": 2, "opus": 2}
MAX_RATE_HZ = 0xFFFFFFFF
_LIMITS_HZ = {"wav": MAX_RATE_HZ, "flac": 655_350, "ogg": 200_000, "opus": MAX_RATE_HZ}
_USUAL_RATES_HZ = (192_000, 384_000)
_RATES_HZ = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "m4a": (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
}
_HALF = math.sqrt(0.5)
# Gains of the channels in the left one, in the order of RFC 9639, section 9.1.3; the right one mirrors them.
_LEFT = {
    3: (1, 0, _HALF),
    4: (1, 0, _HALF, 0),
    5: (1, 0, _HALF, _HALF, 0),
    6: (1, 0, _HALF, 0, _HALF, 0),
    7: (1, 0, _HALF, 0, 0.5, _HALF, 0),
    8: (1, 0, _HALF, 0, _HALF, 0, _HALF, 0),
}
_MIRROR = {
    3: (1, 0, 2),
    4: (1, 0, 3, 2),
    5: (1, 0, 2, 4, 3),
    6: (1, 0, 2, 3, 5, 4),
    7: (1, 0, 2, 3, 4, 6, 5),
    8: (1, 0, 2, 3, 5, 4, 7, 6),
}


def held_rate_hz(audio_format: str, sample_rate_hz: int) -> int:
    """Return the rate at which a format holds sound: the same, else the next above, else the highest."""
    if audio_format in _RATES_HZ:
        rates_hz = _RATES_HZ[audio_format]
        return next((rate_hz for rate_hz in rates_hz if rate_hz >= sample_rate_hz), rates_hz[-1])
    limit_hz = _LIMITS_HZ[audio_format]
    if sample_rate_hz <= limit_hz:
        return sample_rate_hz
    return max((rate_hz for rate_hz in _USUAL_RATES_HZ if rate_hz <= limit_hz), default=limit_hz)


def held_channels(audio_format: str, channels: int) -> int:
    """Return the number of channels in which a format holds sound: the same, else 2."""
    return channels if channels <= MAX_CHANNELS[audio_format] else 2


def downmix_gains(channels: int) -> Wave:
    """Return `[2, C]` gains that mix channels down to left and right and let nothing clip that did not before.

    Source: ITU-R BS.775-4, annex 4, scaled to a sum of 1 per row.
    """
    if channels in _LEFT:
        left = np.array(_LEFT[channels])
        gains = np.stack([left, left[list(_MIRROR[channels])]])
    else:
        gains = np.stack([np.arange(channels) % 2 == side for side in (0, 1)]).astype(np.float64)
    return (gains / gains.sum(axis=1, keepdims=True)).astype(np.float32)


class Fitter:
    """Convert blocks to the rate and channels that a format can hold."""

    def __init__(self, audio_format: str, sample_rate_hz: int, channels: int) -> None:
        held = held_channels(audio_format, channels)
        self._gains = downmix_gains(channels) if held != channels else None
        self._resampler = StreamResampler(sample_rate_hz, held_rate_hz(audio_format, sample_rate_hz), held)

    def push(self, block: Wave) -> Wave:
        """Take `[C, n]` and return `[held channels, m]`; m may be 0."""
        # Not a matrix product, whose rounding may depend on the length of the block.
        mixed = block if self._gains is None else np.einsum("sc,cn->sn", self._gains, block)
        return self._resampler.push(mixed)

    def finish(self) -> Wave:
        """Return the last samples."""
        return self._resampler.finish()


def fit_note(audio_format: str, sample_rate_hz: int, channels: int) -> str | None:
    """Describe in one line how a format changes the sound; None if it does not."""
    rate_hz, held = held_rate_hz(audio_format, sample_rate_hz), held_channels(audio_format, channels)
    parts = [] if rate_hz == sample_rate_hz else [f"{sample_rate_hz} Hz resampled to {rate_hz} Hz"]
    parts += [] if held == channels else [f"{channels} channels mixed down to {held}"]
    if not parts:
        return None
    return f"{' and '.join(parts)}, which {audio_format} can hold; wav keeps all"
