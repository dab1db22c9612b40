"""Plot the gains of enhancers above 4 kHz against their cost; needs matplotlib, the extra `figures`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from polyres.codec.enhance.sweep import CODEC_ALONE, HIGH_ERROR, SPECTRAL_ERROR, EnhanceRow, pareto_front
from polyres.core.errors import OutputError
from polyres.core.whole_files import replaced_atomically
from polyres.report.figures import check_matplotlib


def draw_front(rows: Sequence[EnhanceRow], path: Path) -> Path:
    """Draw a line per enhancer through its strengths, and the front of the blind ones.

    Args:
        rows: one for every enhancer and strength.
        path: PNG or SVG file.

    Returns:
        The path.

    Raises:
        ConfigError: without matplotlib.
        OutputError: if the file cannot be written.
    """
    check_matplotlib()
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.add_subplot()
    for index, name in enumerate(dict.fromkeys(row.enhancer for row in rows)):
        mine = sorted((row for row in rows if row.enhancer == name), key=lambda row: row.strength)
        across = [row.scores[HIGH_ERROR] for row in mine]
        up = [row.scores[SPECTRAL_ERROR] for row in mine]
        if name == CODEC_ALONE:
            axes.plot(across, up, "k*", markersize=14, label="codec alone", zorder=4)
            continue
        style = ":" if mine[0].informed else "--" if mine[0].control else "-"
        kind = " (sees the original)" if mine[0].informed else " (control)" if mine[0].control else ""
        axes.plot(across, up, style, marker="o", markersize=4, color=f"C{index % 10}", label=name + kind)
        axes.annotate(f"{mine[-1].strength:g}", (across[-1], up[-1]), fontsize=7, color=f"C{index % 10}")
    front = pareto_front(rows)
    axes.plot(
        [row.scores[HIGH_ERROR] for row in front],
        [row.scores[SPECTRAL_ERROR] for row in front],
        "s",
        markersize=11,
        markerfacecolor="none",
        markeredgecolor="black",
        label="best blind trade-offs",
    )
    axes.set_xlabel("error above 4 kHz (log-mel L1, nat); left is better")
    axes.set_ylabel("log-spectral distance (log10 power); down is better")
    axes.set_title("Enhancers at equal level; numbers are the largest strength")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    try:
        with replaced_atomically(path) as temporary:
            figure.savefig(temporary, dpi=120, format=path.suffix.removeprefix("."))
    except OSError as error:
        raise OutputError(f"cannot write '{path}' ({error.strerror}); make room or choose another folder") from error
    return path
