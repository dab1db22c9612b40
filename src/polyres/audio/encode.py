"""Encoders of `AudioWriter`: WAV by our own code, FLAC, Vorbis and MP3 through libsndfile, AAC and Opus through
FFmpeg's libraries."""

from __future__ import annotations

import struct
from collections.abc import Mapping
from contextlib import suppress
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO, Literal, Protocol, cast

import av
import numpy as np
import numpy.typing as npt
import soundfile
from mutagen.ogg import OggPage

from polyres.audio.opening import new_container
from polyres.audio.resample import BlockBuffer, StreamResampler
from polyres.audio.tags import wav_tag_chunks, write_tags
from polyres.core.process import called_from_c

BitDepth = Literal[16, 24, "float"]

MAX_RIFF_BYTES = 0xFFFFFFFF
_SPEAKERS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x13F, 8: 0x63F}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_DS64_BYTES = 28


def quantize(block: Wave, bits: int) -> npt.NDArray[np.int32]:
    """Round samples to integers, half to even, and hold them inside the range of the integers: `block` `[C, n]`."""
    full_scale = float(1 << (bits - 1))
    scaled = np.clip(block, -1, 1) * np.float32(full_scale)  # held before scaling too, so that nothing overflows
    return np.minimum(np.rint(scaled), np.float32(full_scale - 1)).astype(np.int32)


class WavSink:
    """Write a WAV file block by block; one that outgrows 32-bit sizes becomes RF64.

    `bit_depth`: 16, 24 or `float` (32-bit).

    Source: EBU Tech 3306, RF64: an extended file format for audio data.
    """

    def __init__(
        self,
        file: BinaryIO,
        sample_rate_hz: int,
        channels: int,
        bit_depth: BitDepth,
        max_riff_bytes: int = MAX_RIFF_BYTES,
    ) -> None:
        self._file = file
        self._bit_depth = bit_depth
        self._max_riff_bytes = max_riff_bytes
        self._frame_bytes = channels * (4 if bit_depth == "float" else bit_depth // 8)
        self._length = 0
        form = _format_chunk(sample_rate_hz, channels, bit_depth)
        fact = b"fact" + struct.pack("<II", 4, 0) if bit_depth == "float" else b""
        self._fact_at = 12 + 8 + _DS64_BYTES + len(form) + 8 if fact else None
        # The junk keeps the place of the chunk that holds the long sizes of RF64.
        head = b"RIFF\0\0\0\0WAVE" + b"JUNK" + struct.pack("<I", _DS64_BYTES) + bytes(_DS64_BYTES)
        self._data_size_at = len(head) + len(form) + len(fact) + 4
        file.write(head + form + fact + b"data\0\0\0\0")

    def write(self, block: Wave) -> None:
        """Append a block `[C, n]`."""
        self._length += block.shape[1]
        if self._bit_depth == "float":
            self._file.write(np.ascontiguousarray(block.T, dtype="<f4").tobytes())
            return
        frames = np.ascontiguousarray(quantize(block, self._bit_depth).T)
        if self._bit_depth == 16:
            self._file.write(frames.astype("<i2").tobytes())
        else:
            bytes_of = frames.astype("<i4").view(np.uint8).reshape(frames.shape[0], -1, 4)
            self._file.write(np.ascontiguousarray(bytes_of[:, :, :3]).tobytes())

    def finish(self, tag_chunks: bytes = b"") -> None:
        """Append whole chunks behind the data and fill in the sizes."""
        data_bytes = self._length * self._frame_bytes
        self._file.write(b"\0" * (data_bytes % 2) + tag_chunks)
        riff_bytes = self._file.tell() - 8
        is_long = riff_bytes + 8 > self._max_riff_bytes
        if is_long:
            sizes = struct.pack("<QQQI", riff_bytes, data_bytes, self._length, 0)
            self._put(0, b"RF64" + b"\xff" * 4)
            self._put(12, b"ds64" + struct.pack("<I", _DS64_BYTES) + sizes)
        else:
            self._put(4, struct.pack("<I", riff_bytes))
        self._put(self._data_size_at, b"\xff" * 4 if is_long else struct.pack("<I", data_bytes))
        if self._fact_at is not None:
            self._put(self._fact_at, struct.pack("<I", min(self._length, 0xFFFFFFFF)))

    def _put(self, at: int, content: bytes) -> None:
        self._file.seek(at)
        self._file.write(content)


def _format_chunk(sample_rate_hz: int, channels: int, bit_depth: BitDepth) -> bytes:
    """Return the `fmt ` chunk; more than two channels name their speakers."""
    coding, bits = (3, 32) if bit_depth == "float" else (1, bit_depth)
    frame_bytes = channels * bits // 8
    is_extended = channels > 2
    content = struct.pack(
        "<HHIIHH",
        0xFFFE if is_extended else coding,
        channels,
        sample_rate_hz,
        min(sample_rate_hz * frame_bytes, 0xFFFFFFFF),
        frame_bytes,
        bits,
    )
    if is_extended:
        content += struct.pack("<HHIH", 22, bits, _SPEAKERS.get(channels, 0), coding) + _GUID_TAIL
    elif bit_depth == "float":
        content += struct.pack("<H", 0)
    return b"fmt " + struct.pack("<I", len(content)) + content


Wave = npt.NDArray[np.float32]

OPUS_HZ = 48000
_CODECS = {"m4a": ("aac", "ipod", "fltp"), "opus": ("libopus", "opus", "flt")}
_PIECE_SAMPLES = 65536
# FFmpeg writes MP3 too, but states a padding of more than a frame wrongly; its Vorbis encoder is of low quality.
_SNDFILE_KINDS = {"ogg": ("OGG", "VORBIS"), "mp3": ("MP3", "MPEG_LAYER_III")}
_COMPRESSION = {"ogg": 0.2, "mp3": 0.0}  # about 256 kbit/s in stereo; the highest constant rate, up to 320 kbit/s
_OGG_SERIAL = 1
_BITEXACT = 1 << 23  # AV_CODEC_FLAG_BITEXACT: no name of the encoder in the stream


class Sink(Protocol):
    """Takes blocks `[C, n]`, then ends the file; `discard` lets go of the encoder in any state."""

    def write(self, block: Wave) -> None:
        """Append a block `[C, n]`."""
        ...

    def finish(self) -> None:
        """Write what is left, the tags, and close the file."""
        ...

    def discard(self) -> None:
        """Let go of the encoder in whatever state it is."""
        ...


class GuardedFile:
    """A file for encoders written in C, which lose the system's errors: it keeps the first one and raises it later.

    Args:
        path: The file, made or emptied.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = cast(BinaryIO, path.open("w+b"))
        self.error: OSError | None = None

    @called_from_c
    def write(self, content: bytes) -> int:
        """Write and answer as if all had gone well."""
        if self.error is None:
            try:
                self.file.write(content)
            except OSError as error:
                self.error = error
        return len(content)

    @called_from_c
    def read(self, size: int = -1) -> bytes:
        """Read as any file does."""
        return self.file.read(size)

    @called_from_c
    def seek(self, offset: int, whence: int = 0) -> int:
        """Seek as any file does."""
        if self.error is None:
            try:
                return self.file.seek(offset, whence)  # writes out what is buffered
            except OSError as error:
                self.error = error
        return 0

    @called_from_c
    def tell(self) -> int:
        """Return the position."""
        return self.file.tell() if self.error is None else 0

    def check(self) -> None:
        """Raise the error that was kept, if there was one."""
        if self.error is not None:
            raise self.error

    def end(self) -> None:
        """Close the file and raise its first error."""
        try:
            self.file.close()
        finally:
            self.check()

    def drop(self) -> None:
        """Close the file, whatever the system says."""
        with suppress(OSError):
            self.file.close()


class PcmSink:
    """WAV, with its tags as chunks."""

    def __init__(
        self,
        guard: GuardedFile,
        rate_hz: int,
        channels: int,
        bit_depth: BitDepth,
        tags: Mapping[str, str],
        max_riff_bytes: int,
    ) -> None:
        self._guard = guard
        self._tags = tags
        self._wav = WavSink(guard.file, rate_hz, channels, bit_depth, max_riff_bytes)

    def write(self, block: Wave) -> None:
        """Append a block `[C, n]`."""
        self._wav.write(block)

    def finish(self) -> None:
        """Write the tags and the sizes, and close the file."""
        self._wav.finish(wav_tag_chunks(self._tags))
        self._guard.end()

    def discard(self) -> None:
        """Nothing but the file is held."""


class SndfileSink:
    """FLAC with 16 or 24 bits, Ogg Vorbis or MP3."""

    def __init__(
        self,
        guard: GuardedFile,
        audio_format: str,
        rate_hz: int,
        channels: int,
        bit_depth: BitDepth,
        tags: Mapping[str, str],
    ) -> None:
        self._format = audio_format
        self._bits = 24 if bit_depth == 24 else 16
        self._tags = tags
        self._guard = guard
        container, subtype = _SNDFILE_KINDS.get(audio_format, ("FLAC", f"PCM_{self._bits}"))
        self._file = soundfile.SoundFile(
            guard,
            "w",
            rate_hz,
            channels,
            subtype=subtype,
            format=container,
            compression_level=_COMPRESSION.get(audio_format),
            bitrate_mode="CONSTANT" if audio_format == "mp3" else None,
        )
        self._buffer = BlockBuffer(_PIECE_SAMPLES)  # the pages of Ogg depend on how much comes at once

    def write(self, block: Wave) -> None:
        """Append a block `[C, n]`."""
        for part in self._buffer.push(block):
            self._encode(part)

    def finish(self) -> None:
        """Encode what is left, close the file, make its bytes repeatable and write the tags."""
        last = self._buffer.rest()
        if last is not None:
            self._encode(last)
        self._file.close()
        self._guard.end()
        if self._format == "ogg":
            set_ogg_serial(self._guard.path, _OGG_SERIAL)
        write_tags(self._guard.path, self._format, self._tags)

    def discard(self) -> None:
        """Let go of the encoder in whatever state it is."""
        with suppress(soundfile.SoundFileError):
            self._file.close()

    def _encode(self, block: Wave) -> None:
        """Hand `[C, n]` to libsndfile, which does not round floats the way it reads them back."""
        if self._format != "flac":
            frames: npt.NDArray[np.generic] = np.ascontiguousarray(block.T)
        else:
            whole = np.ascontiguousarray(quantize(block, self._bits).T)
            frames = whole.astype(np.int16) if self._bits == 16 else whole << 8
        self._file.write(frames)
        self._guard.check()


class LibavSink:
    """AAC in m4a, or Opus, which is resampled to its 48 kHz here."""

    def __init__(
        self, guard: GuardedFile, audio_format: str, rate_hz: int, channels: int, tags: Mapping[str, str]
    ) -> None:
        self._format = audio_format
        self._tags = tags
        self._resampler = StreamResampler(rate_hz, OPUS_HZ if audio_format == "opus" else rate_hz, channels)
        self._rate_hz = self._resampler.out_hz
        self._layout = "mono" if channels == 1 else "stereo"
        self._sent = 0
        codec, container, self._samples = _CODECS[audio_format]
        options = {"fflags": "+bitexact"}  # no dates, no encoder names, no random serial numbers
        if audio_format == "m4a":
            options["movie_timescale"] = str(self._rate_hz)  # else the stated length is rounded to 1 ms
        self._guard = guard
        self._container = new_container(cast(BinaryIO, self._guard), container, options)
        stream = self._container.add_stream(codec, rate=self._rate_hz, layout=self._layout)
        self._stream = cast(av.AudioStream, stream)
        context = self._stream.codec_context
        context.format = self._samples
        context.bit_rate = _bit_rate(audio_format, self._rate_hz, channels)
        context.flags |= _BITEXACT
        context.open()
        self._buffer = BlockBuffer(context.frame_size)

    def write(self, block: Wave) -> None:
        """Append a block `[C, n]`."""
        for part in self._buffer.push(self._resampler.push(block)):
            self._encode(part)
        self._guard.check()

    def finish(self) -> None:
        """Encode what is left, close the file and write the tags."""
        for part in self._buffer.push(self._resampler.finish()):
            self._encode(part)
        last = self._buffer.rest()
        if last is not None:
            self._encode(last)
        self._container.mux(self._stream.encode(None))
        self._container.close()
        self._guard.end()
        write_tags(self._guard.path, self._format, self._tags)

    def discard(self) -> None:
        """Let go of the encoder in whatever state it is."""
        with suppress(av.FFmpegError, ValueError):
            self._container.close()

    def _encode(self, block: Wave) -> None:
        """Encode `[C, n]` with n at most the encoder's frame size, which only the last may fall short of."""
        data = block if self._samples == "fltp" else np.ascontiguousarray(block.T).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(data, format=self._samples, layout=self._layout)
        frame.sample_rate = self._rate_hz
        frame.time_base = Fraction(1, self._rate_hz)
        frame.pts = self._sent
        self._sent += block.shape[1]
        self._container.mux(self._stream.encode(frame))


def _bit_rate(audio_format: str, rate_hz: int, channels: int) -> int:
    """Return a bit rate in bit/s at which the loss is hard to hear."""
    if audio_format == "opus":
        return 96_000 * channels
    # An AAC frame holds at most 6 bits per sample and channel.
    return min(128_000, 5 * rate_hz) * channels


def set_ogg_serial(path: Path, serial: int) -> None:
    """Replace the random stream number in every page of an Ogg file, so that equal sound gives equal bytes."""
    with path.open("r+b") as file:
        while True:
            at = file.tell()
            try:
                page = OggPage(file)
            except EOFError:
                return
            page.serial = serial
            file.seek(at)
            file.write(page.write())
