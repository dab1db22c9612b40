"""What the page plays and shows of a file: copies, differences, mixes, waveforms and spectrograms."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.encode import BitDepth
from polyres.audio.files import AudioReader
from polyres.audio.resample import StreamResampler
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
        """Return `[2, n]`, placed by the equal-power rule of Web Audio's stereo panner."""
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


COLUMNS = 900
BANDS = 96
FLOOR_DB = -96.0
LOW_HZ, HIGH_HZ = 40.0, 16_000.0

_FRAME_SAMPLES = 2048
_HOP_SAMPLES = 1024
_BLOCK_SAMPLES = 1 << 17


def view_of(path: Path, length_samples: int) -> dict[str, Any]:
    """Compute waveform and spectrogram of a file."""
    columns = max(1, min(COLUMNS, -(-length_samples // 64)))
    low, high = np.zeros(columns), np.zeros(columns)
    levels = np.zeros((BANDS, columns))
    framed = np.zeros(columns, bool)
    with AudioReader(path) as reader:
        matrix = _band_matrix(reader.info.sample_rate_hz)
        position = 0
        for block in reader.blocks(_BLOCK_SAMPLES):
            place = _column(np.arange(position, position + block.shape[1]), length_samples, columns)
            np.minimum.at(low, place, block.min(axis=0))
            np.maximum.at(high, place, block.max(axis=0))
            position += block.shape[1]
        for centers, power in _spectra(reader.blocks(_BLOCK_SAMPLES)):
            place = _column(centers, length_samples, columns)
            np.maximum.at(levels.T, place, power @ matrix)
            framed[place] = True
    _fill_gaps(levels, framed)
    decibels = 10 * np.log10(np.maximum(levels, 1e-12))
    bytes_ = np.clip(np.rint((decibels / -FLOOR_DB + 1) * 255), 0, 255).astype(np.uint8)
    return {
        "columns": columns,
        "low": np.rint(np.clip(low, -1, 1) * 127).astype(int).tolist(),
        "high": np.rint(np.clip(high, -1, 1) * 127).astype(int).tolist(),
        "bands": BANDS,
        "low_hz": LOW_HZ,
        "high_hz": HIGH_HZ,
        "floor_db": FLOOR_DB,
        "levels": base64.b64encode(bytes_.tobytes()).decode("ascii"),
        "peak": round(float(max(high.max(), -low.min())), 5),
    }


def _column(samples: np.ndarray[Any, Any], length_samples: int, columns: int) -> np.ndarray[Any, Any]:
    return np.clip(samples * columns // length_samples, 0, columns - 1)


def _spectra(blocks: Iterator[_Wave]) -> Iterator[tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Yield centres in samples and power spectra `[N, F]`, the loudest channel's; a full-scale sine has power 1."""
    window = np.hanning(_FRAME_SAMPLES + 1)[:-1].astype(np.float32)
    scale = (2 / window.sum()) ** 2
    half = _FRAME_SAMPLES // 2
    held: _Wave | None = None
    start = -half
    for block in _padded(blocks, half):
        held = block if held is None else np.concatenate([held, block], axis=1)
        count = (held.shape[1] - _FRAME_SAMPLES) // _HOP_SAMPLES + 1
        if count < 1:
            continue
        frames = np.lib.stride_tricks.sliding_window_view(held, _FRAME_SAMPLES, axis=1)[:, ::_HOP_SAMPLES][:, :count]
        power = np.square(np.abs(np.fft.rfft(frames * window))).max(axis=0) * scale
        yield start + half + _HOP_SAMPLES * np.arange(count), power
        held = held[:, count * _HOP_SAMPLES :]
        start += count * _HOP_SAMPLES


def _padded(blocks: Iterator[_Wave], samples: int) -> Iterator[_Wave]:
    channels = 1
    for number, block in enumerate(blocks):
        channels = block.shape[0]
        yield np.pad(block, ((0, 0), (samples, 0))) if number == 0 else block
    yield np.zeros((channels, samples + _HOP_SAMPLES), np.float32)


def _band_matrix(rate_hz: int) -> np.ndarray[Any, Any]:
    """Weights `[F, BANDS]`: each bin goes to the band it lies in, low bands share the bin nearest to them."""
    bins_hz = np.fft.rfftfreq(_FRAME_SAMPLES, 1 / rate_hz)
    edges_hz = np.geomspace(LOW_HZ, HIGH_HZ, BANDS + 1)
    matrix = np.zeros((len(bins_hz), BANDS), np.float32)
    for band in range(BANDS):
        inside = (bins_hz >= edges_hz[band]) & (bins_hz < edges_hz[band + 1])
        if not inside.any() and edges_hz[band] < rate_hz / 2:
            inside[np.abs(bins_hz - np.sqrt(edges_hz[band] * edges_hz[band + 1])).argmin()] = True
        matrix[inside, band] = 1
    return matrix


def _fill_gaps(levels: np.ndarray[Any, Any], framed: np.ndarray[Any, Any]) -> None:
    """Where columns are closer than frames, those without one take the column before; the first one has a frame."""
    source = np.maximum.accumulate(np.where(framed, np.arange(len(framed)), 0))
    levels[:] = levels[:, source]
