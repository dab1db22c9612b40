"""What all figures of the paper share: canvases, colours and files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from polyres.core.errors import ConfigError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito's colours and those of Tol's muted scheme after them, told apart by colour-blind readers too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#332288", "#882255", "#117733", "#999933")
MARKERS = "osD^vP*X<"
"""One fewer than colours, so that the eleventh arm has the first colour and another marker."""
LINES = ("-", "--", "-.", ":")


def check_matplotlib(extra: str = "figures", otherwise: str = "") -> None:
    """Refuse to draw without matplotlib.

    Args:
        extra: of polyres, which brings it.
        otherwise: what to do without it, such as "add --no-figures".

    Raises:
        ConfigError: saying how to install it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        remedy = f"install it with pip install 'polyres[{extra}]'" + (f", or {otherwise}" if otherwise else "")
        raise ConfigError(f"figures need matplotlib; {remedy}") from error


def canvas(columns: int, rows: int = 1, width: float = 3.4, height: float = 2.8) -> tuple[Figure, list[Axes]]:
    """Make a figure with panels, without touching matplotlib's global state.

    Args:
        width: of a panel in inches.
        height: of a panel in inches.

    Returns:
        The figure and its panels, row by row.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    axes: Any = figure.subplots(rows, columns, squeeze=False)
    return figure, list(axes.flat)


def colour(index: int) -> str:
    """Return the colour of the arm or source at a place."""
    return COLOURS[index % len(COLOURS)]


def marker(index: int) -> str:
    """Return the marker of the arm at a place."""
    return MARKERS[index % len(MARKERS)]


def line(index: int) -> str:
    """Return the style of the line of the arm at a place; it changes where the colours start again."""
    return LINES[index // len(COLOURS) % len(LINES)]


def resolution_colours(count: int) -> list[Any]:
    """Return ordered colours, dark for short windows."""
    from matplotlib import colormaps

    return [colormaps["viridis"](0.9 * index / max(count - 1, 1)) for index in range(count)]


def tidy(panel: Axes) -> None:
    """Leave out what carries no information: upper and right frame; draw a light grid."""
    panel.grid(alpha=0.25)
    panel.set_axisbelow(True)
    panel.spines[["top", "right"]].set_visible(False)


def spare(panels: Sequence[Axes], used: int) -> None:
    """Hide the panels that nothing was drawn into."""
    for panel in panels[used:]:
        panel.set_visible(False)
