"""Write WAV as a stream: PCM or float, any length, equal bytes for equal samples."""

from __future__ import annotations

import struct
from typing import BinaryIO, Literal

import numpy as np
import numpy.typing as npt

Wave = npt.NDArray[np.float32]
BitDepth = Literal[16, 24, "float"]

MAX_RIFF_BYTES = 0xFFFFFFFF
_SPEAKERS = {1: 0x4, 2: 0x3, 3: 0x7, 4: 0x33, 5: 0x37, 6: 0x3F, 7: 0x13F, 8: 0x63F}
_GUID_TAIL = bytes.fromhex("000000001000800000aa00389b71")
_DS64_BYTES = 28


def quantize(block: Wave, bits: int) -> npt.NDArray[np.int32]:
    """Round samples to integers, half to even, and hold them inside the range of the integers.

    `block`: `[C, n]` float32, full scale at ±1; `bits`: bits per sample, 2 to 24; returns `[C, n]` int32 within
    -2^(bits-1) … 2^(bits-1) - 1. Integers read from a file come back unchanged.
    """
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
