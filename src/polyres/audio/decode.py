"""Decode audio files to float32: libsndfile where it is exact, FFmpeg's libraries otherwise."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Protocol

import av
import numpy as np
import numpy.typing as npt
import soundfile

from polyres.audio import headers
from polyres.audio.file_names import shown
from polyres.audio.mp3_frames import Mp3Frames, find_mp3_frames
from polyres.audio.opening import open_container, open_sound
from polyres.audio.resample import skip_samples, trim_excess
from polyres.audio.timeline import Gap, SoundFacts, Timeline, default_stream, facts_of, has_stamps, told_streams
from polyres.core.errors import InputError, NoSoundError

Wave = npt.NDArray[np.float32]

PIECE_SAMPLES = 16384
_PADDING_SAMPLES = 4096  # more than the two AAC frames that an encoder may add at the end
_SCALES = {"u8": (128.0, 128.0), "s16": (0.0, 2.0**15), "s32": (0.0, 2.0**31), "flt": (0.0, 1.0), "dbl": (0.0, 1.0)}
_LIBAV_ERRORS = (av.FFmpegError, ValueError, RuntimeError)  # ValueError includes names that are no text
UNLIMITED = 1 << 62
"""libsndfile's answer where a header states no length is larger than this."""


class Decoder(Protocol):
    """One audio stream of one file; `damaged_parts`, `gaps` and `is_cut` hold once `pieces` has ended."""

    facts: SoundFacts
    damaged_parts: int
    gaps: list[Gap]
    is_cut: bool

    def pieces(self, start_samples: int = 0) -> Generator[Wave, None, None]:
        """Yield the signal from `start_samples` on as `[C, n]` with any n ≥ 1."""
        ...


def open_decoder(path: Path, head: bytes, stream_index: int | None = None) -> Decoder:
    """Choose the library for a file and open it."""
    kind = headers.sniff(head)
    # Vorbis orders more than two channels in its own way, which only FFmpeg puts right.
    if kind and not stream_index and (kind != "vorbis" or headers.vorbis_channels(head) <= 2):
        # What libsndfile refuses may be a coding that only FFmpeg knows; if not, FFmpeg says what is wrong.
        with suppress(soundfile.SoundFileError):
            decoder = SndfileDecoder(path, kind)
            is_known = (
                decoder.facts.length_samples is not None
            )  # without a length, libsndfile fails at the last samples
            is_unfinished = decoder.facts.length_samples == 0 and kind == "wav" and headers.wav_is_unfinished(path)
            if is_known and not is_unfinished:
                return decoder
    return LibavDecoder(path, stream_index)


class SndfileDecoder:
    """Decode through libsndfile, with exact seeking."""

    def __init__(self, path: Path, kind: str) -> None:
        self.path = path
        self.damaged_parts = 0
        self.gaps: list[Gap] = []
        self.is_cut = kind == "vorbis" and not headers.ogg_is_complete(path)
        with open_sound(self.path) as file:
            file.read(1)  # a header may be whole and all the rest broken
            length = file.frames if file.frames < UNLIMITED else None
            codec = kind if kind in ("flac", "vorbis") else file.subtype.lower()
            stated = headers.stated_length(path, kind) if kind != "flac" else length
            self.facts = SoundFacts(file.samplerate, file.channels, length, stated, 0, codec)

    def pieces(self, start_samples: int = 0) -> Generator[Wave, None, None]:
        """Yield the signal from `start_samples` on as `[C, n]` with any n ≥ 1."""
        self.damaged_parts = 0
        self.gaps = []
        position = start_samples
        with open_sound(self.path) as file:
            if file.frames < UNLIMITED and start_samples >= file.frames:
                return
            while True:
                try:
                    if position == start_samples:
                        file.seek(start_samples)
                    frames = file.read(PIECE_SAMPLES, dtype="float32", always_2d=True)
                except soundfile.SoundFileError:
                    break
                if not len(frames):
                    return
                position += len(frames)
                yield np.ascontiguousarray(frames.T)
        # libsndfile gives up at the first damaged frame; FFmpeg reads on up to it, and behind it.
        try:
            rescue = LibavDecoder(self.path)
            yield from skip_samples(rescue.pieces(), position)
        except InputError:
            self.damaged_parts += 1
        else:
            self.damaged_parts += max(rescue.damaged_parts, 1)
            self.gaps = rescue.gaps


class LibavDecoder:
    """Decode one audio stream through FFmpeg's libraries, from the start."""

    def __init__(self, path: Path, stream_index: int | None = None) -> None:
        self.path = path
        self.stream_index = stream_index
        self.damaged_parts = 0
        self.gaps: list[Gap] = []
        self._mp3: Mp3Frames | None = None
        self._sound_end: int | None = None
        self.is_cut = False
        try:
            with open_container(path) as container:
                stream = self._stream(container)
                if container.format.name == "mp3":
                    self._sound_end = headers.sound_end(path)
                    self._mp3 = find_mp3_frames(path)
                first = next(self._frames(container.demux(stream), stream, Timeline(True)), None)
                if first is None:
                    raise _unreadable(path, "nothing in it could be decoded")
                self._layout = first.layout.name
                self.facts = facts_of(path, container, stream, first, self._mp3, stream_index is None)
                self._pads = "mp4" in container.format.name or container.format.name == "mp3"
                self._has_stamps = has_stamps(container.format.name)
                self.is_cut = container.format.name == "ogg" and not headers.ogg_is_complete(path)
        except _LIBAV_ERRORS as error:
            raise _unreadable(path, _reason(error)) from error

    def pieces(self, start_samples: int = 0) -> Generator[Wave, None, None]:
        """Yield the signal from `start_samples` on as `[C, n]` with any n ≥ 1."""
        self.damaged_parts = 0
        pieces: Iterable[Wave] = self._converted()
        if self._mp3 is not None and not self._mp3.is_regular:
            pieces = skip_samples(pieces, headers.mp3_delay(self.path))
        if self.facts.late_samples:
            pieces = chain(_silence(self.facts.channels, self.facts.late_samples), pieces)
        if self._pads and self.facts.stated_samples:
            pieces = trim_excess(pieces, self.facts.stated_samples, _PADDING_SAMPLES)
        yield from skip_samples(pieces, start_samples)

    def _stream(self, container: av.container.InputContainer) -> av.AudioStream:
        """Return the wanted audio stream, with one thread so that equal files give equal bits."""
        streams = container.streams.audio
        if not streams:
            raise NoSoundError(f"{shown(self.path)} has no audio stream; give a file with sound")
        if self.stream_index is None:
            return default_stream(streams)
        if not 0 <= self.stream_index < len(streams):
            raise InputError(
                f"{shown(self.path)} has no audio stream {self.stream_index + 1}; it has {told_streams(streams)}"
            )
        return streams[self.stream_index]

    def _frames(
        self, packets: Iterator[av.Packet], stream: av.AudioStream, timeline: Timeline
    ) -> Iterator[av.AudioFrame]:
        """Yield the frames that decode; count the parts that do not and go on behind them."""
        is_over = False
        while not is_over:
            packet = None
            try:
                packet = next(packets, None)
                is_over = packet is None
                if packet is not None:
                    timeline.see(packet)
                frames = stream.decode(packet) if packet is not None else []
            except _LIBAV_ERRORS:
                if packet is not None and self._is_behind(packet):
                    continue
                self.damaged_parts += 1
                if packet is not None:
                    timeline.lose(packet)
                continue
            yield from (frame for frame in frames if frame.samples)

    def _converted(self) -> Iterator[Wave]:
        """Yield all frames as float32 in the constant rate and channel count."""
        rate_hz, channels = self.facts.sample_rate_hz, self.facts.channels
        conform = _Conformer(rate_hz, channels, self._layout)
        timeline, known = Timeline(self._has_stamps), None
        if self._mp3 is not None and not self._mp3.is_regular:
            known, timeline = self._mp3, Timeline(True, 0.002, headers.mp3_delay(self.path) / rate_hz)
        self.gaps = timeline.gaps
        with open_container(self.path) as container, self.path.open("rb") as file:
            stream = self._stream(container)
            packets = container.demux(stream)
            if known is not None:
                packets = known.packets(file)
                stream.codec_context.options = {"err_detect": "buffer"}  # broken granules are silent, not noise
            for frame in self._frames(packets, stream, timeline):
                missing = round(timeline.silence_s(frame) * rate_hz)
                if missing:
                    yield from (piece for piece in conform.flush() if piece.shape[1])
                    yield from _silence(channels, missing)
                yield from (piece for piece in conform.convert(frame) if piece.shape[1])
        yield from (piece for piece in conform.flush() if piece.shape[1])

    def _is_behind(self, packet: av.Packet) -> bool:
        """Return whether a packet holds only trailing tags or zeros."""
        return self._sound_end is not None and packet.pos is not None and packet.pos + packet.size > self._sound_end


def _silence(channels: int, length_samples: int) -> Iterator[Wave]:
    """Yield zeros in pieces."""
    while length_samples > 0:
        piece = np.zeros((channels, min(PIECE_SAMPLES, length_samples)), np.float32)
        length_samples -= piece.shape[1]
        yield piece


class _Conformer:
    """Turn decoded frames into float32 arrays; resample those that differ from the first frame's format."""

    def __init__(self, sample_rate_hz: int, channels: int, layout: str) -> None:
        self._rate_hz = sample_rate_hz
        self._channels = channels
        self._layout = layout
        self._resampler: av.AudioResampler | None = None
        self._setup: tuple[str, str, int] | None = None

    def convert(self, frame: av.AudioFrame) -> list[Wave]:
        """Return the frame's signal, after the rest of the format before it."""
        setup = (frame.format.name, frame.layout.name, frame.sample_rate)
        is_same = frame.sample_rate == self._rate_hz and frame.layout.nb_channels == self._channels
        if is_same and _is_plain(frame):
            return [*self.flush(), frame_to_wave(frame)]
        done: list[Wave] = []
        if self._resampler is None or setup != self._setup:
            done = self.flush()
            self._resampler = av.AudioResampler(format="flt", layout=self._layout, rate=self._rate_hz)
            self._setup = setup
        frame.pts = None
        return [*done, *(frame_to_wave(part) for part in self._resampler.resample(frame))]

    def flush(self) -> list[Wave]:
        """Return what the resampler still holds and let go of it."""
        if self._resampler is None:
            return []
        rest = [frame_to_wave(part) for part in self._resampler.resample(None)]
        self._resampler = None
        return rest


def frame_to_wave(frame: av.AudioFrame) -> Wave:
    """Convert a decoded frame of a common sample format to `[C, n]` float32, full scale at ±1."""
    offset, scale = _SCALES[_base_format(frame)]
    data = frame.to_ndarray()
    if not frame.format.is_planar:
        data = data.reshape(-1, frame.layout.nb_channels).T
    if offset or scale != 1.0:
        data = (data.astype(np.float64) - offset) / scale
    return np.array(data, dtype=np.float32, order="C")


def _is_plain(frame: av.AudioFrame) -> bool:
    """Tell whether numpy can take the frame as it is."""
    # PyAV looks for an end mark behind the planes, which eight or more planes do not have, and crashes.
    has_safe_planes = not frame.format.is_planar or frame.layout.nb_channels < 8
    return has_safe_planes and _base_format(frame) in _SCALES


def _base_format(frame: av.AudioFrame) -> str:
    """Return the name of the frame's sample format without the mark of its planes."""
    return frame.format.name.removesuffix("p")


def _unreadable(path: Path, reason: str) -> InputError:
    return InputError(
        f"{shown(path)} cannot be read as audio ({reason}); check that it plays, or convert it to wav or flac"
    )


def _reason(error: BaseException) -> str:
    """Put a library's complaint into few words."""
    if isinstance(error, av.FFmpegError):
        return "not audio, or cut off inside its header"
    return " ".join(str(error).split()).lower() or type(error).__name__
