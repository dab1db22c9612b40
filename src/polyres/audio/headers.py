"""Read audio file headers: the kind, the stated length, and whether the end is missing."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

HEAD_BYTES = 64
_OGG_TAIL_BYTES = 1 << 17  # holds any whole page, which is at most 65 307 bytes long
# Left by programs that write to a pipe: the largest sizes of 31 and 32 bits, and what SoX and arecord put there.
_UNSIZED = (range(0x7F000000, 0x80000001), range(0xFFFF0000, 0x100000000))
_UNSIZED_LONG = 1 << 48  # bytes; the same in formats of 64-bit sizes
_SAMPLE_CODINGS = {1, 3, 6, 7, 0xFFFE}  # PCM, float, A-law, µ-law, extensible: one frame per block


def sniff(head: bytes) -> str:
    """Name the container from the first bytes of a file."""
    if head[:4] in (b"RIFF", b"RIFX", b"RF64", b"BW64") and head[8:12] == b"WAVE":
        return "wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "aiff"
    if head[:4] == b"OggS" and len(head) > 40:
        payload = head[27 + head[26] :]
        return "vorbis" if payload[:7] == b"\x01vorbis" else ""
    starts = ((b"riff\x2e\x91\xcf\x11", "w64"), (b"fLaC", "flac"), (b".snd", "au"), (b"caff", "caf"))
    return next((kind for start, kind in starts if head.startswith(start)), "")


def vorbis_channels(head: bytes) -> int:
    """Return the channel count that the first page of an Ogg Vorbis file states."""
    return head[27 + head[26] + 11]


def stated_length(path: Path, kind: str) -> int | None:
    """Return the number of samples per channel that a WAV, W64 or AIFF header promises."""
    readers = {"wav": _wav_length, "w64": _w64_length, "aiff": _aiff_length}
    if kind not in readers:
        return None
    try:
        with path.open("rb") as file:
            return readers[kind](file)
    except (OSError, struct.error, IndexError):
        return None


def wav_is_unfinished(path: Path) -> bool:
    """Tell whether a WAV header was never filled in, so that the file is longer than it says."""
    with path.open("rb") as file:
        head = file.read(28)
        size = struct.unpack("<4xI", head[:8])[0]
        if head[12:16] == b"ds64" and len(head) == 28:
            size = struct.unpack("<Q", head[20:])[0]
        return bool(size + 8 < file.seek(0, 2))


def is_unsized_rf64(head: bytes) -> bool:
    """Tell whether a file begins as an RF64 or BW64 whose long sizes were never filled in."""
    return head[:4] in (b"RF64", b"BW64") and head[12:16] == b"ds64" and head[28:36] == bytes(8)


def _is_unsized(size: int) -> bool:
    """Tell whether a size of 32 bits stands for one that was not known."""
    return size == 0 or any(size in unsized for unsized in _UNSIZED)


def _frame_bytes(chunk: bytes, order: str) -> int:
    """Return the bytes of one frame from a `fmt ` chunk, 0 for packed codings."""
    coding, frame_bytes = struct.unpack(f"{order}H10xH", chunk[:14])
    return frame_bytes if coding in _SAMPLE_CODINGS else 0


def _wav_length(file: BinaryIO) -> int | None:
    """Walk the chunks of RIFF, RIFX or RF64 up to the data."""
    order = ">" if file.read(12)[:4] == b"RIFX" else "<"
    frame_bytes, long_size = 0, None
    while len(head := file.read(8)) == 8:
        name, size = head[:4], struct.unpack(f"{order}I", head[4:])[0]
        if name == b"data":
            is_long = size == 0xFFFFFFFF and long_size is not None
            if is_long:
                size = long_size
            if size >= _UNSIZED_LONG or (not size if is_long else _is_unsized(size)):
                return None
            return size // frame_bytes if frame_bytes else None
        content = file.read(size + size % 2) if name in (b"fmt ", b"ds64") else b""
        if name == b"fmt ":
            frame_bytes = _frame_bytes(content, order)
        elif name == b"ds64":
            long_size = struct.unpack("<Q", content[8:16])[0]
        else:
            file.seek(size + size % 2, 1)
    return None


def _w64_length(file: BinaryIO) -> int | None:
    """Walk the chunks of Sony Wave64, whose sizes hold the 24 bytes of their own heads."""
    file.seek(40)
    frame_bytes = 0
    while len(head := file.read(24)) == 24:
        size = struct.unpack("<Q", head[16:])[0] - 24
        if head[:4] == b"data":
            return size // frame_bytes if frame_bytes and 0 < size < _UNSIZED_LONG else None
        if size < 0:
            return None
        if head[:4] == b"fmt ":
            frame_bytes = _frame_bytes(file.read(size), "<")
            file.seek(-size % 8, 1)
        else:
            file.seek(size + -size % 8, 1)
    return None


def _aiff_length(file: BinaryIO) -> int | None:
    """Read the frame count of the common chunk of AIFF or AIFF-C."""
    file.seek(12)
    while len(head := file.read(8)) == 8:
        size = struct.unpack(">I", head[4:])[0]
        if head[:4] == b"COMM":
            channels, frames, bits = struct.unpack(">HIH", file.read(8))
            is_unsized = _is_unsized(frames) or _is_unsized(frames * channels * -(-bits // 8))
            return None if is_unsized else int(frames)
        file.seek(size + size % 2, 1)
    return None


def ogg_is_complete(path: Path) -> bool:
    """Tell whether the last whole page of an Ogg file is marked as the end of its stream."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(size - _OGG_TAIL_BYTES, 0))
        tail = file.read()
    at = len(tail)
    while (at := tail.rfind(b"OggS\0", 0, at)) >= 0:
        segments = tail[at + 26] if at + 26 < len(tail) else 0
        lacing = tail[at + 27 : at + 27 + segments]
        if len(lacing) == segments and segments and at + 27 + segments + sum(lacing) <= len(tail):
            return bool(tail[at + 5] & 4)
        if segments == 0 and at + 27 <= len(tail):
            return bool(tail[at + 5] & 4)
    return False


def mp3_states_length(path: Path) -> bool:
    """Tell whether an MP3 file begins with a header frame (Xing, Info or VBRI) that counts its frames."""
    frame = _mp3_first_frame(path)
    return frame is not None and any(mark in frame for mark in (b"Xing", b"Info", b"VBRI"))


def mp3_length(path: Path) -> int | None:
    """Return the samples per channel that the header frame of an MP3 file states.

    Source: the Xing header and LAME's extension of it (Mp3 Info Tag rev 1), frames, encoder delay and padding.
    """
    frames, frame = mp3_frames(path), _mp3_first_frame(path)
    if frames is None or frame is None:
        return None
    samples = 1152 if frame[1] & 0x08 else 576  # MPEG-1, else MPEG-2 and 2.5
    return max(0, frames * samples - sum(_mp3_added(frame))) or None


def mp3_delay(path: Path) -> int:
    """Return the samples in front of the sound of an MP3 file, of its encoder and of any decoder; 0 if not stated."""
    frame = _mp3_first_frame(path)
    delay = 0 if frame is None or _mp3_header(frame) < 0 else _mp3_added(frame)[0]
    return delay + 529 if delay else 0


def _mp3_added(frame: bytes) -> tuple[int, int]:
    """Return the samples that the encoder added in front and behind, as the header frame states them."""
    at = _mp3_header(frame)
    flags = frame[at + 7]
    extension = at + 8 + 4 * bool(flags & 1) + 4 * bool(flags & 2) + 100 * bool(flags & 4) + 4 * bool(flags & 8)
    added = frame[extension + 21 : extension + 24]
    return (added[0] << 4 | added[1] >> 4, (added[1] & 15) << 8 | added[2]) if len(added) == 3 else (0, 0)


def mp3_frames(path: Path) -> int | None:
    """Return the frames that the header frame (Xing, Info) of an MP3 file states, None where there is none."""
    frame = _mp3_first_frame(path)
    at = -1 if frame is None else _mp3_header(frame)
    if frame is None or at < 0 or len(frame) < at + 12 or not frame[at + 7] & 1:
        return None
    return int.from_bytes(frame[at + 8 : at + 12], "big")


def _mp3_header(frame: bytes) -> int:
    """Return where the header lies in the first frame, -1 for nowhere."""
    return next((frame.find(mark) for mark in (b"Xing", b"Info") if mark in frame), -1)


def mp3_first_byte(path: Path) -> int:
    """Return where an MP3 file goes on behind the tags in front of it."""
    with path.open("rb") as file:
        head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        return 0
    return 10 + sum((byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True))


def _mp3_first_frame(path: Path) -> bytes | None:
    """Return the head of the first frame of an MP3 file, behind tags; None where there is none."""
    with path.open("rb") as file:
        file.seek(mp3_first_byte(path))
        frame = file.read(256)
    is_layer_3 = len(frame) > 2 and frame[0] == 0xFF and frame[1] & 0xE6 == 0xE2
    return frame if is_layer_3 else None


def sound_end(path: Path) -> int:
    """Return where the sound of an MP3 file ends at the latest, in bytes: before the tags and zeros behind it.

    Source: ID3v1 (128 bytes that begin with TAG); APEv2, whose last 32 bytes hold its size.
    """
    with path.open("rb") as file:
        end = file.seek(0, 2)
        while True:
            before = end
            tail = _bytes_before(file, end, 128)
            if tail[:3] == b"TAG" and len(tail) == 128:
                end -= 128
            foot = _bytes_before(file, end, 32)
            if foot[:8] == b"APETAGEX":
                size = int.from_bytes(foot[12:16], "little") + 32 * bool(foot[23] & 0x80)
                end -= min(size, end)
            while end and not any(block := _bytes_before(file, end, 1 << 16)):
                end -= len(block)
            end -= len(block) - len(block.rstrip(b"\0")) if end else 0
            if end == before:
                return end


def _bytes_before(file: BinaryIO, end: int, count: int) -> bytes:
    file.seek(max(0, end - count))
    return file.read(end - max(0, end - count))
