"""Figure 2: learned fusion weights of the arms, per stem and resolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from polyres.analysis.drawing import canvas, resolution_colours, spare, tidy
from polyres.analysis.paper_data import Arm, PaperStudy
from polyres.analysis.paper_weights import Array, Reports, output_stage, output_weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3


@dataclass(frozen=True)
class ArmWeights:
    """Output weights of an arm.

    Attributes:
        name: of the arm, with its study.
        n_fft: resolutions.
        sources: stems.
        weights: `[K, S, R]` of K runs.
        implicit: whether they are shares of kernel energy only.
    """

    name: str
    n_fft: tuple[int, ...]
    sources: tuple[str, ...]
    weights: Array
    implicit: bool


def arm_weights(studies: Sequence[PaperStudy], reports: Reports) -> list[ArmWeights]:
    """Return the weights of all arms that have learned ones.

    Args:
        studies: all.
        reports: of their runs.
    """
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
    """Draw bars per stem and resolution, one panel per arm; whiskers reach from the lowest run to the highest.

    Args:
        shown: one or more arms.
    """
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
