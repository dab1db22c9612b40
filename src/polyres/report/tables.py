"""Tables as LaTeX with the rules of booktabs."""

from __future__ import annotations

import re
from collections.abc import Collection

from polyres.core.tables import MISSING, Table

SPECIAL = {
    "\\": r"\textbackslash{}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "±": r"$\pm$",
    "−": r"$-$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    MISSING: "--",
    "…": r"\ldots{}",
    "\u202f": r"\,",
    "\u00a0": r"~",
}
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
"""What would break a line of a table, or LaTeX refuses."""
NUMBERED = re.compile(r"^Table \d+\. ")
"""LaTeX numbers tables itself."""
PREAMBLE = "% needs \\usepackage{booktabs}\n"


def escape(text: str) -> str:
    """Escape a text for LaTeX; line breaks become spaces."""
    escaped = "".join(SPECIAL.get(letter, letter) for letter in CONTROLS.sub(" ", text))
    return re.sub(r"(?<![\w$])-(?=\d)", "$-$", escaped)


def latex_table(table: Table, label: str, bold: Collection[tuple[int, int]] = ()) -> str:
    """Word a table as LaTeX, in a floating environment of its own.

    Args:
        table: its title becomes the caption, its notes small lines below.
        label: for `\\ref`.
        bold: cells (row, column) to print in bold.

    Returns:
        Source that needs the package booktabs.
    """
    columns = "".join("l" if place < table.text_columns else "r" for place in range(len(table.header)))
    lines = [
        PREAMBLE + r"\begin{table}[t]",
        r"  \centering",
        rf"  \caption{{{escape(NUMBERED.sub('', table.title))}}}",
        rf"  \label{{{label}}}",
        rf"  \begin{{tabular}}{{{columns}}}",
        r"    \toprule",
        f"    {_row(table.header)}",
        r"    \midrule",
    ]
    for number, row in enumerate(table.rows):
        cells = [
            rf"\textbf{{{escape(cell)}}}" if (number, place) in bold else escape(cell) for place, cell in enumerate(row)
        ]
        lines.append("    " + " & ".join(cells) + r" \\")
    lines += [r"    \bottomrule", r"  \end{tabular}"]
    for note in table.notes:
        lines.append(rf"  \par\smallskip\footnotesize {escape(note)}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _row(cells: tuple[str, ...]) -> str:
    return " & ".join(escape(cell) for cell in cells) + r" \\"
