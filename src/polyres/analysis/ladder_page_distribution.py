"""The part of the ladder's page that compares what goes through a codec with what its weights expect."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from polyres.analysis.drawing import canvas, colour, tidy
from polyres.core.tables import MISSING, Table
from polyres.experiments.ladder_distribution import (
    CELLS,
    LATENT,
    LATENT_RANGE,
    MEL_DECODED,
    MEL_GIVEN,
    MEL_RANGE_NAT,
    Distribution,
    joined,
    overlap,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GOLDEN = "mel of the golden file"
NEAR_STD = 0.5
"""How far a mean may be from what is expected, in standard deviations of that, before the table marks it."""


@dataclass(frozen=True)
class Distributions:
    """What a ladder measured on the way.

    Attributes:
        files: of all files but golden ones.
        golden: of golden files.
        expected_std: of latents.
        reason: where that is from.
    """

    files: Sequence[Distribution]
    golden: Sequence[Distribution]
    expected_std: float
    reason: str

    def merged(self) -> dict[str, Distribution]:
        """Put files together: by name of the picture, that of golden files as GOLDEN."""
        names = dict.fromkeys(one.name for one in self.files)
        found = {name: joined([one for one in self.files if one.name == name]) for name in names}
        golden = [one for one in self.golden if one.name == MEL_GIVEN]
        return {**found, **({GOLDEN: joined(golden)} if golden else {})}


def distribution_table(given: Distributions) -> Table:
    """Say in numbers how near everything is to what the weights expect.

    Args:
        given: of a ladder.

    Returns:
        One line per picture.
    """
    found = given.merged()
    expected = found.get(GOLDEN) or found.get(MEL_DECODED)
    lines: list[tuple[str, ...]] = []
    for name, one in found.items():
        wanted: tuple[float, float] | None = None
        common = math.nan
        if name == LATENT:
            wanted = (0.0, given.expected_std)
            common = _normal_overlap(one, given.expected_std)
        elif expected is not None and one is not expected:
            wanted, common = (expected.mean, expected.std), overlap(one, expected)
        far = wanted is not None and wanted[1] > 0 and abs(one.mean - wanted[0]) > NEAR_STD * wanted[1]
        told = MISSING if wanted is None else f"{wanted[0]:.2f} ± {wanted[1]:.2f}"
        share = MISSING if math.isnan(common) else f"{100 * common:.0f} %"
        verdict = MISSING if wanted is None else "far off" if far else "near"
        lines.append((name, str(one.frames), f"{one.mean:.2f} ± {one.std:.2f}", told, share, verdict))
    what = "golden file, which the chain made itself" if GOLDEN in found else "mel that the decoder gives"
    notes = (
        f"mel spectra in nat, expected is the {what}; latents: 0 ± {given.expected_std:.3g} ({given.reason}). "
        f"In common: of two histograms. Far off: the mean by more than {NEAR_STD} expected standard deviations.",
    )
    return Table("", ("picture", "frames", "mean ± std", "expected", "in common", "verdict"), lines, 1, notes)


def _normal_overlap(one: Distribution, std: float) -> float:
    """Share that a histogram of latents has in common with the normal distribution."""
    low, high = (limit * std for limit in LATENT_RANGE)
    width = (high - low) / CELLS
    edges = [0.5 * (1 + math.erf((low + width * cell) / std / math.sqrt(2))) for cell in range(CELLS + 1)]
    total = max(1, sum(one.counts))
    return sum(min(count / total, edges[cell + 1] - edges[cell]) for cell, count in enumerate(one.counts))


def distribution_picture(given: Distributions) -> bytes:
    """Draw histograms and averages of every bin.

    Args:
        given: of a ladder.

    Returns:
        A PNG file.
    """
    found = given.merged()
    mels = {name: one for name, one in found.items() if name != LATENT}
    latent = found.get(LATENT)
    figure, panels = canvas(2, 2 if latent else 1, width=6.0, height=2.7)
    _draw_histograms(panels[0], mels, MEL_RANGE_NAT)
    panels[0].set(title="mel spectra", xlabel="log magnitude (nat)", ylabel="share of values")
    _draw_bins(panels[1], mels)
    panels[1].set(title="average of every mel band ± standard deviation", xlabel="band", ylabel="nat")
    if latent is not None:
        std = given.expected_std
        limits = LATENT_RANGE[0] * std, LATENT_RANGE[1] * std
        _draw_histograms(panels[2], {LATENT: latent}, limits)
        width = (limits[1] - limits[0]) / CELLS
        places = [limits[0] + width * (cell + 0.5) for cell in range(CELLS)]
        normal = [width * math.exp(-((x / std) ** 2) / 2) / std / math.sqrt(2 * math.pi) for x in places]
        panels[2].plot(places, normal, color="#555555", linestyle="--", label="expected")
        panels[2].set(title="latent", xlabel="value", ylabel="share of values")
        panels[2].legend(frameon=False)
        panels[3].axhspan(-std, std, color="#bbbbbb", alpha=0.35, label="expected")
        _draw_bins(panels[3], {LATENT: latent})
        panels[3].set(title="average of every latent channel ± standard deviation", xlabel="channel", ylabel="value")
    for panel in panels:
        tidy(panel)
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=110)
    return held.getvalue()


def _draw_histograms(panel: Axes, found: dict[str, Distribution], limits: tuple[float, float]) -> None:
    width = (limits[1] - limits[0]) / CELLS
    edges = [limits[0] + width * cell for cell in range(CELLS + 1)]
    for number, (name, one) in enumerate(found.items()):
        total = max(1, sum(one.counts))
        panel.stairs([count / total for count in one.counts], edges, color=colour(number), label=name, linewidth=1.5)
    panel.legend(frameon=False)


def _draw_bins(panel: Axes, found: dict[str, Distribution]) -> None:
    for number, one in enumerate(found.values()):
        places = range(len(one.bin_mean))
        pairs = list(zip(one.bin_mean, one.bin_std, strict=True))
        panel.plot(places, one.bin_mean, color=colour(number), linewidth=1.5)
        low, high = [mean - std for mean, std in pairs], [mean + std for mean, std in pairs]
        panel.fill_between(places, low, high, color=colour(number), alpha=0.15, linewidth=0)
