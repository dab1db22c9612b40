"""Tables as LaTeX."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from polyres.core.tables import Table
from polyres.report.tables import escape, latex_table

CELL = st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=12)


def rows_of(source: str) -> list[list[str]]:
    """Parse the cells of the rows between the rules; fails where environments do not balance."""
    opened: list[str] = []
    for kind, name in re.findall(r"\\(begin|end)\{(\w+)\}", source):
        if kind == "begin":
            opened.append(name)
        else:
            assert opened.pop() == name
    assert not opened
    depth = 0
    for letter in re.sub(r"\\[{}\\]", "", source):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        assert depth >= 0
    assert depth == 0
    body = source[source.index(r"\toprule") : source.index(r"\bottomrule")]
    lines = [line.strip() for line in body.splitlines() if line.strip().endswith(r"\\")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)&", line[:-2])] for line in lines]


def test_a_table() -> None:
    table = Table(
        "Table 1. 50 % of A_B & C", ("model", "a_b", "nSDR"), [("x_1", "3 & 4", "-1.5"), ("y", "–", "2.0")], 2, ("# 1",)
    )
    source = latex_table(table, "tab:one", {(1, 2)})
    assert rows_of(source) == [
        ["model", r"a\_b", "nSDR"],
        [r"x\_1", r"3 \& 4", r"$-$1.5"],
        ["y", "--", r"\textbf{2.0}"],
    ]
    assert r"\begin{tabular}{llr}" in source
    assert r"\caption{50 \% of A\_B \& C}" in source
    assert r"\label{tab:one}" in source
    assert r"\footnotesize \# 1" in source
    assert source.index(r"\toprule") < source.index(r"\midrule") < source.index(r"\bottomrule")


def test_every_special_letter() -> None:
    assert escape("_%&#${}") == r"\_\%\&\#\$\{\}"
    assert escape("a\\b~^") == r"a\textbackslash{}b\textasciitilde{}\textasciicircum{}"
    assert escape("a\nb\x85c\u2028d\x00e") == "a b c d e"
    assert escape("1.2 ± 0.1 × −3") == r"1.2 $\pm$ 0.1 $\times$ $-$3"
    assert escape("2048-4096, -5 to -4") == "2048-4096, $-$5 to $-$4"


@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=4))
def test_any_text_keeps_the_columns(rows: list[tuple[str, str, str]]) -> None:
    source = latex_table(Table("any", ("a", "b", "c"), list(rows)), "tab:any")
    assert [len(row) for row in rows_of(source)] == [3] * (len(rows) + 1)
    for cell in (cell for row in rows for cell in row):
        assert not re.search(r"(?<!\\)[_%&#]", escape(cell))
