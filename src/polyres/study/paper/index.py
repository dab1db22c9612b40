"""The index of a paper: everything at a glance, as Markdown and as one page of HTML."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

from polyres.core.tables import MISSING, Table
from polyres.study.claims.base import FAILS, HOLDS, UNDECIDED, VERDICTS, Judged
from polyres.study.paper.tables import PaperTable

TITLE = "Results"
COLOURS = {HOLDS: "#cdeccf", FAILS: "#f6cfcf", UNDECIDED: "#f5ebc4"}
STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 0.5rem 0 } .wide { overflow-x: auto }
th, td { padding: 0.2rem 0.6rem; border-bottom: 1px solid #ddd; text-align: right; vertical-align: top }
th { border-bottom: 2px solid #888 } .text { text-align: left } img { max-width: 100% }
figure { margin: 1.5rem 0 } .note { color: #555; font-size: 0.9em } h2 { margin-top: 2.5rem }
"""


@dataclass(frozen=True)
class Shown:
    """A figure: the name of its files and its caption."""

    name: str
    caption: str


def _counts(claims: Sequence[Judged]) -> str:
    counts = ", ".join(f"{sum(one.verdict == verdict for one in claims)} {verdict}" for verdict in VERDICTS)
    return f"{len(claims)} claims: {counts}."


def claims_table(claims: Sequence[Judged]) -> Table:
    """List claims and verdicts."""
    table = Table("", ("claim", "said in", "verdict", "size tested", "rows of evidence"), text_columns=4)
    for one in claims:
        about = (one.claim.statement, one.claim.place, one.verdict, one.sizes() or MISSING)
        table.rows.append((*about, str(len(one.evidence))))
    return table


def index_markdown(
    studies: Sequence[str],
    tables: Sequence[PaperTable],
    figures: Sequence[Shown],
    claims: Sequence[Judged],
    notes: Sequence[str],
) -> str:
    """Return the index as Markdown."""
    parts = [f"# {TITLE}", "", *(f"- {line}" for line in studies), ""]
    parts += [
        "## Claims",
        "",
        f"{_counts(claims)} Evidence: [claims.md](claims.md).",
        "",
        claims_table(claims).markdown(),
    ]
    parts += ["## Tables", ""]
    for one in tables:
        parts += [one.markdown(), f"[LaTeX](tables/{one.name}.tex)", ""]
    if figures:
        parts += ["## Figures", ""]
    for figure in figures:
        parts += [
            f"![{figure.caption}](figures/{figure.name}.png)",
            "",
            f"{figure.caption} [PDF](figures/{figure.name}.pdf)",
            "",
        ]
    if notes:
        parts += ["## What is missing", "", *(f"- {note}" for note in notes), ""]
    return "\n".join(parts)


def index_html(
    studies: Sequence[str],
    tables: Sequence[PaperTable],
    figures: Sequence[Shown],
    claims: Sequence[Judged],
    notes: Sequence[str],
) -> str:
    """Return the index as a page of HTML."""
    e = html.escape
    parts = ["<!doctype html>", '<html lang="en"><head><meta charset="utf-8">', f"<title>{TITLE}</title>"]
    parts += [f"<style>{STYLE}</style></head><body>", f"<h1>{TITLE}</h1>"]
    parts += ["<ul>", *(f"<li>{e(line)}</li>" for line in studies), "</ul>", "<h2>Claims</h2>"]
    parts += [f'<p>{e(_counts(claims))} Evidence: <a href="claims.md">claims.md</a>.</p>', _table(claims_table(claims))]
    parts.append("<h2>Tables</h2>")
    for one in tables:
        parts += [_table(one.table, one.bold), f'<p><a href="tables/{e(one.name)}.tex">LaTeX</a></p>']
    parts.append("<h2>Figures</h2>" if figures else "")
    for figure in figures:
        path, caption = e(f"figures/{figure.name}"), e(figure.caption)
        image = f'<img src="{path}.png" alt="{caption}">'
        parts.append(f'<figure>{image}<figcaption>{caption} <a href="{path}.pdf">PDF</a></figcaption></figure>')
    if notes:
        parts += ["<h2>What is missing</h2><ul>", *(f"<li>{e(note)}</li>" for note in notes), "</ul>"]
    return "\n".join([*(part for part in parts if part), "</body></html>"]) + "\n"


def _table(table: Table, bold: frozenset[tuple[int, int]] = frozenset()) -> str:
    def cell(tag: str, text: str, column: int, strong: bool = False) -> str:
        kind = ' class="text"' if column < table.text_columns else ""
        shade = f' style="background: {COLOURS[text]}"' if text in COLOURS else ""
        inner = f"<strong>{html.escape(text)}</strong>" if strong else html.escape(text)
        return f"<{tag}{kind}{shade}>{inner}</{tag}>"

    lines = [f"<h3>{html.escape(table.title)}</h3>" if table.title else "", '<div class="wide"><table>']
    lines.append("<tr>" + "".join(cell("th", text, column) for column, text in enumerate(table.header)) + "</tr>")
    for place, row in enumerate(table.rows):
        cells = (cell("td", text, column, (place, column) in bold) for column, text in enumerate(row))
        lines.append("<tr>" + "".join(cells) + "</tr>")
    lines.append("</table></div>")
    lines += [f'<p class="note">{html.escape(note)}</p>' for note in table.notes]
    return "\n".join(line for line in lines if line)
