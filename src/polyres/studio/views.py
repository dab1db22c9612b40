"""Waveform and spectrogram of a file, small enough to be sent to a page, in memory that does not grow with it."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from polyres.audio.files import AudioReader

COLUMNS = 900
BANDS = 96
FLOOR_DB = -96.0
LOW_HZ, HIGH_HZ = 40.0, 16_000.0

_FRAME_SAMPLES = 2048
_HOP_SAMPLES = 1024
_BLOCK_SAMPLES = 1 << 17
_Wave = np.ndarray[Any, np.dtype[np.float32]]


def view_of(path: Path, length_samples: int) -> dict[str, Any]:
    """Compute waveform and spectrogram of a file.

    Returns JSON-able: `columns`; `low`, `high` (extremes of all channels per column, -127 to 127); `bands`, `low_hz`,
    `high_hz`; `levels`, base64 of one byte per band and column, band by band from the lowest, 0 for `FLOOR_DB` and
    less, 255 for a full-scale sine; `peak`, the largest magnitude.
    """
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
