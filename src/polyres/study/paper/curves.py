"""Plot scores against costs, and training curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from polyres.metrics.catalogue import METRICS
from polyres.report.figures import canvas, colour, line, marker, tidy
from polyres.study.paper.data import Arm, PaperStudy, score_of, seed_means

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


COSTS = (
    ("macs_per_s", "GMAC per second of audio", 1e9),
    ("parameters", "parameters, millions", 1e6),
    ("train_s", "training time, min", 60.0),
    ("separate_s", "separating, s per s of audio", 1.0),
)
WIDE = 4.0
"""An axis that spans more than this factor is logarithmic."""


@dataclass(frozen=True)
class Point:
    """An arm: its cost and its scores."""

    index: int  # of the arm in its study
    name: str  # of the arm
    cost: float  # mean over the runs
    scores: list[float]  # one per seed


def points(study: PaperStudy, name: str) -> list[Point]:
    """Return the arms whose cost and score are known."""
    found = []
    for index, arm in enumerate(study.arms):
        cost, scores = arm.cost(name), _scores(study, arm)
        if cost is not None and scores:
            found.append(Point(index, arm.name, cost, scores))
    return found


def _scores(study: PaperStudy, arm: Arm) -> list[float]:
    return seed_means(study.values(arm, study.primary))


def cost_quality_figure(study: PaperStudy) -> Figure | None:
    """Draw the primary score against all known costs; None where there are none."""
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


FEW_POINTS = 12


@dataclass(frozen=True)
class Curve:
    """Values of an arm's runs at the steps that all of them have."""

    places: list[float]  # steps or seconds (mean over the runs)
    mean: list[float]  # over the runs
    low: list[float]  # smallest
    high: list[float]  # largest


def loss_of(row: Mapping[str, Any]) -> float | None:
    """Return the training loss of a row of the metrics."""
    loss = row.get("loss")
    total = loss.get("total") if isinstance(loss, Mapping) else None
    return float(total) if isinstance(total, int | float) else None


def curve(arm: Arm, value: Callable[[Mapping[str, Any]], float | None], place: str) -> Curve | None:
    """Gather a value over the epochs of an arm's runs; None where there is none."""
    runs = []
    for run in arm.runs:
        points = [(row.get(place), value(row)) for row in run.epochs]
        known = [(float(x), y) for x, y in points if x is not None and y is not None]
        if known:
            runs.append(known)
    count = min((len(run) for run in runs), default=0)
    if not count:
        return None
    table = np.array([run[:count] for run in runs], dtype=np.float64)
    values = table[:, :, 1]
    return Curve(
        table[:, :, 0].mean(axis=0).tolist(),
        values.mean(axis=0).tolist(),
        values.min(axis=0).tolist(),
        values.max(axis=0).tolist(),
    )


def curves_figure(study: PaperStudy) -> Figure | None:
    """Draw validation score and training loss over steps and time; None where no run has written any."""
    wanted = (
        ("validation nSDR, dB", score_of, "step", "step"),
        ("validation nSDR, dB", score_of, "elapsed_s", "training time, min"),
        ("training loss", loss_of, "step", "step"),
    )
    shown = [
        (label, axis, place, curves)
        for label, value, place, axis in wanted
        if (curves := _curves(study.arms, value, place))
    ]
    if not shown:
        return None
    figure, panels = canvas(len(shown), width=3.5, height=3.1)
    for panel, (label, axis, place, curves) in zip(panels, shown, strict=True):
        _curve_panel(panel, curves, 60.0 if place == "elapsed_s" else 1.0)
        panel.set_xlabel(axis)
        panel.set_ylabel(label)
    handles = {
        name: handle for panel in panels for handle, name in zip(*panel.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=min(len(handles), 6), frameon=False)
    figure.suptitle(f"{study.about.title}: mean over seeds, shaded from the lowest to the highest", fontsize=10)
    return figure


def _curves(
    arms: Sequence[Arm], value: Callable[[Mapping[str, Any]], float | None], place: str
) -> list[tuple[int, str, Curve]]:
    found = [(index, arm.name, curve(arm, value, place)) for index, arm in enumerate(arms)]
    return [(index, name, one) for index, name, one in found if one is not None]


def _curve_panel(panel: Axes, curves: Sequence[tuple[int, str, Curve]], scale: float) -> None:
    for index, name, one in curves:
        places = [place / scale for place in one.places]
        dots = "o" if len(places) <= FEW_POINTS else ""
        panel.plot(places, one.mean, color=colour(index), linestyle=line(index), marker=dots, markersize=4, label=name)
        panel.fill_between(places, one.low, one.high, color=colour(index), alpha=0.15, linewidth=0)
    tidy(panel)
    panel.set_xlim(left=0)
