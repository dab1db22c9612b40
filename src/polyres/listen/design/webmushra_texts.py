"""Parse the YAML of webMUSHRA configurations leniently and convert their HTML to text."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from polyres.core.errors import ConfigError
from polyres.core.json_text import bounded_bytes
from polyres.core.yaml_files import read_yaml, yaml_value

_KEY = re.compile(r"^(\s*(?:-\s+)*)([A-Za-z_][\w-]*):(?:\s+(.*?))?\s*$")
_COMMENT = re.compile(r"\s+#.*$")
_BLOCK = re.compile(r"[|>][+-]?\d*$")


def read_config(path: Path, report: Callable[[str], None]) -> dict[str, Any]:
    """Read a recipe or a webMUSHRA configuration, whose texts may hold ": " without quotes as its own parser allows.

    Args:
        report: receives one line that says which lines were read as text.

    Raises:
        ConfigError: if it is missing or no YAML; nested values have to be as YAML wants them.
    """
    try:
        return read_yaml(path)
    except ConfigError as error:
        try:
            text = bounded_bytes(path).decode()
        except (OSError, ValueError):
            raise error from None
        if not re.search(r"^pages:", text, re.MULTILINE):
            raise
        quoted, numbers = _with_quotes(text)
        try:
            values = yaml_value(quoted)
        except ValueError as problem:
            raise ConfigError(f"{path}: not valid YAML ({problem}); put quotes around the text there") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: holds {type(values).__name__}, but a config is a mapping of names to values")
    report(f"note: {path}: read as plain text, line {', '.join(map(str, numbers))}; quotes would make it valid YAML")
    return values


def _with_quotes(text: str) -> tuple[str, list[int]]:
    """Quote single-line values that are not valid YAML; return the line numbers."""
    lines, numbers, at = text.splitlines(), [], 0
    while at < len(lines):
        found = _KEY.match(lines[at])
        start, at = at, at + 1
        if found is None or not found[3]:
            continue
        value = _COMMENT.sub("", found[3])
        if _BLOCK.match(value):
            at = _end(lines, at, len(found[1]))
        elif value[0] in "\"'":
            while not _is_closed(value) and at < len(lines):
                value, at = lines[at].rstrip(), at + 1
                value = found[3][0] + value
        elif value[0] not in "[{&*!#|>":
            at = _end(lines, at, len(found[1]), texts=True)
            rest = [_COMMENT.sub("", line.strip()) for line in lines[start + 1 : at] if line.strip()]
            whole = " ".join([value, *rest])
            if ": " in whole or whole.endswith(":") or value[0] in "%@`":
                quoted = whole.replace("'", "''")
                lines[start:at] = [f"{found[1]}{found[2]}: '{quoted}'", *[""] * (at - start - 1)]
                numbers.append(start + 1)
    return "\n".join(lines) + "\n", numbers


def _is_closed(value: str) -> bool:
    return len(value) > 1 and value[-1] == value[0]


def _end(lines: list[str], at: int, indent: int, texts: bool = False) -> int:
    """Return where lines that stand further in than a key end; of texts, where something like a key comes."""
    while at < len(lines):
        line = lines[at]
        if line.strip() and (len(line) - len(line.lstrip()) <= indent or (texts and _KEY.match(line))):
            break
        at += 1
    return at


def plain_text(content: Any) -> str:
    """Turn the HTML of a page into text. `content`: None for nothing."""
    text = "" if content is None else str(content)
    broken = re.sub(r"<\s*(br|/p|/div|/h\d|/li)\s*/?>", "\n", text, flags=re.IGNORECASE)
    lines = html.unescape(re.sub(r"<[^>]*>", "", broken)).splitlines()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(" ".join(line.split()) for line in lines)).strip()


def identifier(text: str) -> str:
    """Return a text as names of studies and questions are written."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:64] or "study"


def questions(pages: Iterable[Mapping[str, Any]], say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Return the questionnaires of all pages as one."""
    found = []
    for page in pages:
        for field in page.get("questionnaire") or ():
            name, kind = identifier(str(field.get("name", ""))), str(field.get("type", "text"))
            question: dict[str, Any] = {"name": name, "question": str(field.get("label") or name)}
            question["required"] = field.get("optional") is False
            if kind in ("likert", "slider") and field.get("response"):
                choices = [str(answer.get("label", answer.get("value"))) for answer in field["response"]]
                question |= {"type": "choice", "choices": choices}
            elif kind in ("number", "text", "long_text"):
                question["type"] = "number" if kind == "number" else "text"
            else:
                say(f"warning: question {name!r} of type {kind!r} is left out")
                continue
            found.append(question)
    return found
