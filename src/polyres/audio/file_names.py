"""File names: safe on every system, short enough, and fit to show in one line of text."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata

MAX_NAME_BYTES = 255

_FORBIDDEN = re.compile(r'[<>:"/\\|?*\x00-\x1f\x7f\ud800-\udfff]')
_RESERVED = re.compile(r"(con|prn|aux|nul|com[1-9]|lpt[1-9])(\..*)?", re.IGNORECASE)
_EXTENSION = re.compile(r"(\.stem)?\.[A-Za-z0-9]{1,8}")


def safe_name(text: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Turn any text into one file or folder name that Linux, macOS and Windows accept.

    A name that is too long loses its middle part to a short hash of the whole, so that two long names which
    begin alike stay apart; its extension is kept.

    Args:
        text: The wanted name, any Unicode text.
        max_bytes: Longest result in bytes of UTF-8, 32 or more.

    Returns:
        The name: never empty, without path separators, at most `max_bytes` bytes, characters whole.
    """
    name = _FORBIDDEN.sub("_", text).rstrip(". ")
    if not name:
        return "_"
    if _RESERVED.fullmatch(name):
        name = f"_{name}"
    return shorten_name(name, max_bytes)


def shorten_name(name: str, max_bytes: int = MAX_NAME_BYTES) -> str:
    """Cut a name to `max_bytes` bytes of UTF-8 between characters, keeping its extension and adding a hash."""
    raw = os.fsencode(name)
    if len(raw) <= max_bytes:
        return name
    found = _EXTENSION.search(name, max(len(name) - 14, 0))
    extension = found.group() if found and found.end() == len(name) else ""
    ending = f"~{hashlib.sha256(raw).hexdigest()[:8]}{extension}"
    return _head(name, max_bytes - len(ending)).rstrip(". ") + ending


def _head(name: str, max_bytes: int) -> str:
    """Return the longest beginning of at most `max_bytes` bytes that parts no letter from its marks."""
    used, end = 0, 0
    for end, character in enumerate(name):  # noqa: B007 - the index is used after the loop
        used += len(os.fsencode(character))
        if used > max_bytes:
            break
    else:
        return name
    while end > 0 and unicodedata.combining(name[end]):
        end -= 1
    return name[:end]


def shown(path: str | os.PathLike[str]) -> str:
    """Return the path as text for a one-line message: line breaks and unprintable characters become `?`."""
    text = os.fspath(path)
    return "".join(character if character.isprintable() else "?" for character in text)
