"""Figure 3: drums at an attack: the mixture, the truth, and what every model makes of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyres.analysis.drawing import colour, line, tidy

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

N_FFT, HOP = 1024, 64
RANGE_DB = 70.0
HIGHEST_HZ = 12000
BEFORE_S, AFTER_S = 0.15, 0.45
CONTEXT_S = 4.0
"""What models hear on either side of the attack."""
FRAME_S = 0.005
RISE_S = 0.02


def find_attack(drums: Tensor, sample_rate_hz: int) -> int:
    """Return the sample at which the energy of a stem rises most from 20 ms to the next.

    Args:
        drums: `[C, T]`.
        sample_rate_hz: of it.

    Returns:
        Position in samples; 0 for silence or less than three frames.
    """
    frame = max(round(FRAME_S * sample_rate_hz), 1)
    count = drums.shape[-1] // frame
    span = max(round(RISE_S / FRAME_S), 1)
    if count < 2 * span + 1:
        return 0
    energy = drums[:, : count * frame].double().square().mean(dim=0).reshape(count, frame).mean(dim=1)
    sums = torch.nn.functional.pad(energy.cumsum(0), (1, 0))
    blocks = sums[span:] - sums[:-span]  # of frames [n, n + span)
    rise = blocks[span:] - blocks[:-span]
    # An attack stands out from what sounded before it: weigh its rise by the ratio as well.
    rise = rise * torch.log10((blocks[span:] + 1e-9) / (blocks[:-span] + 1e-9)).clamp_min(0)
    return (int(rise.argmax()) + span) * frame if float(rise.max()) > 0 else 0


@dataclass(frozen=True)
class Excerpt:
    """An attack, and who makes what of it.

    Attributes:
        track: its name.
        source: the stem.
        start_s: where the excerpt starts in the track.
        sample_rate_hz: of the waves.
        waves: name to `[C, T]`, all of one length: mixture, reference, then the models.
    """

    track: str
    source: str
    start_s: float
    sample_rate_hz: int
    waves: Mapping[str, Tensor]


def level_spectrogram(wave: Tensor) -> Tensor:
    """Return the power of a waveform's mono mix `[F, N]` in dB.

    Args:
        wave: `[C, T]`.
    """
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    mono = wave.double().mean(dim=0)
    spectrum = torch.stft(mono, N_FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
    return 10 * torch.log10(spectrum.abs().square() + 1e-12)


def spectrogram_figure(excerpt: Excerpt) -> Figure:
    """Draw the spectrograms on one scale of colours, and below them the levels over time.

    Args:
        excerpt: what to draw.
    """
    from matplotlib.figure import Figure

    names = list(excerpt.waves)
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(2.75 * columns, 2.2 * (rows + 1)), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns)
    panels = [figure.add_subplot(grid[place // columns, place % columns]) for place in range(len(names))]
    levels = {name: level_spectrogram(wave) for name, wave in excerpt.waves.items()}
    top = max(float(level.max()) for level in levels.values())
    panel_top_khz = min(HIGHEST_HZ, excerpt.sample_rate_hz // 2) // 1000
    image: Any = None
    for place, (panel, name) in enumerate(zip(panels, names, strict=True)):
        image = _spectrogram(panel, levels[name], excerpt.sample_rate_hz, top)
        panel.set_title(name, fontsize=9.5)
        panel.set_yticks(range(0, panel_top_khz + 1, 4))
        panel.set_ylabel("kHz" if place % columns == 0 else "")
        if place % columns:
            panel.set_yticklabels([])
        panel.set_xlabel("ms")
    figure.colorbar(image, ax=panels, label="dB below the loudest", shrink=0.85, aspect=30)
    wide = figure.add_subplot(grid[rows, :])
    _levels(wide, excerpt)
    handles, labels = wide.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9)
    at = f"{excerpt.start_s + BEFORE_S:.2f} s"
    figure.suptitle(f"{excerpt.source} of {excerpt.track} at {at}", fontsize=10.5)
    return figure


def _spectrogram(panel: Axes, level: Tensor, rate_hz: int, top: float) -> Any:
    highest = min(HIGHEST_HZ, rate_hz // 2)
    bins = highest * N_FFT // rate_hz + 1
    first_ms = -1e3 * BEFORE_S
    extent = (first_ms, first_ms + 1e3 * (level.shape[1] - 1) * HOP / rate_hz, 0.0, (bins - 1) * rate_hz / N_FFT / 1e3)
    return panel.imshow(
        (level[:bins] - top).numpy(), origin="lower", aspect="auto", cmap="magma", vmin=-RANGE_DB, vmax=0, extent=extent
    )


def _levels(panel: Axes, excerpt: Excerpt) -> None:
    """Draw the level over time in frames of 5 ms."""
    frame = max(round(FRAME_S * excerpt.sample_rate_hz), 1)
    models = 0
    for name, wave in excerpt.waves.items():
        if name == "mixture":
            continue
        count = wave.shape[-1] // frame
        power = wave[:, : count * frame].double().square().mean(dim=0).reshape(count, frame).mean(dim=1)
        times = [1e3 * ((place + 0.5) * FRAME_S - BEFORE_S) for place in range(count)]
        true = name == "reference"
        style = {"color": "black", "linewidth": 2.2} if true else {"color": colour(models), "linestyle": line(models)}
        panel.plot(times, (10 * torch.log10(power + 1e-9)).numpy(), label=name, **style)
        models += not true
    tidy(panel)
    panel.set_xlim(-1e3 * BEFORE_S, 1e3 * AFTER_S)
    panel.set_xlabel("ms from the attack")
    panel.set_ylabel("level, dBFS")
