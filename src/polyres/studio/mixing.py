"""Write playable copies, differences and mixes, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.files import AudioReader
from polyres.audio.resample import StreamResampler
from polyres.audio.wav import BitDepth
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import ConfigError, InputError

BLOCK_SAMPLES = 1 << 17
MAX_LEVEL_DB = 12.0
# Rates that every browser's audio context takes.
_PLAYED_RATES_HZ = (8_000, 96_000)
_USUAL_RATE_HZ = 44_100
_Wave = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True)
class Strip:
    """How one stem goes into a mix."""

    level_db: float = 0.0  # gain in dB, at most `MAX_LEVEL_DB`
    pan: float = 0.0  # -1 (left) to 1 (right)

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not -120 <= self.level_db <= MAX_LEVEL_DB:
            raise ConfigError(f"level {self.level_db} dB is not possible; choose -120 to {MAX_LEVEL_DB:g}")
        if not -1 <= self.pan <= 1:
            raise ConfigError(f"pan {self.pan} is not possible; choose -1 (left) to 1 (right)")

    def apply(self, wave: _Wave) -> _Wave:
        """Return `[2, n]`, placed by the equal-power rule of Web Audio's stereo panner.

        `wave`: `[C, n]`; one or two channels.
        """
        gain = 10 ** (self.level_db / 20)
        left, right = (wave[0], wave[0]) if wave.shape[0] == 1 else (wave[0], wave[1])
        if self.pan == 0:  # exactly: the cosine of a right angle is not quite 0 in floating point
            return (np.stack([left, right]) * gain).astype(np.float32)
        angle = (self.pan + 1 if self.pan <= 0 else self.pan) * math.pi / 2
        near, far = math.sin(angle), math.cos(angle)
        pair = [left + right * far, right * near] if self.pan <= 0 else [left * far, right + left * near]
        return (np.stack(pair) * gain).astype(np.float32)


def played_rate_hz(rate_hz: int) -> int:
    """Return the rate at which audio of a rate is played."""
    return rate_hz if _PLAYED_RATES_HZ[0] <= rate_hz <= _PLAYED_RATES_HZ[1] else _USUAL_RATE_HZ


def copy_to_play(
    source: Path, target: Path, gain: float = 1.0, start_s: float = 0.0, length_s: float | None = None
) -> int:
    """Write a 16-bit copy that every browser plays: one or two channels, a usual rate; the ending gives the format."""
    written = 0
    with AudioReader(source) as reader:
        rate_hz = reader.info.sample_rate_hz
        channels = 1 if reader.info.channels > 2 else reader.info.channels
        out_hz = played_rate_hz(rate_hz)
        first = round(start_s * rate_hz)
        last = None if length_s is None else first + max(1, round(length_s * rate_hz))
        change = StreamResampler(rate_hz, out_hz, channels)
        spec = WriteSpec(out_hz, channels, target.suffix[1:], 16)
        with AudioWriter(target, spec) as writer:
            for block in _part(reader.blocks(BLOCK_SAMPLES), first, last):
                wave = block if block.shape[0] == channels else block.mean(axis=0, keepdims=True)
                written += _write(writer, change.push(wave * np.float32(gain)))
            written += _write(writer, change.finish())
            if not written:
                raise InputError(f"{source.name} ends before {start_s:g} s; start earlier")
    return written


def difference(first: Path, second: Path, target: Path) -> None:
    """Write the first file minus the second.

    `target`: WAV file to write, 32-bit float: a difference may go beyond full scale.
    """
    with AudioReader(first) as one, AudioReader(second) as other:
        facts = [(each.info.sample_rate_hz, each.info.channels) for each in (one, other)]
        if facts[0] != facts[1]:
            raise InputError(f"{first.name} and {second.name} differ in rate or channels; there is no difference")
        with AudioWriter(target, WriteSpec(*facts[0], "wav", "float")) as writer:
            for left, right in _together([one, other]):
                writer.write(left - right)


def mix(
    strips: Mapping[Path, Strip], target: Path, span_s: tuple[float, float] | None = None, bit_depth: BitDepth = 24
) -> float:
    """Write the mix of files that run together; where it would clip, all of it is turned down.

    `bit_depth`: 16, 24 or "float"; returns the factor by which it was turned down; 1 if it was not.
    """
    if not strips:
        raise InputError("nothing sounds in this mix; switch a stem on")
    peak = 0.0
    rate_hz, blocks = _mixed(strips, span_s)
    for block in blocks:
        peak = max(peak, float(np.abs(block).max(initial=0)))
    # One step of 16 bits below full scale, as rounding may go up.
    gain = 1.0 if bit_depth == "float" else min(1.0, (1 - 2**-15) / peak) if peak else 1.0
    rate_hz, blocks = _mixed(strips, span_s)
    written = 0
    with AudioWriter(target, WriteSpec(rate_hz, 2, "wav", bit_depth)) as writer:
        for block in blocks:
            written += _write(writer, block * np.float32(gain))
        if not written:
            raise InputError("the part to mix holds no samples; choose a longer one")
    return gain


def _mixed(strips: Mapping[Path, Strip], span_s: tuple[float, float] | None) -> tuple[int, Iterator[_Wave]]:
    stack = ExitStack()
    try:
        readers = [(stack.enter_context(AudioReader(path)), strip) for path, strip in strips.items()]
        rates_hz = {reader.info.sample_rate_hz for reader, _ in readers}
        if len(rates_hz) > 1:
            raise InputError(f"the stems have different rates ({', '.join(map(str, sorted(rates_hz)))} Hz)")
    except BaseException:
        stack.close()
        raise
    rate_hz = rates_hz.pop()
    first, last = (0, None) if span_s is None else (round(span_s[0] * rate_hz), round(span_s[1] * rate_hz))

    def sums() -> Iterator[_Wave]:
        with stack:
            for blocks in _together([reader for reader, _ in readers]):
                parts = [
                    strip.apply(block if block.shape[0] <= 2 else block.mean(axis=0, keepdims=True))
                    for block, (_, strip) in zip(blocks, readers, strict=True)
                ]
                yield np.sum(parts, axis=0, dtype=np.float32)

    return rate_hz, _part(sums(), first, last)


def _together(readers: Sequence[AudioReader]) -> Iterator[tuple[_Wave, ...]]:
    """Yield aligned blocks of all files."""
    for blocks in zip_longest(*(reader.blocks(BLOCK_SAMPLES) for reader in readers)):
        if len({0 if block is None else block.shape[1] for block in blocks}) > 1:
            names = " and ".join(reader.info.path.name for reader in readers)
            raise InputError(f"{names} are not equally long; take files of one result")
        yield blocks


def _part(blocks: Iterator[_Wave], first: int, last: int | None) -> Iterator[_Wave]:
    """Yield the samples from first to last."""
    position = 0
    for block in blocks:
        begin = max(0, first - position)
        end = block.shape[1] if last is None else min(block.shape[1], last - position)
        if end > begin:
            yield block[:, begin:end]
        position += block.shape[1]
        if last is not None and position >= last:
            return


def _write(writer: AudioWriter, block: _Wave) -> int:
    if block.shape[1]:
        writer.write(block)
    return block.shape[1]
