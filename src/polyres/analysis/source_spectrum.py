"""Where the energy of every stem lies, beside the weights that its bands give to the resolutions."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polyres.analysis.drawing import canvas, colour, resolution_colours, tidy
from polyres.analysis.fusion import FusionReport
from polyres.analysis.paper_weights import output_stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FRAME_SAMPLES = 16384
LOWEST_HZ = 25.0
BANDS_PER_OCTAVE = 3


@dataclass(frozen=True)
class Spectra:
    """Mean power of stems in third octaves.

    Attributes:
        centres_hz: of the bands.
        shares: `[S][K]`, every stem's sums to 1; NaN where a stem is silent throughout.
        sources: names of the stems.
        tracks: how many were heard.
    """

    centres_hz: list[float]
    shares: list[list[float]]
    sources: tuple[str, ...]
    tracks: int


def third_octaves(sample_rate_hz: int) -> NDArray[np.float64]:
    """Return the edges of third octaves from 25 Hz to half the sample rate.

    Args:
        sample_rate_hz: of the audio.
    """
    count = math.floor(BANDS_PER_OCTAVE * math.log2(sample_rate_hz / 2 / LOWEST_HZ))
    return LOWEST_HZ * 2.0 ** (np.arange(count + 1) / BANDS_PER_OCTAVE)


def stem_spectra(tracks: Iterable[Tensor], sources: Sequence[str], sample_rate_hz: int) -> Spectra:
    """Sum the power of stems over tracks, in third octaves.

    Args:
        tracks: `[S, C, T]` each.
        sources: names of the S stems.
        sample_rate_hz: of all.
    """
    edges = third_octaves(sample_rate_hz)
    bins = np.fft.rfftfreq(FRAME_SAMPLES, 1 / sample_rate_hz)
    band = np.digitize(bins, edges) - 1
    inside = (band >= 0) & (band < len(edges) - 1)
    sums = np.zeros((len(sources), len(edges) - 1))
    window = np.hanning(FRAME_SAMPLES)
    heard = 0
    for stems in tracks:
        heard += 1
        for place, wave in enumerate(stems.double().numpy()):
            power = np.zeros(len(bins))
            for channel in wave:
                short = np.pad(channel, (0, -len(channel) % FRAME_SAMPLES)).reshape(-1, FRAME_SAMPLES)
                power += np.square(np.abs(np.fft.rfft(short * window))).sum(axis=0)
            sums[place] += np.bincount(band[inside], power[inside], minlength=len(edges) - 1)
    totals = sums.sum(axis=1, keepdims=True)
    shares = np.divide(sums, totals, out=np.full_like(sums, np.nan), where=totals > 0)
    return Spectra(np.sqrt(edges[:-1] * edges[1:]).tolist(), shares.tolist(), tuple(sources), heard)


def spectrum_figure(spectra: Spectra, reports: Sequence[tuple[str, FusionReport]]) -> Figure:
    """Draw every stem's spectrum, and below it the weights of the resolutions per band of the models that have bands.

    Args:
        spectra: of the stems.
        reports: names and fusion reports; those without band weights are left out.
    """
    banded = [(name, report) for name, report in reports if _has_bands(report)]
    figure, panels = canvas(len(spectra.sources), 1 + len(banded), width=2.9, height=2.3)
    columns = len(spectra.sources)
    levels = [[10 * math.log10(v) if v > 0 else math.nan for v in row] for row in spectra.shares]
    finite = [v for row in levels for v in row if math.isfinite(v)]
    top = max(finite, default=0.0)
    for place, source in enumerate(spectra.sources):
        panel = panels[place]
        panel.fill_between(spectra.centres_hz, levels[place], top - 60, color=colour(place), alpha=0.35, linewidth=0)
        panel.plot(spectra.centres_hz, levels[place], color=colour(place))
        panel.set_ylim(top - 50, top + 3)
        panel.set_title(source, fontsize=10)
        _frequency_axis(panel, spectra)
    panels[0].set_ylabel("energy, dB")
    for row, (name, report) in enumerate(banded, start=1):
        for place, source in enumerate(spectra.sources):
            panel = panels[row * columns + place]
            if source in report.sources:
                _band_weights(panel, report, report.sources.index(source), spectra)
            _frequency_axis(panel, spectra)
        panels[row * columns].set_ylabel(f"{name}\nweight, %")
    if banded:
        handles, labels = panels[columns].get_legend_handles_labels()
        figure.legend(handles, labels, title="n_fft", loc="outside right center", frameon=False)
    figure.suptitle(f"Energy of the stems in third octaves (tracks: {spectra.tracks})", fontsize=10.5)
    return figure


def _has_bands(report: FusionReport) -> bool:
    stage = output_stage(report)
    return stage is not None and stage.bands is not None


def _frequency_axis(panel: Axes, spectra: Spectra) -> None:
    from matplotlib.ticker import NullFormatter

    panel.set_xscale("log")
    panel.set_xlim(LOWEST_HZ, spectra.centres_hz[-1])
    panel.set_xticks([30, 100, 300, 1000, 3000, 10000], ["30", "100", "300", "1k", "3k", "10k"])
    panel.xaxis.set_minor_formatter(NullFormatter())
    panel.set_xlim(LOWEST_HZ, spectra.centres_hz[-1])
    panel.set_xlabel("Hz")
    tidy(panel)


def _band_weights(panel: Axes, report: FusionReport, source: int, spectra: Spectra) -> None:
    stage = output_stage(report)
    if stage is None or stage.bands is None:
        return
    edges = [LOWEST_HZ, *stage.bands_hz, spectra.centres_hz[-1]]
    widths = [high - low for low, high in pairwise(edges)]
    bottom = np.zeros(len(widths))
    colours = resolution_colours(len(report.n_fft))
    for place, n_fft in enumerate(report.n_fft):
        shares = np.array([100 * band[source][place] for band in stage.bands])
        panel.bar(
            edges[:-1], shares, widths, bottom, align="edge", color=colours[place], edgecolor="white", label=str(n_fft)
        )
        bottom += shares
    panel.set_ylim(0, 100)
