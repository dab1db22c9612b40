"""Tables and pages as Markdown and HTML."""

from __future__ import annotations

import math

from polyres.core.tables import Table
from polyres.listen.analysis.pages import Section, html_page, interval, markdown_page, probability

TABLE = Table("Scores", ("name", "mean"), [("a|b", "1.0"), ("<c>", "2.0")], notes=("Means.",))


def test_html_escapes_what_others_have_written() -> None:
    page = html_page("<t>", [Section("<s>", ("<p>",), (TABLE,), {"x.png": '"<f>'}, True)], {"x.png": b"png"})
    for raw in ("<t>", "<s>", "<p>", "<c>", "<f>"):
        assert raw not in page.replace("<p>Means", "").replace('<p class="warning">', "")
    assert 'src="data:image/png;base64,cG5n"' in page
    assert 'class="warning"' in page


def test_markdown_pages_link_their_figures() -> None:
    page = markdown_page(
        "Title", [Section("", ("Careful.",), warning=True), Section("One", (), (TABLE,), {"x.png": "X"})]
    )
    assert page.startswith("# Title\n\n> **Careful.**\n\n## One\n\n**Scores**")
    assert page.endswith("![X](x.png)\n")


def test_intervals_and_probabilities() -> None:
    assert interval(1.0, 2.0, signed=True) == "+1.0 to +2.0"
    assert interval(math.nan, 2.0) == "–"
    assert [probability(p) for p in (1e-9, 0.00123, 0.0412, 0.5, 1.0, math.nan)] == [
        "<0.0001",
        "0.0012",
        "0.041",
        "0.50",
        "1.00",
        "–",
    ]
