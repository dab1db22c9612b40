"""JSON that others wrote: read within limits of length and depth, plain finite values, every key once."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import Any

MOST_BYTES = 64 * 2**20
"""Longest text that is read; the largest files of ours, results of evaluations, stay far below."""
MOST_DEPTH = 64
"""Deepest nesting of lists and mappings; ours stay below ten."""

MOST_DIGITS = 300
"""Longest whole number, so that every one fits into a float."""


def json_value(text: str | bytes, special: bool = False, most_bytes: int = MOST_BYTES) -> Any:
    """Read one JSON value.

    `text`: the JSON; bytes are UTF-8, with or without a byte order mark. `special`: whether NaN and Infinity, which are
    not JSON but which Python writes, may stand in it. Raises ValueError when the text is no JSON, too long or too deep,
    names a key twice, or holds half a character (a lone surrogate), which no file can be written with.
    """
    if len(text) > most_bytes:
        raise ValueError(f"longer than {most_bytes} bytes")
    plain = text.decode("utf-8-sig") if isinstance(text, bytes) else text
    constant, number = (float, float) if special else (_refused, _finite)
    try:
        value = json.loads(
            plain, parse_constant=constant, parse_float=number, parse_int=_whole, object_pairs_hook=_unique
        )
    except RecursionError:
        raise ValueError(f"nested deeper than {MOST_DEPTH}") from None
    if plain.count("[") + plain.count("{") > MOST_DEPTH:
        check_depth(value)
    if "\\u" in plain:
        json.dumps(value, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    return value


def json_file(path: Path, special: bool = False, most_bytes: int = MOST_BYTES) -> Any:
    """Read a file of one JSON value; see `json_value`.

    `special`: whether NaN and Infinity may stand in it. Raises OSError when it cannot be read; ValueError when it is no
    JSON or breaks a limit.
    """
    return json_value(bounded_bytes(path, most_bytes), special, most_bytes)


def bounded_bytes(path: Path, most_bytes: int = MOST_BYTES) -> bytes:
    """Read a file that must not be longer than a limit; pipes and devices, which have no end, are not opened.

    Raises OSError when it cannot be read; ValueError when it is longer, or no file.
    """
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError("a pipe or a device, not a file")
    with path.open("rb") as file:
        content = file.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise ValueError(f"longer than {most_bytes} bytes")
    return content


def check_depth(value: Any, most: int = MOST_DEPTH) -> None:
    """Refuse values that are nested too deep to be walked through safely."""
    layer, depth = [value], 0
    while layer := [one for one in layer if isinstance(one, (dict, list))]:
        depth += 1
        if depth > most:
            raise ValueError(f"nested deeper than {most}")
        layer = [inner for one in layer for inner in (one.values() if isinstance(one, dict) else one)]


def _refused(text: str) -> Any:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:40]} is too large")
    return value


def _whole(text: str) -> int:
    if len(text) > MOST_DIGITS:
        raise ValueError(f"a number of {len(text)} digits")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"key {twice[:40]!r} stands twice")
    return values
