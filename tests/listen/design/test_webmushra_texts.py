"""Texts of webMUSHRA configurations that its own parser takes and YAML does not."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.core.errors import ConfigError
from polyres.listen.design.webmushra_texts import read_config

TEXT = """
testname: My test: the second   # a comment: stays one
pages:
  - type: generic
    name: Don't: worry
    content: Welcome: read this
      to the end of it
    after: 'quoted: fine'
    long: "two
      lines: fine"
  -
    - random
    - type: mushra
      name: 100%
      intro: @home or `away`
      block: |
        Note: this: stays
      stimuli:
        C1: a.wav
"""


def test_texts_with_colons_are_read_as_their_author_meant_them(tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(TEXT)
    lines: list[str] = []
    values = read_config(path, lines.append)
    generic, group = values["pages"]
    assert values["testname"] == "My test: the second"
    assert generic["name"] == "Don't: worry"
    assert generic["content"] == "Welcome: read this to the end of it"
    assert (generic["after"], generic["long"]) == ("quoted: fine", "two lines: fine")
    mushra = group[1]
    assert (mushra["name"], mushra["intro"]) == ("100%", "@home or `away`")
    assert mushra["block"] == "Note: this: stays\n"
    assert mushra["stimuli"] == {"C1": "a.wav"}
    assert lines == [f"note: {path}: read as plain text, line 2, 5, 6, 15; quotes would make it valid YAML"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("pages:\n  - content: Hello\n      name: x\n", "mapping values are not allowed.*, line 3.; put quotes around"),
        ("pages:\n  - a: 1\n a: 2\n", "line 3.; put quotes around"),
        ("pages:\n  - content: [a: b: c\n", "line [23].; put quotes around"),
        ("pages: &a [*a]\n", "holds itself"),
        ("name: a: b\n", "not valid YAML .mapping values are not allowed.*line 1.$"),
    ],
)
def test_nested_values_stay_strict(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "test.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_config(path, print)


def test_valid_files_are_read_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "test.yaml"
    path.write_text("pages: []\ncontent: 'a: b'\n")
    lines: list[str] = []
    assert read_config(path, lines.append) == {"pages": [], "content": "a: b"}
    assert not lines
