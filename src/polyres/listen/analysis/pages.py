"""Sections of a report, as Markdown and as HTML."""

from __future__ import annotations

import base64
import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from polyres.core.tables import MISSING, Table, number

_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:2rem auto;padding:0 1rem;color:#1b1b1b;background:#fff}
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}
th,td{padding:.25rem .7rem;border-bottom:1px solid #ccc;text-align:right;white-space:nowrap}
th.t,td.t{text-align:left}caption{text-align:left;font-weight:600;padding:.3rem 0}
figure{margin:1.5rem 0}img{max-width:100%;height:auto}figcaption{color:#555}
.warning{border-left:.4rem solid #d55e00;background:#fff4ec;padding:.6rem 1rem}.note{color:#555}
"""


@dataclass(frozen=True)
class Section:
    """A part of a report."""

    title: str
    text: tuple[str, ...] = ()  # paragraphs
    tables: tuple[Table, ...] = ()  # below the text
    figures: Mapping[str, str] = field(default_factory=dict)  # file name -> caption, below the tables
    warning: bool = False  # whether the text is a warning


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

    `images`: file name -> PNG; those that a section shows are put into the page.
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
