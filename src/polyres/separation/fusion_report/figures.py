"""The fusion report as figures; needs matplotlib, the extra `figures`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyres.core.errors import AnalysisError, OutputError
from polyres.core.tables import number
from polyres.core.whole_files import replaced_atomically
from polyres.report.figures import check_matplotlib, resolution_colours
from polyres.separation.fusion_report.report import Evolution, FusionReport, Stage
from polyres.separation.fusion_report.text import source_rows

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

FORMATS = ("png", "pdf")
DPI = 160
MARKERS = "osD^vP*X"
FEW_EPOCHS = 40
MIN_TITLE_WIDTH = 5.2
"""Inches that the title of a figure of one narrow panel takes."""
# Okabe & Ito's colours, told apart by colour-blind readers too.
SOURCE_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw_report(report: FusionReport, folder: Path) -> list[Path]:
    """Draw all figures that the report has numbers for, as PNG and PDF.

    `folder`: where they go; made if missing. Raises ConfigError: without matplotlib; OutputError when a file cannot be
    written.
    """
    check_matplotlib(otherwise="add --no-figures")
    figures: list[tuple[str, Figure]] = []
    for stage in report.stages:
        if stage.name in report.evolution and len(report.evolution[stage.name].epochs) > 1:
            figures.append((f"{stage.name}_over_epochs", lines_figure(report, stage, report.evolution[stage.name])))
        if stage.tables or (report.data is not None and stage.name == "output"):
            figures.append((f"{stage.name}_heat_map", heat_figure(report, stage)))
    if any(len(evolution.epochs) > 1 for evolution in report.evolution.values()):
        figures.append(("divergence_over_epochs", divergence_figure(report)))
    if report.data is not None:
        figures.append(("branch_correlation", correlation_figure(report)))
    return [path for name, figure in figures for path in save(figure, folder / name)]


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write a figure in all formats, each file whole or not at all. Raises OutputError when one cannot be written."""
    paths = []
    for kind in FORMATS:
        target = stem.with_name(f"{stem.name}.{kind}")
        try:
            with replaced_atomically(target) as temporary:
                # No date, so that the same numbers give the same file.
                metadata = {"CreationDate": None} if kind == "pdf" else None
                figure.savefig(temporary, format=kind, dpi=DPI, metadata=metadata)
        except OSError as error:
            raise OutputError(f"cannot write {target}: {error.strerror}; choose another --out") from error
        paths.append(target)
    return paths


def _figure(columns: int, rows: int = 1, width: float = 3.4, height: float = 3.0) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels, without touching matplotlib's global state."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns + 0.6, height * rows), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def _nature(stage: Stage) -> str:
    return f"{stage.kind}, implicit: share of kernel energy" if stage.weight_kind == "implicit" else stage.kind


def lines_figure(report: FusionReport, stage: Stage, evolution: Evolution) -> Figure:
    """Draw a line per resolution over the epochs, one panel per source."""
    rows = source_rows(report, evolution.summaries[-1].weights)
    columns = min(len(rows), 4)
    figure, panels = _figure(columns, -(-len(rows) // columns), width=3.2 if len(rows) > 1 else 5.0)
    colours = resolution_colours(len(report.n_fft))
    values = [[[100 * w for w in row] for row in one.weights] for one in evolution.summaries]
    low = min(min(map(min, table)) for table in values)
    high = max(max(map(max, table)) for table in values)
    margin = 0.08 * (high - low) or 1.0
    for panel, (source, s) in zip(panels[: len(rows)], rows, strict=True):
        uniform = panel.axhline(100 / len(report.n_fft), color="0.6", linewidth=1, linestyle="--", label="uniform")
        lines = [uniform]
        for r, n_fft in enumerate(report.n_fft):
            marker = MARKERS[r % len(MARKERS)] if len(evolution.epochs) <= FEW_EPOCHS else ""
            (line,) = panel.plot(
                evolution.epochs,
                [table[s][r] for table in values],
                color=colours[r],
                marker=marker,
                markersize=4,
                label=str(n_fft),
            )
            lines.append(line)
        panel.set_title(source)
        panel.set_ylim(min(low, 100 / len(report.n_fft)) - margin, max(high, 100 / len(report.n_fft)) + margin)
        _epoch_axis(panel)
    for spare in panels[len(rows) :]:
        spare.set_visible(False)
    for index in range(0, len(rows), columns):
        panels[index].set_ylabel("weight, %")
    figure.legend(handles=[*lines[1:], lines[0]], title="n_fft", loc="outside right center")
    figure.suptitle(f"{stage.name} fusion ({_nature(stage)}): raw weights", fontsize=11)
    return figure


def _epoch_axis(panel: Axes) -> None:
    from matplotlib.ticker import MaxNLocator

    panel.set_xlabel("epoch")
    panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    panel.grid(alpha=0.25)
    panel.spines[["top", "right"]].set_visible(False)


def heat_figure(report: FusionReport, stage: Stage) -> Figure:
    """Draw source by resolution: the weights, and beside them knock-outs and Shapley values where they are known."""
    weights_map: list[tuple[str, list[list[float]]]] = []
    effects: list[tuple[str, list[list[float]]]] = []
    if stage.tables:
        weights = stage.tables[report.chosen].weights
        label = "kernel energy (implicit), %" if stage.weight_kind == "implicit" else "weight, %"
        weights_map = [(label, [[100 * value for value in row] for row in weights])]
    if report.data is not None:
        effects.append(("knock-out loss, dB nSDR", _by_source(report.data.knock_out_db)))
        if report.data.shapley_db is not None:
            effects.append(("Shapley value, dB nSDR", _by_source(report.data.shapley_db)))
    maps = [*weights_map, *effects]
    width = max(2.6, 0.62 * len(report.n_fft) + 1.0, MIN_TITLE_WIDTH / len(maps))
    figure, panels = _figure(len(maps), width=width, height=0.5 * len(report.sources) + 1.5)
    # Twice an even share is as dark as it gets, so that nearly even weights look even; decibels share one scale.
    darkest = max(200 / len(report.n_fft), _largest([table for _, table in weights_map]))
    bound_db = _largest([table for _, table in effects])
    for place, (panel, (title, table)) in enumerate(zip(panels, maps, strict=True)):
        signed = place >= len(weights_map)
        _heat_map(panel, table, bound_db if signed else darkest, signed)
        panel.set_title(title, fontsize=10)
        _resolution_ticks(panel, [str(n_fft) for n_fft in report.n_fft])
        panel.set_yticks(range(len(report.sources)), report.sources if place == 0 else [""] * len(report.sources))
        panel.set_xlabel("n_fft")
    figure.suptitle(f"{stage.name} fusion ({_nature(stage)}), weights: {report.chosen}", fontsize=11)
    return figure


def _resolution_ticks(panel: Axes, names: list[str]) -> None:
    """Label the columns, slanted where there are many."""
    if len(names) > 4:
        panel.set_xticks(range(len(names)), names, rotation=35, ha="right", rotation_mode="anchor")
    else:
        panel.set_xticks(range(len(names)), names)


def _by_source(table: Sequence[Sequence[float]]) -> list[list[float]]:
    return [list(column) for column in zip(*table, strict=True)]


def _largest(tables: Sequence[list[list[float]]]) -> float:
    """Return the largest finite magnitude in some tables, above 0."""
    return max([abs(v) for table in tables for row in table for v in row if math.isfinite(v)], default=0.0) or 1.0


def _heat_map(panel: Axes, table: list[list[float]], bound: float, signed: bool) -> None:
    """Draw a table with its numbers; colours go from 0 to the bound, or to either side of 0."""
    from matplotlib import colormaps

    cmap, low = ("RdBu", -bound) if signed else ("Blues", 0.0)
    panel.imshow(table, cmap=cmap, vmin=low, vmax=bound, aspect="auto")
    for y, row in enumerate(table):
        for x, value in enumerate(row):
            red, green, blue, _ = colormaps[cmap]((value - low) / (bound - low))
            dark = math.isfinite(value) and 0.3 * red + 0.59 * green + 0.11 * blue < 0.55
            text = number(value, 2, signed=True) if signed else number(value, 1)
            panel.text(x, y, text, ha="center", va="center", fontsize=8.5, color="white" if dark else "black")
    panel.tick_params(length=0)
    panel.spines[:].set_visible(False)


def divergence_figure(report: FusionReport) -> Figure:
    """Draw how far the weights are from even over the epochs: a line per source, a panel per stage."""
    shown = [(stage, one) for stage, one in report.evolution.items() if len(one.epochs) > 1]
    figure, panels = _figure(len(shown), width=4.6)
    highest = max(max(summary.divergence_bits) for _, one in shown for summary in one.summaries)
    lines: dict[str, Line2D] = {}
    for panel, (stage, evolution) in zip(panels, shown, strict=True):
        rows = source_rows(report, evolution.summaries[-1].weights)
        for source, s in rows:
            values = [summary.divergence_bits[s] for summary in evolution.summaries]
            colour = SOURCE_COLOURS[s % len(SOURCE_COLOURS)] if len(rows) > 1 else "black"
            marker = MARKERS[s % len(MARKERS)] if len(evolution.epochs) <= FEW_EPOCHS else ""
            (line,) = panel.plot(evolution.epochs, values, color=colour, marker=marker, markersize=4, label=source)
            lines.setdefault(source, line)
        if len(rows) > 1:
            values = [summary.disagreement_bits for summary in evolution.summaries]
            (line,) = panel.plot(evolution.epochs, values, color="black", linestyle=":", label="between sources")
            lines.setdefault("between sources", line)
        panel.set_title(stage)
        panel.set_ylim(0, 1.08 * highest or None)
        _epoch_axis(panel)
        panel.ticklabel_format(axis="y", style="sci", scilimits=(-2, 3))
    figure.legend(handles=list(lines.values()), loc="outside right center")
    panels[0].set_ylabel("divergence from uniform, bits")
    figure.suptitle("How far the raw weights are from even", fontsize=11)
    return figure


def correlation_figure(report: FusionReport) -> Figure:
    """Draw the correlation between the resolutions' own estimates, and between their errors, per source."""
    if report.data is None:
        raise AnalysisError("correlations need tracks; add --data")
    figure, panels = _figure(len(report.sources), 2, width=2.6, height=2.5)
    rows = (("estimates", report.data.correlation), ("errors", report.data.error_correlation))
    names = [str(n_fft) for n_fft in report.n_fft]
    for row, (what, matrices) in enumerate(rows):
        for s, source in enumerate(report.sources):
            panel = panels[row * len(report.sources) + s]
            _heat_map(panel, matrices[s], 1.0, signed=True)
            panel.set_title(f"{source}: {what}", fontsize=10)
            _resolution_ticks(panel, names if row else [""] * len(names))
            panel.set_yticks(range(len(names)), names if s == 0 else [""] * len(names))
    figure.suptitle(f"Correlation between branches, weights: {report.chosen}", fontsize=11)
    return figure
