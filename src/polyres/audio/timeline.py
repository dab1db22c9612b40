"""Facts of an audio stream before decoding, and the places of its decoded frames on a timeline."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from polyres.audio import headers
from polyres.audio.file_names import shown
from polyres.audio.mp3_frames import Mp3Frames


@dataclass(frozen=True)
class SoundFacts:
    """Facts of an audio stream before decoding."""

    sample_rate_hz: int
    channels: int
    length_samples: int | None  # samples per channel; an estimate where `tolerance_samples` is not 0, None if unknown
    stated_samples: int | None  # samples that the file promises, None where it promises nothing that could be relied on
    tolerance_samples: int  # by how much a whole file may stay below its promise
    codec: str  # name of the coding, in lower case
    streams: int = 1  # number of audio streams in the file
    late_samples: int = 0  # silence in front of the sound, which starts that much later than the picture
    notes: tuple[str, ...] = ()  # A line for each thing that was chosen


def default_stream(streams: Sequence[av.AudioStream]) -> av.AudioStream:
    """Return the audio stream that a file marks as the default, else its first."""
    return next((stream for stream in streams if stream.disposition & stream.disposition.default), streams[0])


def told_streams(streams: Sequence[av.AudioStream]) -> str:
    """Describe audio streams: number from 1, coding, channels and what their tags say."""
    told = []
    for number, stream in enumerate(streams, start=1):
        words = [stream.codec_context.name, f"{stream.codec_context.layout.nb_channels} ch"]
        words += [shown(Path(stream.metadata[key])) for key in ("language", "title") if stream.metadata.get(key)]
        told.append(f"{number} ({', '.join(words)})")
    return ", ".join(told)


def _late_s(container: av.container.InputContainer, stream: av.AudioStream) -> float:
    """Return how much later than the picture the sound starts, in s; 0 for files without moving pictures."""
    films = [video for video in container.streams.video if not video.disposition & video.disposition.attached_pic]
    starts = [one.start_time for one in (*films[:1], stream) if one.start_time is not None]
    if not films or len(starts) < 2 or stream.time_base is None or films[0].time_base is None:
        return 0.0
    late_s = float(starts[1] * stream.time_base) - float(starts[0] * films[0].time_base)
    return late_s if 0.02 < late_s < 3600.0 else 0.0


def facts_of(
    path: Path,
    container: av.container.InputContainer,
    stream: av.AudioStream,
    first: av.AudioFrame,
    mp3: Mp3Frames | None,
    is_chosen_here: bool,
) -> SoundFacts:
    """Read the facts of a stream from the container; rate and channels are those of the first decoded frame."""
    rate_hz = first.sample_rate
    duration_s, is_promise, tolerance_s = _duration(path, container, stream)
    late_s = _late_s(container, stream)
    length = None if duration_s is None else round(duration_s * rate_hz)
    if length is not None and "mp4" in container.format.name:
        length += round(late_s * rate_hz)  # there the stream's own length is stated
    exact = headers.mp3_length(path) if container.format.name == "mp3" else None
    if exact is not None:
        length, is_promise, tolerance_s = exact, True, 0.1
    notes, streams = [], container.streams.audio
    if mp3 is not None and (exact is None or mp3.more_frames > 1):
        length, is_promise = mp3.samples(rate_hz) - headers.mp3_delay(path), False
    if mp3 is not None:
        notes += mp3.told_strays(headers.mp3_delay(path) / rate_hz)
    if length is not None and exact is not None and not is_promise:
        told = f"{exact / rate_hz:.2f} s that its header states; all {length / rate_hz:.2f} s are taken"
        notes.append(f"it goes on behind the {told}")
    if len(streams) > 1 and is_chosen_here:
        number = next(number for number, one in enumerate(streams, start=1) if one.index == stream.index)
        notes.append(f"audio stream {number} of {told_streams(streams)} is taken; --stream chooses another")
    if late_s:
        notes.append(f"its sound starts {late_s:.2f} s after the picture; silence in front keeps it in its place")
    return SoundFacts(
        sample_rate_hz=rate_hz,
        channels=first.layout.nb_channels,
        length_samples=length,
        stated_samples=length if is_promise else None,
        tolerance_samples=round(tolerance_s * rate_hz),
        codec=stream.codec_context.codec.canonical_name,
        streams=len(streams),
        late_samples=round(late_s * rate_hz),
        notes=tuple(f"{shown(path)}: {note}" for note in notes),
    )


def _duration(
    path: Path, container: av.container.InputContainer, stream: av.AudioStream
) -> tuple[float | None, bool, float]:
    """Return the duration in s, whether the file promises it, and by how many s a promise may be off."""
    kind = container.format.name
    if stream.duration and stream.time_base:
        duration_s = float(stream.duration * stream.time_base)
        if kind == "ogg":
            # Found from the last page there is, so it says nothing about what is missing.
            return duration_s - _opus_delay_s(stream), False, 0.0
        if kind == "mp3":
            return duration_s, headers.mp3_states_length(path), 0.1
        if kind in ("aac", "ac3", "eac3", "dts", "flac", "w64"):
            return duration_s, False, 0.0  # guessed from the bit rate
        return duration_s, True, 0.1 if "mp4" in kind else 0.5
    stated = stream.metadata.get("DURATION", "").split(":")
    if len(stated) == 3:
        hours, minutes, seconds = (float(part) for part in stated)
        return hours * 3600 + minutes * 60 + seconds, True, 0.5
    if container.duration and len(container.streams) == 1:
        return container.duration / av.time_base, True, 0.5
    return None, False, 0.0


def _opus_delay_s(stream: av.AudioStream) -> float:
    """Return the samples that an Opus decoder drops at the start, in s; 0 for other codings."""
    head = stream.codec_context.extradata or b""
    return struct.unpack("<H", head[10:12])[0] / 48000 if head[:8] == b"OpusHead" else 0.0


_TOLERANCE_S = 0.04
"""Time stamps of films are rounded to milliseconds, and those of broadcasts wander a little."""
_LONGEST_S = 600.0
"""A step of time stamps beyond this is taken for a new clock rather than for silence."""
_BARE = ("mp3", "aac", "ac3", "eac3", "dts")
"""FFmpeg's names of files that are frames and nothing else, without time stamps."""


@dataclass(frozen=True)
class Gap:
    """Silence that stands for what could not be read."""

    start_s: float  # where it begins, in seconds of the result
    length_s: float  # how long it is


class Timeline:
    """Follow the frames of one pass and compute the silence before each."""

    def __init__(self, has_stamps: bool, tolerance_s: float = _TOLERANCE_S, early_s: float | None = None) -> None:
        self.gaps: list[Gap] = []
        self._has_stamps = has_stamps
        self._tolerance_s = tolerance_s
        self._origin_s = early_s
        self._position_s = -(early_s or 0.0)
        self._end_bytes: int | None = None
        self._sizes: list[int] = []
        self._lost_bytes = 0

    def see(self, packet: av.Packet) -> None:
        """Note where a packet lies in the file, before its frames come."""
        if self._has_stamps or packet.pos is None or not packet.size:
            return
        if self._end_bytes is not None and packet.pos > self._end_bytes:
            self._lost_bytes += packet.pos - self._end_bytes
        self._end_bytes = packet.pos + packet.size
        self._sizes.append(packet.size)

    def lose(self, packet: av.Packet) -> None:
        """Note a packet that cannot be decoded."""
        if not self._has_stamps and packet.size:
            self._lost_bytes += packet.size

    def silence_s(self, frame: av.AudioFrame) -> float:
        """Return the seconds of silence that belong before a frame, and count both."""
        length_s = frame.samples / frame.sample_rate
        missing_s = self._missing_by_stamp(frame) if self._has_stamps else self._missing_by_size(length_s)
        if missing_s > 0.0:
            self.gaps.append(Gap(self._position_s, missing_s))
        self._position_s += missing_s + length_s
        return missing_s

    def _missing_by_stamp(self, frame: av.AudioFrame) -> float:
        if frame.pts is None or frame.time_base is None:
            return 0.0
        stamp_s = float(frame.pts * frame.time_base)
        if self._origin_s is None:
            self._origin_s = stamp_s
        missing_s = stamp_s - self._origin_s - self._position_s
        if self._tolerance_s < missing_s <= _LONGEST_S:
            return missing_s
        if not -_LONGEST_S <= missing_s <= _LONGEST_S:
            self._origin_s = stamp_s - self._position_s
        return 0.0

    def _missing_by_size(self, length_s: float) -> float:
        lost, self._lost_bytes = self._lost_bytes, 0
        if not lost or not self._sizes or not self._position_s:
            return 0.0
        return min(round(lost * len(self._sizes) / sum(self._sizes)) * length_s, _LONGEST_S)


def has_stamps(format_name: str) -> bool:
    """Return whether FFmpeg's time stamps come from the file and not from counting frames."""
    return format_name not in _BARE
