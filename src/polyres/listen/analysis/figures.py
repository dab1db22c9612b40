"""Figures of a report; needs matplotlib, the extra `listen`."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np

from polyres.listen.analysis.analyse import Analysis, Block, PairBlock
from polyres.listen.analysis.ratings import SIMULATED_PREFIX
from polyres.listen.analysis.statistics import LIMIT_SCORE
from polyres.listen.design.files import ListenStudy
from polyres.report.figures import check_matplotlib

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 130
# Okabe & Ito's colours, told apart by colour-blind readers too.
BLUE, ORANGE, GREEN, GREY = "#0072B2", "#D55E00", "#009E73", "#999999"
_MOST_METRICS = 6
_SCORES = "Every dot is a listener's mean over the excerpts; diamonds are means, bars 95 % over listeners and excerpts."
_DIFFERENCES = "Differences of systems: bootstrap over listeners and excerpts, and both mixed models; bars are 95 %."

Images = dict[str, tuple[bytes, str]]


def figures_of(analysis: Analysis) -> Images:
    """Draw all figures of a report. Returns file name -> PNG and caption. The same analysis gives the same bytes."""
    check_matplotlib("listen", "add --no-figures")
    images: Images = {}
    if analysis.study.kind == "mushra" and analysis.screening:
        images["screening.png"] = (_png(_screening_figure(analysis)), "Ratings of the hidden reference by listener.")
    for block in analysis.blocks:
        name = block.name
        images[f"{name}.png"] = (_png(_scores_figure(analysis.study, block)), _SCORES)
        if block.pairs:
            images[f"{name}.differences.png"] = (_png(_differences_figure(analysis.study, block)), _DIFFERENCES)
    for pairs in analysis.pairs:
        caption = "Share of answers with exact 95 % intervals; dots are listeners."
        images[f"pairs_{pairs.attribute}.png"] = (_png(_pairs_figure(analysis.study, pairs)), caption)
    for attribute, lines in analysis.correlations.items():
        if lines:
            caption = "Objective metrics against mean ratings, one point per system and excerpt."
            images[f"metrics_{attribute}.png"] = (_png(_metrics_figure(analysis, attribute)), caption)
    return images


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def _figure(width: float, height: float, columns: int = 1, rows: int = 1) -> tuple[Figure, Any]:
    from matplotlib.figure import Figure as NewFigure

    figure = NewFigure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False)


def _mark_simulated(analysis_simulated: bool, axes: Axes) -> None:
    if analysis_simulated:
        axes.text(
            0.5,
            0.5,
            "SIMULATED",
            transform=axes.transAxes,
            ha="center",
            va="center",
            fontsize=26,
            color=ORANGE,
            alpha=0.15,
        )


def _has_simulated(listeners: tuple[str, ...]) -> bool:
    return any(name.startswith(SIMULATED_PREFIX) for name in listeners)


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _spread(count: int, width: float = 0.28) -> Any:
    """Places beside each other that look scattered and are always the same."""
    return (np.arange(count) * 0.618034 % 1.0 - 0.5) * width


def _scores_figure(study: ListenStudy, block: Block) -> Figure:
    order = sorted(block.summaries, key=lambda line: -line.mean)
    figure, grid = _figure(max(4.5, 1.1 + 1.05 * len(order)), 4.2)
    axes = grid[0, 0]
    low, high, _ = study.scale_of(block.attribute)
    for place, line in enumerate(order):
        table = block.scores.of(line.condition)
        known = np.isfinite(table)
        counts = known.sum(axis=1)
        means = np.where(known, table, 0.0).sum(axis=1)[counts > 0] / counts[counts > 0]
        colour = BLUE if study.condition(line.condition).role == "system" else GREY
        axes.scatter(place + _spread(len(means)), means, s=14, color=colour, alpha=0.45, linewidths=0)
        if np.isfinite(line.low):
            axes.vlines(place, line.low, line.high, color="black", linewidth=1.6)
        axes.plot(place, line.mean, "D", color="black", markersize=5)
    axes.set_xticks(range(len(order)), [_wrapped(study.condition(line.condition).label) for line in order])
    axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
    axes.set_ylabel(block.attribute)
    axes.grid(axis="y", color="#e5e5e5")
    axes.set_axisbelow(True)
    _plain(axes)
    _mark_simulated(_has_simulated(block.scores.listeners), axes)
    return figure


def _wrapped(label: str, width: int = 12) -> str:
    import textwrap

    return "\n".join(textwrap.wrap(label.replace("_", " "), width)) or label


def _differences_figure(study: ListenStudy, block: Block) -> Figure:
    figure, grid = _figure(7.0, 1.5 + 0.62 * len(block.pairs))
    axes = grid[0, 0]
    names = []
    for place, line in enumerate(reversed(block.pairs)):
        first, second = study.condition(line.tests.first).label, study.condition(line.tests.second).label
        names.append(f"{first} − {second}")
        shown = [(line.tests.difference, line.tests.low, line.tests.high, "black", "bootstrap")]
        if line.mixed is not None and line.full is not None:
            shown.append((line.mixed.difference, line.mixed.low, line.mixed.high, ORANGE, "plain model"))
            shown.append((line.full.difference, line.full.low, line.full.high, BLUE, "full model"))
        for number, (value, low, high, colour, label) in enumerate(shown):
            height = place + 0.22 * (1 - number)
            named = label if place == 0 else None
            axes.plot(value, height, "o", color=colour, markersize=4.5, label=named)
            if np.isfinite(low):
                axes.hlines(height, low, high, color=colour, linewidth=1.6)
    axes.axvline(0.0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlabel(f"difference in {block.attribute}, points")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.28 if len(names) < 3 else -0.16), ncols=3, frameon=False)
    _plain(axes)
    _mark_simulated(_has_simulated(block.scores.listeners), axes)
    return figure


def _screening_figure(analysis: Analysis) -> Figure:
    block = next(block for block in analysis.blocks if not block.screened and not block.stem)
    references = [c.id for c in analysis.study.conditions if c.role == "reference" and c.id in block.scores.conditions]
    left_out = {line.listener for line in analysis.screening if line.attribute == block.attribute and line.excluded_by}
    listeners = block.scores.listeners
    figure, grid = _figure(7.0, 1.4 + 0.21 * len(listeners))
    axes = grid[0, 0]
    for condition in references:
        table = block.scores.of(condition)
        for place, name in enumerate(listeners):
            values = table[place][np.isfinite(table[place])]
            colour = ORANGE if name in left_out else BLUE
            heights = place + _spread(len(values), 0.4)
            axes.scatter(values, heights, s=13, color=colour, alpha=0.6, linewidths=0)
    axes.axvline(LIMIT_SCORE, color=GREY, linestyle="--", linewidth=1)
    axes.set_yticks(range(len(listeners)), [name + (" (left out)" if name in left_out else "") for name in listeners])
    axes.tick_params(axis="y", labelsize=7)
    axes.set_xlim(-2, 102)
    axes.set_ylim(len(listeners) - 0.4, -0.6)
    axes.set_xlabel(f"hidden reference, {block.attribute}")
    _plain(axes)
    return figure


def _pairs_figure(study: ListenStudy, block: PairBlock) -> Figure:
    figure, grid = _figure(7.0, 1.4 + 0.5 * len(block.answers))
    axes = grid[0, 0]
    names = []
    for place, line in enumerate(reversed(block.answers)):
        first, second = study.condition(line.first).label, study.condition(line.second).label
        names.append(f"{first} vs {second}")
        shares = [100 * hit.share for hit in line.by_listener.values()]
        heights = place + _spread(len(shares), 0.5)
        axes.scatter(shares, heights, s=14, color=BLUE, alpha=0.45, linewidths=0)
        axes.hlines(place, 100 * line.outcome.low, 100 * line.outcome.high, color="black", linewidth=1.6)
        axes.plot(100 * line.outcome.share, place, "D", color="black", markersize=5)
    axes.axvline(50.0, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(-2, 102)
    axes.set_xlabel("right answers, %" if study.kind == "abx" else "preferring the first, %")
    _plain(axes)
    listeners = tuple(name for line in block.answers for name in line.by_listener)
    _mark_simulated(_has_simulated(listeners), axes)
    return figure


def _metrics_figure(analysis: Analysis, attribute: str) -> Figure:
    lines = analysis.correlations[attribute][:_MOST_METRICS]
    columns = min(3, len(lines))
    rows = -(-len(lines) // columns)
    figure, grid = _figure(3.1 * columns + 0.4, 2.9 * rows + 0.3, columns, rows)
    systems = [c for c in analysis.study.conditions if c.role == "system"]
    colours = (BLUE, ORANGE, GREEN, "#CC79A7", "#E69F00", "#56B4E9")
    for place, axes in enumerate(grid.flat):
        if place >= len(lines):
            axes.set_visible(False)
            continue
        line = lines[place]
        for number, system in enumerate(systems):
            points = [(value, rating) for _, condition, rating, value in line.values if condition == system.id]
            if points:
                marker, colour = "osD^vP"[number % 6], colours[number % 6]
                axes.scatter(*zip(*points, strict=True), s=22, marker=marker, color=colour, label=system.label)
        axes.set_title(f"{line.metric}: Spearman {line.spearman:+.2f}", fontsize=9)
        axes.set_xlabel(line.metric, fontsize=8)
        axes.set_ylabel(f"mean {attribute}", fontsize=8)
        axes.tick_params(labelsize=7)
        _plain(axes)
        _mark_simulated(analysis.simulated > 0, axes)
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=max(1, len(labels)), frameon=False, fontsize=8)
    return figure
