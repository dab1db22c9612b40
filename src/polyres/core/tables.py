"""Tables as plain text cells, printed as Markdown, as HTML or by a console."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field

MISSING = "–"

Rows = list[tuple[str, ...]]


@dataclass(frozen=True)
class Table:
    """A table of text."""

    title: str  # one line above it; none if empty
    header: tuple[str, ...]  # names of the columns; the first `text_columns` are aligned left, all others right
    rows: Rows = field(default_factory=list)
    text_columns: int = 1
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """Return the table as Markdown, its title in bold, its notes as lines of text."""
        marks = ["---" if column < self.text_columns else "---:" for column in range(len(self.header))]
        lines = [_line(self.header), _line(marks), *(_line(row) for row in self.rows)]
        above = [f"**{self.title}**", ""] if self.title else []
        below = [part for note in self.notes for part in ("", note)]
        return "\n".join([*above, *lines, *below]) + "\n"

    def html(self) -> str:
        """Return the table as HTML."""

        def cells(row: Sequence[str], tag: str) -> str:
            marks = [' class="t"' if column < self.text_columns else "" for column in range(len(row))]
            return "".join(f"<{tag}{m}>{html.escape(cell)}</{tag}>" for m, cell in zip(marks, row, strict=True))

        caption = f"<caption>{html.escape(self.title)}</caption>" if self.title else ""
        body = "\n".join(f"<tr>{cells(row, 'td')}</tr>" for row in self.rows)
        notes = "".join(f'<p class="note">{html.escape(note)}</p>\n' for note in self.notes)
        head = f"<thead><tr>{cells(self.header, 'th')}</tr></thead>"
        return f"<table>{caption}{head}\n<tbody>\n{body}\n</tbody></table>\n{notes}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """Write a number with so many digits after the point; a dash where it is missing or NaN."""
    if value is None or math.isnan(value):
        return MISSING
    rounded = round(value, digits) + 0.0  # no minus sign before zero
    return f"{rounded:+.{digits}f}" if signed and rounded else f"{rounded:.{digits}f}"


def whole(value: float) -> str:
    """Write a whole number with thin groups of three digits: 41 984 456."""
    return f"{round(value):,}".replace(",", " ")
