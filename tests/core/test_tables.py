"""Tables as Markdown, and numbers as text."""

from __future__ import annotations

import math

import pytest

from polyres.core.tables import Table, number, whole


def test_markdown() -> None:
    table = Table("Sizes", ("name", "size"), [("a|b", "1"), ("c", "2")], notes=("Measured.",))
    assert table.markdown() == ("**Sizes**\n\n| name | size |\n| --- | ---: |\n| a\\|b | 1 |\n| c | 2 |\n\nMeasured.\n")
    assert Table("", ("a",), [("1",)], text_columns=0).markdown() == "| a |\n| ---: |\n| 1 |\n"


@pytest.mark.parametrize(
    ("value", "digits", "signed", "text"),
    [
        (1.005, 1, False, "1.0"),
        (-0.001, 2, True, "0.00"),
        (0.5, 2, True, "+0.50"),
        (-0.5, 2, True, "-0.50"),
        (None, 2, False, "–"),
        (math.nan, 2, False, "–"),
    ],
)
def test_numbers(value: float | None, digits: int, signed: bool, text: str) -> None:
    assert number(value, digits, signed) == text


def test_whole_numbers() -> None:
    assert whole(41_984_456) == "41 984 456"
