"""Find the frames of an MP3 file and the sound missing between them."""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av

from polyres.audio import headers

_BLOCK_BYTES = 1 << 16
_TICKS_HZ = 14_112_000
"""All sample rates of MP3 divide it."""
_CONFIRM = 3
"""Frames in a row that make a place in unknown bytes a frame."""
_FEW = 3
_RATES_HZ = (44_100, 48_000, 32_000)
_KBPS_1 = (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_KBPS_2 = (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_SYNC = re.compile(rb"\xff[\xe2\xe3\xf2\xf3\xfa\xfb][\x10-\xeb]")
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN", b"3DI")


@dataclass(frozen=True)
class Mp3Frames:
    """The whole frames of a file, that of its header left out."""

    starts: Sequence[int]  # their first bytes
    sizes: Sequence[int]  # their bytes
    times: Sequence[int]  # where each belongs, in ticks of 1 / 14 112 000 s; lost frames are counted in
    length_ticks: int  # where the last one ends
    stated_frames: int | None  # frames that the header states, None where it states none
    is_regular: bool  # whether they follow each other as stated, with nothing else between and behind
    # bytes that are neither sound nor tags: behind how many ticks, and how many bytes
    strays: Sequence[tuple[int, int]]
    broken: frozenset[int]  # frames whose bytes are lost in part, by their numbers; they are played as silence

    @property
    def more_frames(self) -> int:
        """How many frames there are beyond those that the header states."""
        return 0 if self.stated_frames is None else max(0, len(self.starts) - self.stated_frames)

    def samples(self, sample_rate_hz: int) -> int:
        """Return the samples per channel from the first frame to the last."""
        return round(self.length_ticks * sample_rate_hz / _TICKS_HZ)

    def told_strays(self, early_s: float) -> list[str]:
        """Describe skipped bytes in a line, or return an empty text."""
        told = [f"{count} bytes at {max(0.0, ticks / _TICKS_HZ - early_s):.2f} s" for ticks, count in self.strays]
        more = f" and {len(told) - 3} more" if len(told) > 3 else ""
        return [f"what is no sound is left out: {', '.join(told[:3])}{more}"] if told else []

    def packets(self, file: BinaryIO) -> Iterator[av.Packet]:
        """Yield the frames as packets with the time stamps of their places."""
        for index, (start, size, time) in enumerate(zip(self.starts, self.sizes, self.times, strict=True)):
            file.seek(start)
            frame = file.read(size)
            packet = av.Packet(_silenced(frame) if index in self.broken else frame)
            packet.pts = packet.dts = time
            packet.time_base = Fraction(1, _TICKS_HZ)
            yield packet


def find_mp3_frames(path: Path) -> Mp3Frames | None:
    """Walk through an MP3 file from frame to frame, without decoding it."""
    stated = headers.mp3_frames(path)
    with path.open("rb") as file:
        walk = _Walk(file, headers.sound_end(path))
        walk.run(headers.mp3_first_byte(path), headers.mp3_states_length(path))
        if not walk.starts:
            return None
        missing = 0 if stated is None else stated - len(walk.starts)
        lost = walk.lost_frames(missing, stated is not None)
        times, end, strays = array("q"), 0, []
        for index, spent in enumerate(walk.ticks):
            if index in walk.gaps and index not in lost and not walk.is_joint(index):
                strays.append((end, walk.gaps[index]))
            end += lost.get(index, 0) * spent
            times.append(end)
            end += spent
        broken = frozenset(one for index in lost for one in walk.broken_at(index))
    if walk.behind_bytes:
        strays.append((end, walk.behind_bytes))
    is_regular = not (walk.gaps or lost or walk.is_followed)
    return Mp3Frames(walk.starts, walk.sizes, times, end, stated, is_regular, strays, broken)


class _Walk:
    """One walk through a file: frames, and the bytes between them that belong to none."""

    def __init__(self, file: BinaryIO, end: int) -> None:
        self.starts, self.sizes, self.ticks = array("q"), array("l"), array("l")
        self.gaps: dict[int, int] = {}  # frame behind the gap: bytes
        self.behind_bytes = 0
        self.is_followed = False
        self._file, self._end = file, end
        self._ends_in_frame = False

    def run(self, at: int, has_header: bool) -> None:
        """Find all frames from a byte on, but for one that is a header."""
        if has_header:
            at += _size(self._read(at, 4))
        while at < self._end:
            size = _size(head := self._read(at, 4))
            if size and at + size <= self._end:
                self.starts.append(at)
                self.sizes.append(size)
                self.ticks.append(_ticks(head))
                at += size
                continue
            found = self._next(at)
            if found is None:
                self._ends_in_frame = bool(size) or self._end - at < 4
                is_tag, self.is_followed = self._read(at, 11).startswith(_TAGS), True
                self.behind_bytes = 0 if self._ends_in_frame or is_tag or not self.starts else self._end - at
                return
            if self.starts:
                self.gaps[len(self.starts)] = found - at
            at = found

    def lost_frames(self, missing: int, is_stated: bool) -> dict[int, int]:
        """Return the number of lost frames before each frame."""
        gaps = {index: length for index, length in self.gaps.items() if not self.is_joint(index)}
        if not is_stated:
            return {index: self._guess(index, length) for index, length in gaps.items() if not self._continues(index)}
        if missing > 1 and not gaps and not self._ends_in_frame:
            gaps = dict.fromkeys(self._breaks(), 1)
        if missing < 1 or not gaps:
            return {}
        if self._ends_in_frame:  # what is missing at the end is not missing here
            missing = min(missing, sum(self._guess(index, length) for index, length in gaps.items()))
        return _shares(missing, gaps)

    def is_joint(self, index: int) -> bool:
        """Return whether two files were joined before a frame, with tags or a header between them."""
        before = self.starts[index - 1] + self.sizes[index - 1]
        frame = self._read(self.starts[index], 256)
        return self._read(before, 11).startswith(_TAGS) or b"Xing" in frame or b"Info" in frame

    def broken_at(self, index: int) -> Iterator[int]:
        """Yield the frames whose bytes are lost in part where others were lost before a frame."""
        if index in self.gaps:
            yield index - 1
        have_bytes = 0
        while index < len(self.starts) and self._reservoir(index)[0] > have_bytes:
            at, side_bytes = _side(self._read(self.starts[index], 4))
            have_bytes += self.sizes[index] - at - side_bytes
            yield index
            index += 1

    def _guess(self, index: int, length: int) -> int:
        """Return how many frames the bytes in front of one would hold, from the frames around."""
        around = self.sizes[max(0, index - 50) : index + 50]
        return max(1, round(length * len(around) / sum(around)))

    def _continues(self, index: int) -> bool:
        """Return whether a frame's main data begins where that of the frame before ends."""
        begin, _ = self._reservoir(index)
        return begin == self._reservoir(index - 1)[1]

    def _breaks(self) -> list[int]:
        """Return the frames that do not begin their main data where the frame before leaves off."""
        known = [self._reservoir(index) for index in range(len(self.starts))]
        steps = {index: known[index][0] - known[index - 1][1] for index in range(1, len(known))}
        unlike = [index for index, step in steps.items() if step]
        more = [index for index in unlike if steps[index] > 0]
        # Encoders may leave bytes unused, but no frame needs more than there are, unless some are missing.
        return more if more or not 0 < len(unlike) <= _FEW else [max(unlike, key=lambda index: -steps[index])]

    def _reservoir(self, index: int) -> tuple[int, int]:
        """Return where a frame's main data begins, in bytes before it, and how many it leaves to the next one.

        Source: ISO/IEC 11172-3, 2.4.1.7 (side information); ISO/IEC 13818-3 for the lower rates.
        """
        frame = self._read(self.starts[index], 40)
        at, side_bytes = _side(frame)
        is_1, is_mono = bool(frame[1] & 0x08), frame[3] >> 6 == 3
        side = int.from_bytes(frame[at : at + side_bytes], "big")

        def field(first: int, count: int) -> int:
            return side >> (8 * side_bytes - first - count) & ((1 << count) - 1)

        begin = field(0, 9 if is_1 else 8)
        first, step = ((18, 59) if is_mono else (20, 59)) if is_1 else ((9, 63) if is_mono else (10, 63))
        parts = (2 if is_1 else 1) * (1 if is_mono else 2)
        used = -(-sum(field(first + step * part, 12) for part in range(parts)) // 8)
        return begin, begin + self.sizes[index] - at - side_bytes - used

    def _next(self, at: int) -> int | None:
        """Return where frames go on behind a byte that begins none."""
        while at < self._end:
            block = self._read(at, _BLOCK_BYTES + 2)
            for match in _SYNC.finditer(block):
                if self._is_frame(at + match.start()):
                    return at + match.start()
            at += _BLOCK_BYTES
        return None

    def _is_frame(self, at: int) -> bool:
        """Say whether several frames of the same kind follow each other from a byte on, or up to the end."""
        kind = None
        for _ in range(_CONFIRM):
            head = self._read(at, 4)
            size = _size(head)
            if not size or (kind is not None and _kind(head) != kind) or at + size > self._end:
                return False
            kind, at = _kind(head), at + size
            if at == self._end:
                return True
        return True

    def _read(self, at: int, count: int) -> bytes:
        self._file.seek(at)
        return self._file.read(min(count, max(0, self._end - at)))


def _shares(total: int, weights: dict[int, int]) -> dict[int, int]:
    """Divide a whole number by weights, the parts whole numbers as well."""
    parts, left, weight = {}, total, sum(weights.values())
    for index, one in weights.items():
        part = round(left * one / weight)
        parts[index], left, weight = part, left - part, weight - one
    return {index: part for index, part in parts.items() if part}


def _side(head: bytes) -> tuple[int, int]:
    """Return where the side information of a frame begins, and its bytes; the main data follows."""
    is_1, is_mono = bool(head[1] & 0x08), head[3] >> 6 == 3
    return 4 if head[1] & 1 else 6, (17 if is_mono else 32) if is_1 else (9 if is_mono else 17)


def _silenced(frame: bytes) -> bytes:
    """Return a silent frame that keeps the main data of later frames."""
    at, side_bytes = _side(frame)
    return frame[:at] + bytes(side_bytes) + frame[at + side_bytes :]


def _kind(head: bytes) -> tuple[int, int]:
    """Return what all frames of a stream share: version and layer, and the sample rate."""
    return head[1] & 0x1E, head[2] & 0x0C


def _size(head: bytes) -> int:
    """Return the bytes of the frame that begins so, 0 where none does.

    Source: ISO/IEC 11172-3, 2.4.2.3 and 2.4.3.1; MPEG-2.5 by its usual extension.
    """
    if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2 or head[1] & 0x18 == 0x08:
        return 0
    kbps, rate = head[2] >> 4, head[2] >> 2 & 3
    if kbps in (0, 15) or rate == 3:
        return 0
    is_1 = head[1] & 0x18 == 0x18
    bits = 144_000 * _KBPS_1[kbps] if is_1 else 72_000 * _KBPS_2[kbps]
    return bits // _rate_hz(head) + (head[2] >> 1 & 1)


def _rate_hz(head: bytes) -> int:
    return _RATES_HZ[head[2] >> 2 & 3] >> {0x18: 0, 0x10: 1, 0x00: 2}[head[1] & 0x18]


def _ticks(head: bytes) -> int:
    """Return how long a frame is, in ticks."""
    return (1152 if head[1] & 0x18 == 0x18 else 576) * (_TICKS_HZ // _rate_hz(head))
