"""What is known of an audio stream before it is read: its format, its length, and where it stands beside a picture."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av

from polyres.data import headers
from polyres.data.mp3_frames import Mp3Frames
from polyres.data.names import shown


@dataclass(frozen=True)
class SoundFacts:
    """What is known of an audio stream before it is read.

    Attributes:
        sample_rate_hz: Sample rate in Hz.
        channels: Number of channels C.
        length_samples: Samples per channel; an estimate where `tolerance_samples` is not 0, None if unknown.
        stated_samples: Samples that the file promises, None where it promises nothing that could be relied on.
        tolerance_samples: By how much a whole file may stay below its promise.
        codec: Name of the coding, in lower case.
        streams: Number of audio streams in the file.
        late_samples: Silence in front of the sound, which starts that much later than the picture.
        notes: A line for each thing that was chosen.
    """

    sample_rate_hz: int
    channels: int
    length_samples: int | None
    stated_samples: int | None
    tolerance_samples: int
    codec: str
    streams: int = 1
    late_samples: int = 0
    notes: tuple[str, ...] = ()


def default_stream(streams: Sequence[av.AudioStream]) -> av.AudioStream:
    """Return the audio stream that a file marks as the default, else its first.

    Args:
        streams: All of the file, at least one.
    """
    return next((stream for stream in streams if stream.disposition & stream.disposition.default), streams[0])


def told_streams(streams: Sequence[av.AudioStream]) -> str:
    """List audio streams in words: number from 1, coding, channels and what their tags say.

    Args:
        streams: All of a file.
    """
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
    """Gather what the container says of a stream; rate and channels are those of the first decoded frame.

    Args:
        path: The file.
        container: It, open.
        stream: The audio stream.
        first: Its first frame.
        mp3: The frames of an MP3 file, None for others.
        is_chosen_here: Whether nobody asked for this stream, so that a note tells of it.
    """
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
