"""Tables and sections of a report, as Markdown and as HTML."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

MISSING = "–"
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .7rem;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}
th.t,td.t{text-align:left}caption{text-align:left;font-weight:600;padding:.3rem 0}
figure{margin:1.5rem 0}img{max-width:100%;height:auto}figcaption{color:#555}
.warning{border-left:.4rem solid #d55e00;background:#fff4ec;padding:.6rem 1rem}.note{color:#555}
"""


@dataclass(frozen=True)
class Table:
    """A table of text.

    Attributes:
        title: one line above it; none if empty.
        header: names of the columns; the first `text_columns` are aligned left, all others right.
        rows: one text per column each.
        text_columns: how many columns hold words.
        notes: lines below it.
    """

    title: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]] = ()
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


@dataclass(frozen=True)
class Section:
    """A part of a report.

    Attributes:
        title: heading.
        text: paragraphs.
        tables: below the text.
        figures: file name -> caption, below the tables.
        warning: whether the text is a warning.
    """

    title: str
    text: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    figures: Mapping[str, str] = field(default_factory=dict)
    warning: bool = False


def markdown_page(title: str, sections: Sequence[Section]) -> str:
    """Write sections as one Markdown page; figures are linked by their file names."""
    parts = [f"# {title}"]
    for section in sections:
        if section.title:
            parts.append(f"## {section.title}")
        parts += [f"> **{text}**" if section.warning else text for text in section.text]
        parts += [table.markdown().rstrip() for table in section.tables]
        parts += [f"![{caption}]({name})" for name, caption in section.figures.items()]
    return "\n\n".join(parts) + "\n"


def html_page(title: str, sections: Sequence[Section], images: Mapping[str, bytes]) -> str:
    """Write sections as one HTML page that needs no other file.

    Args:
        title: of the page.
        sections: its parts.
        images: file name -> PNG; those that a section shows are put into the page.
    """
    parts = [f"<h1>{html.escape(title)}</h1>"]
    for section in sections:
        if section.title:
            parts.append(f"<h2>{html.escape(section.title)}</h2>")
        mark = ' class="warning"' if section.warning else ""
        parts += [f"<p{mark}>{html.escape(text)}</p>" for text in section.text]
        parts += [table.html() for table in section.tables]
        for name, caption in section.figures.items():
            data = base64.b64encode(images[name]).decode()
            words = html.escape(caption)
            picture = f'<img alt="{words}" src="data:image/png;base64,{data}">'
            parts.append(f"<figure>{picture}<figcaption>{words}</figcaption></figure>")
    body = "\n".join(parts)
    head = (
        f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{html.escape(title)}</title>'
    )
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}<style>{_STYLE}</style></head><body>\n{body}\n</body></html>\n'
    )


def number(value: float | None, digits: int = 1, signed: bool = False) -> str:
    """Write a number with so many digits after the point; a dash where it is missing or NaN."""
    if value is None or math.isnan(value):
        return MISSING
    rounded = round(value, digits) + 0.0  # no minus sign before zero
    return f"{rounded:+.{digits}f}" if signed and rounded else f"{rounded:.{digits}f}"


def interval(low: float, high: float, digits: int = 1, signed: bool = False) -> str:
    """Write an interval as "low to high"; a dash where it is missing."""
    if math.isnan(low) or math.isnan(high):
        return MISSING
    return f"{number(low, digits, signed)} to {number(high, digits, signed)}"


def probability(value: float) -> str:
    """Write a p-value with two digits that count; a dash where it is missing."""
    if math.isnan(value):
        return MISSING
    return "<0.0001" if value < 1e-4 else f"{value:.2g}" if value < 0.1 else f"{value:.2f}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
