"""Draw docs/rooms.png: the rooms of the package, how large they are, and which imports which.

python docs/rooms_figure.py
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path

import grimp
import matplotlib.pyplot as plt
import numpy as np

ROOT = Path(__file__).parents[1]
CONTRACT = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]


def rooms_by_level() -> list[list[str]]:
    """Read the levels of the import contract, lowest first."""
    return [[room.strip() for room in level.split("|")] for level in reversed(CONTRACT["layers"])]


def imports_between() -> Counter[tuple[str, str]]:
    """Count the modules of each room that import something of another."""
    graph = grimp.build_graph("polyres")
    found: Counter[tuple[str, str]] = Counter()
    for module in graph.modules:
        targets = {target.split(".")[1] for target in graph.find_modules_directly_imported_by(module) if "." in target}
        if "." in module:
            found.update((module.split(".")[1], target) for target in targets - {module.split(".")[1]})
    return found


def lines_of(room: str) -> int:
    """Count the lines of a room."""
    return sum(len(path.read_text().splitlines()) for path in (ROOT / "src" / "polyres" / room).rglob("*.py"))


def draw() -> None:
    """Draw a table: how many modules of a row's room import something of a column's."""
    rooms = [room for level in reversed(rooms_by_level()) for room in level]
    counts = imports_between()
    table = np.array([[counts[upper, lower] for lower in rooms] for upper in rooms])
    figure, axes = plt.subplots(figsize=(9, 6.5))
    axes.imshow(np.sqrt(table), cmap="Blues", vmax=12)
    for row, column in zip(*np.nonzero(table), strict=True):
        axes.text(
            column, row, table[row, column], ha="center", va="center", color="k" if table[row, column] < 60 else "w"
        )
    axes.set_xticks(range(len(rooms)), rooms, rotation=45, ha="left")
    axes.set_yticks(range(len(rooms)), [f"{room}  {lines_of(room) / 1000:.1f} k lines" for room in rooms])
    axes.xaxis.tick_top()
    axes.set_xlabel("Modules of the room at the left that import the room above: all right of the diagonal")
    axes.plot([-0.5, len(rooms) - 0.5], [-0.5, len(rooms) - 0.5], color="0.6", linewidth=0.8)
    figure.savefig(ROOT / "docs" / "rooms.png", dpi=100, bbox_inches="tight", metadata={"Software": None})


if __name__ == "__main__":
    draw()
