"""Fusion weights of the runs of studies, each run's report read once."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from polyres.core.config import read_as
from polyres.report.figures import canvas, colour, resolution_colours, spare, tidy
from polyres.separation.fusion_report.report import FusionReport, Stage, build_report, choose_weights
from polyres.separation.fusion_report.weights_over_time import load_fusion_subject
from polyres.study.paper.data import Arm, PaperStudy
from polyres.training.run_folder import BEST_FILE, CONFIG_FILE, METRICS_FILE

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


OUTPUT = "output"
Array = NDArray[np.float64]
Reports = Mapping[tuple[str, str], FusionReport]
"""(study, run) -> report."""


def read_reports(studies: Sequence[PaperStudy]) -> dict[tuple[str, str], FusionReport]:
    """Read the fusion weights of all runs that have several resolutions; runs without weights are left out."""
    found = {}
    for study in studies:
        for arm in study.arms:
            for run in arm.runs if arm.model is not None and len(arm.model.n_fft) > 1 else ():
                kept = run.fusion
                report = fusion_report(run.folder, run.name) if kept is None else read_as(FusionReport, kept)
                if report is not None:
                    found[study.name, run.name] = report
    return found


def fusion_report(folder: Path, name: str) -> FusionReport | None:
    """Report on the fusions of a run under the name it has in a study; None without weights."""
    has_weights = (folder / BEST_FILE).exists() or (folder / METRICS_FILE).exists()
    if not (folder / CONFIG_FILE).exists() or not has_weights:
        return None
    subject = load_fusion_subject(str(folder))
    return replace(build_report(subject, choose_weights(subject, None)), model=name)


def output_stage(report: FusionReport) -> Stage | None:
    """Return the output fusion of a report where it has weights."""
    return next((stage for stage in report.stages if stage.name == OUTPUT and stage.tables), None)


def output_weights(reports: Reports, study: PaperStudy, arm: Arm) -> Array | None:
    """Return the learned output weights `[K, S, R]` of an arm's K seeds; None where there are none."""
    tables = []
    for run in arm.runs:
        report = reports.get((study.name, run.name))
        stage = None if report is None else output_stage(report)
        if report is not None and stage is not None and stage.learned:
            tables.append(stage.tables[report.chosen].weights)
    return np.array(tables, dtype=np.float64) if tables else None


COLUMNS = 3


@dataclass(frozen=True)
class ArmWeights:
    """Output weights of an arm."""

    name: str  # of the arm, with its study
    n_fft: tuple[int, ...]  # resolutions
    sources: tuple[str, ...]  # stems
    weights: Array  # `[K, S, R]` of K runs
    implicit: bool  # whether they are shares of kernel energy only


def arm_weights(studies: Sequence[PaperStudy], reports: Reports) -> list[ArmWeights]:
    """Return the learned output weights of all arms."""
    found = []
    for study in studies:
        for arm in study.arms:
            weights = output_weights(reports, study, arm)
            if weights is None or arm.model is None:
                continue
            name = arm.name if len(studies) == 1 else f"{study.name}: {arm.name}"
            implicit = _implicit(study, arm, reports)
            found.append(ArmWeights(name, arm.model.n_fft, arm.model.sources, weights, implicit))
    return found


def _implicit(study: PaperStudy, arm: Arm, reports: Reports) -> bool:
    report = next((reports[study.name, run.name] for run in arm.runs if (study.name, run.name) in reports), None)
    stage = None if report is None else output_stage(report)
    return stage is not None and stage.weight_kind == "implicit"


def weights_figure(shown: Sequence[ArmWeights]) -> Figure:
    """Draw bars per stem and resolution, one panel per arm, with whiskers from the lowest to the highest run."""
    columns = min(len(shown), COLUMNS)
    figure, panels = canvas(columns, -(-len(shown) // columns), width=3.9, height=2.9)
    for panel, one in zip(panels[: len(shown)], shown, strict=True):
        _panel(panel, one)
    spare(panels, len(shown))
    for place in range(0, len(shown), columns):
        panels[place].set_ylabel("weight, %")
    figure.suptitle(
        "Output fusion weights at the end of training (dashed: even; a weight is no importance)", fontsize=10.5
    )
    return figure


def _panel(panel: Axes, one: ArmWeights) -> None:
    shared = len(one.sources) > 1 and bool(np.allclose(one.weights, one.weights[:, :1]))
    weights = 100 * (one.weights[:, :1] if shared else one.weights)
    names = ["all stems"] if shared else list(one.sources)
    count = len(one.n_fft)
    width = 0.84 / count
    for place, (n_fft, shade) in enumerate(zip(one.n_fft, resolution_colours(count), strict=True)):
        of = weights[:, :, place]
        mean = of.mean(axis=0)
        x = np.arange(len(names)) + (place - (count - 1) / 2) * width
        ends = np.stack([mean - of.min(axis=0), of.max(axis=0) - mean]) if len(of) > 1 else None
        panel.bar(x, mean, width, color=shade, yerr=ends, capsize=2, label=str(n_fft), error_kw={"linewidth": 1})
    panel.axhline(100 / count, color="0.3", linewidth=1, linestyle="--")
    panel.set_xticks(range(len(names)), names)
    runs = f"{len(weights)} run" + ("s" if len(weights) > 1 else "")
    nature = ", share of kernel energy" if one.implicit else ""
    panel.set_title(f"{one.name} ({runs}{nature})", fontsize=9.5)
    tidy(panel)
    panel.set_ylim(0, 1.25 * float(max(weights.max(), 100 / count)))
    panel.legend(
        fontsize=7.5, frameon=False, ncols=min(count, 4), loc="upper center", columnspacing=1.0, handlelength=1.2
    )


FRAME_SAMPLES = 16384
LOWEST_HZ = 25.0
BANDS_PER_OCTAVE = 3


@dataclass(frozen=True)
class Spectra:
    """Mean power of stems in third octaves."""

    centres_hz: list[float]  # of the bands
    shares: list[list[float]]  # `[S][K]`, every stem's sums to 1; NaN where a stem is silent throughout
    sources: tuple[str, ...]  # names of the stems
    tracks: int  # how many were heard


def third_octaves(sample_rate_hz: int) -> NDArray[np.float64]:
    """Return the edges of third octaves from 25 Hz to half the sample rate."""
    count = math.floor(BANDS_PER_OCTAVE * math.log2(sample_rate_hz / 2 / LOWEST_HZ))
    return LOWEST_HZ * 2.0 ** (np.arange(count + 1) / BANDS_PER_OCTAVE)


def stem_spectra(tracks: Iterable[Tensor], sources: Sequence[str], sample_rate_hz: int) -> Spectra:
    """Sum the power of the stems `[S, C, T]` of all tracks in third octaves."""
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
    """Draw every stem's spectrum above the weights per band of the models that have bands."""
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
