"""Plot original and reconstructions side by side; needs matplotlib, the extra `figures`."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyres.codec.load import Take
from polyres.codec.track import Scores
from polyres.dsp.mel import MelConfig, mel_of_magnitude
from polyres.metrics.reconstruction.metrics import RECONSTRUCTION_METRICS
from polyres.report.figures import colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 110
MAX_COLUMNS = 900
"""Frames drawn of a spectrogram; longer files are sampled at even distances."""
FRAME_S = 0.046
RANGE_DB = 80.0
SHOWN_SCORES = ("snr", "log_mel_l1", "lsd", "mr_stft", "lag")
BANDS = {"low": "below 500 Hz", "mid": "500 Hz to 4 kHz", "high": "above 4 kHz"}


def draw_comparison(
    takes: Mapping[str, Take],
    sample_rate_hz: int,
    scores: Mapping[str, Scores],
    title: str,
    path: Path,
    invalid: Collection[str] = (),
) -> Path:
    """Draw waveform, log spectrogram, mel spectrogram and band levels of every version to a file."""
    from matplotlib.figure import Figure

    columns = len(takes)
    figure = Figure(figsize=(4.6 * columns, 11), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(4, columns, height_ratios=(1, 2, 2, 1.6))
    power = {name: _power(take, sample_rate_hz) for name, take in takes.items()}
    mel = _mel_config(sample_rate_hz)
    peak = max(take.peak for take in takes.values()) or 1.0
    top_db = _db(next(iter(power.values()))).max()
    mels = {name: _db(mel_of_magnitude(value.sqrt(), mel).square().T) for name, value in power.items()}
    top_mel_db = next(iter(mels.values())).max()
    for column, (name, take) in enumerate(takes.items()):
        duration_s = take.length_samples / sample_rate_hz
        axes = [figure.add_subplot(grid[row, column]) for row in range(3)]
        _draw_wave(axes[0], take, sample_rate_hz, peak, colour(column))
        axes[0].set_title(name)
        extent = (0.0, duration_s, 0.0, sample_rate_hz / 2000)
        _draw_picture(axes[1], _db(power[name]), float(top_db), extent, "frequency (kHz)" if column == 0 else "")
        extent = (0.0, duration_s, 0.0, float(mel.mel_bins))
        _draw_picture(axes[2], mels[name], float(top_mel_db), extent, "mel band" if column == 0 else "")
        axes[2].set_xlabel("time (s)")
    _draw_bands(figure.add_subplot(grid[3, : max(1, columns - 1)]), scores)
    _draw_table(figure.add_subplot(grid[3, columns - 1]), scores, invalid)
    figure.savefig(path, dpi=DPI, format="png")
    return path


def _mel_config(sample_rate_hz: int) -> MelConfig:
    size = _frame_samples(sample_rate_hz)
    bins = 64 if size >= 512 else 16
    return MelConfig(
        sample_rate_hz=sample_rate_hz,
        n_fft=size,
        win_length=size,
        hop_length=size // 4,
        mel_bins=bins,
        max_hz=sample_rate_hz / 2,
    )


def _frame_samples(sample_rate_hz: int) -> int:
    """Power of two of about 46 ms."""
    size = 64
    while size * 2 <= FRAME_S * 1.5 * sample_rate_hz:
        size *= 2
    return size


def _power(take: Take, sample_rate_hz: int) -> Tensor:
    """Mean power of all channels in frames at even distances: `[F, N]`."""
    size = _frame_samples(sample_rate_hz)
    frames = max(1, take.length_samples // (size // 4))
    count = min(frames, MAX_COLUMNS)
    window = torch.hann_window(size)
    found = []
    for number in range(count):
        start = max(0, min(int((number + 0.5) / count * take.length_samples) - size // 2, take.length_samples - size))
        wave = take.read(start, min(start + size, take.length_samples))
        wave = torch.nn.functional.pad(wave, (0, size - wave.shape[-1]))
        spectrum = torch.fft.rfft(wave * window) / window.sum()
        found.append(spectrum.abs().square().mean(dim=0))
    return torch.stack(found, dim=1)


def _db(power: Tensor) -> Tensor:
    return 10 * power.clamp_min(1e-12).log10()


def _draw_wave(axes: Axes, take: Take, sample_rate_hz: int, peak: float, colour: str) -> None:
    """Draw the range of the samples, column by column."""
    count = min(MAX_COLUMNS, take.length_samples)
    low, high, time_s = [], [], []
    for number in range(count):
        start, stop = (take.length_samples * edge // count for edge in (number, number + 1))
        piece = take.read(start, min(stop, start + sample_rate_hz))
        low.append(float(piece.min()))
        high.append(float(piece.max()))
        time_s.append(start / sample_rate_hz)
    axes.fill_between(time_s, low, high, color=colour, linewidth=0.4)
    axes.set_ylim(-1.05 * peak, 1.05 * peak)
    axes.set_xlim(0, take.length_samples / sample_rate_hz)


def _draw_picture(axes: Axes, picture_db: Tensor, top_db: float, extent: tuple[float, ...], label: str) -> None:
    """Draw a spectrogram; every version on the scale of the original."""
    axes.imshow(
        picture_db.numpy(),
        origin="lower",
        aspect="auto",
        cmap="magma",
        vmin=top_db - RANGE_DB,
        vmax=top_db,
        extent=extent,  # type: ignore[arg-type]
    )
    axes.set_ylabel(label)


def _draw_bands(axes: Axes, scores: Mapping[str, Scores]) -> None:
    """Draw how far the energy of every band is from the original's."""
    width = 0.8 / max(1, len(scores))
    for number, (name, found) in enumerate(scores.items()):
        values = [found.get(f"band_error_{band}") for band in BANDS]
        heights = [0.0 if value is None else value for value in values]
        places = [place + (number - (len(scores) - 1) / 2) * width for place in range(len(BANDS))]
        bars = axes.bar(places, heights, width, label=name, color=colour(number + 1))
        axes.bar_label(bars, [_number(value, "+.1f") for value in values], padding=2)
    axes.axhline(0, color="black", linewidth=0.8)
    axes.margins(y=0.25)
    axes.set_xticks(range(len(BANDS)), list(BANDS.values()))
    axes.set_ylabel("energy against\nthe original (dB)")
    axes.legend()


def _draw_table(axes: Axes, scores: Mapping[str, Scores], invalid: Collection[str]) -> None:
    """Write the main scores."""
    axes.axis("off")
    rows = [[name, *(_number(found.get(name), ".3g") for found in scores.values())] for name in SHOWN_SCORES]
    units: dict[str, Any] = {name: RECONSTRUCTION_METRICS.build(name).unit for name in SHOWN_SCORES}
    for row in rows:
        mark = ", invalid here" if row[0] in invalid else ""
        row[0] = f"{row[0]} ({units[row[0]]}{mark})" if units[row[0]] != "1" else row[0]
    table = axes.table(rows, colLabels=["", *scores], loc="center", cellLoc="right", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(9)
    table.auto_set_column_width(list(range(len(scores) + 1)))
    table.scale(1, 1.4)


def _number(value: float | None, how: str) -> str:
    return "–" if value is None else format(value, how)
