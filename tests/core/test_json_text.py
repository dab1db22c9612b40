from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from polyres.core.json_text import MOST_DEPTH, bounded_bytes, json_file, json_value

REFUSED: dict[str, str | bytes] = {
    "deep list": "[" * 100_000,
    "deep list, closed": "[" * 900 + "]" * 900,
    "one too deep": "[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1),
    "deep mapping": '{"a":' * 100_000,
    "deep mapping, closed": '{"a":' * 500 + "1" + "}" * 500,
    "NaN": "[NaN]",
    "infinity": '{"a": -Infinity}',
    "beyond double": "[1e999]",
    "5000 digits": "1" * 5000,
    "twice": '{"a": 1, "a": 2}',
    "twice, inside": '[{"b": {"a": 1, "a": 2}}]',
    "lone surrogate": r'["\ud800"]',
    "lone surrogate in a key": r'{"\udc00": 1}',
    "empty": "",
    "not UTF-8": b'"\xff"',
    "two values": "1 2",
    "words": "nan",
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
def test_what_is_no_plain_json_is_a_value_error_of_one_line(text: str | bytes) -> None:
    with pytest.raises(ValueError) as found:  # noqa: PT011  (texts are Python's own for some)
        json_value(text)
    assert "\n" not in str(found.value)
    assert len(str(found.value)) < 200


def test_plain_values_come_back() -> None:
    deep = "[" * MOST_DEPTH + "]" * MOST_DEPTH
    assert json_value(deep) is not None
    assert json_value('\ufeff{"a": [1, -0.5, 1e308, true, null, "\\ud83c\\udfb5["]}'.encode()) == {
        "a": [1, -0.5, 1e308, True, None, "🎵["]
    }
    assert math.isnan(json_value("[NaN]", special=True)[0])
    assert json_value("[1e999]", special=True) == [math.inf]


def test_length_is_limited_before_anything_is_parsed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^longer than 4 bytes$"):
        json_value("[1,2]", most_bytes=4)
    path = tmp_path / "a.json"
    path.write_text("[1,2]")
    assert json_file(path, most_bytes=5) == [1, 2]
    with pytest.raises(ValueError, match=r"^longer than 4 bytes$"):
        json_file(path, most_bytes=4)
    with pytest.raises(FileNotFoundError):
        json_file(tmp_path / "b.json")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no named pipes")
def test_pipes_and_devices_are_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")  # opening it would wait for a writer
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(ValueError, match="not a file"):
            bounded_bytes(path)
