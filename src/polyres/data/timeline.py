"""Where decoded frames belong: silence fills what is missing between them, so that the rest keeps its place."""

from __future__ import annotations

from dataclasses import dataclass

import av

_TOLERANCE_S = 0.04
"""Time stamps of films are rounded to milliseconds, and those of broadcasts wander a little."""
_LONGEST_S = 600.0
"""A step of time stamps beyond this is taken for a new clock rather than for silence."""
_BARE = ("mp3", "aac", "ac3", "eac3", "dts")
"""FFmpeg's names of files that are frames and nothing else, without time stamps."""


@dataclass(frozen=True)
class Gap:
    """Silence that stands for what could not be read.

    Attributes:
        start_s: Where it begins, in seconds of the result.
        length_s: How long it is.
    """

    start_s: float
    length_s: float


class Timeline:
    """Follow the frames of one pass and say how much silence belongs before each.

    Args:
        has_stamps: Whether the packets have time stamps that tell of gaps; else lost bytes are counted in frames.
        tolerance_s: Steps of time stamps up to this are no gaps.
        early_s: How much is cut off in front of what comes out, where time stamps count from 0; None where they
            count from the first frame.

    Attributes:
        gaps: What was filled so far.
    """

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
        """Return the seconds of silence that belong before a frame, and count both.

        Args:
            frame: The next frame that could be decoded.
        """
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
    """Say whether the time stamps that FFmpeg gives come from the file itself, and not from counting frames.

    Args:
        format_name: FFmpeg's name of the container.
    """
    return format_name not in _BARE
