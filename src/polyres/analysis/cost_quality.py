"""What quality costs: scores against multiply-accumulates, parameters and wall time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polyres.analysis.drawing import canvas, colour, marker, tidy
from polyres.analysis.paper_data import Arm, PaperStudy, seed_means
from polyres.metrics.catalogue import METRICS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COSTS = (
    ("macs_per_s", "GMAC per second of audio", 1e9),
    ("parameters", "parameters, millions", 1e6),
    ("train_s", "training time, min", 60.0),
    ("eval_s", "evaluation time, s", 1.0),
)
WIDE = 4.0
"""An axis that spans more than this factor is logarithmic."""


@dataclass(frozen=True)
class Point:
    """An arm: its cost and its scores.

    Attributes:
        index: of the arm in its study.
        name: of the arm.
        cost: mean over the runs.
        scores: one per seed.
    """

    index: int
    name: str
    cost: float
    scores: list[float]


def points(study: PaperStudy, name: str) -> list[Point]:
    """Return the arms whose cost and score are known.

    Args:
        study: whose arms.
        name: of the cost.
    """
    found = []
    for index, arm in enumerate(study.arms):
        cost, scores = arm.cost(name), _scores(study, arm)
        if cost is not None and scores:
            found.append(Point(index, arm.name, cost, scores))
    return found


def _scores(study: PaperStudy, arm: Arm) -> list[float]:
    return seed_means(study.values(arm, study.primary))


def cost_quality_figure(study: PaperStudy) -> Figure | None:
    """Draw the primary score against all costs that are known; None where there are none.

    Args:
        study: whose arms.
    """
    shown = [(label, scale, found) for name, label, scale in COSTS if (found := points(study, name))]
    if not shown:
        return None
    figure, panels = canvas(len(shown), width=3.0, height=3.1)
    for panel, (label, scale, found) in zip(panels, shown, strict=True):
        _panel(panel, found, scale)
        panel.set_xlabel(label)
    about = METRICS.build(study.primary)
    unit = "" if about.unit == "1" else f", {about.unit}"
    panels[0].set_ylabel(f"{study.primary}{unit} ({about.direction} is better)")
    names = dict(zip(*reversed(panels[0].get_legend_handles_labels()), strict=True))
    figure.legend(
        handles=list(names.values()),
        labels=list(names),
        loc="outside lower center",
        ncols=min(len(names), 6),
        frameon=False,
    )
    figure.suptitle(f"{study.about.title}: mean over tracks and stems; bars: lowest to highest seed", fontsize=10)
    return figure


def _panel(panel: Axes, found: list[Point], scale: float) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    for point in found:
        mean = float(np.mean(point.scores))
        ends = [[mean - min(point.scores)], [max(point.scores) - mean]]
        panel.errorbar(
            [point.cost / scale],
            [mean],
            yerr=ends,
            color=colour(point.index),
            marker=marker(point.index),
            linestyle="",
            capsize=3,
            label=point.name,
        )
    costs = [point.cost for point in found]
    tidy(panel)
    if min(costs) > 0 and max(costs) > WIDE * min(costs):
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        panel.xaxis.set_minor_locator(NullLocator())
    else:
        panel.margins(x=0.15)
        panel.locator_params(axis="x", nbins=4)
