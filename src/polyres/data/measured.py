"""What was measured of the files of a data set, kept beside them: a JSON file in the root, or in the user's cache."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from polyres.core.errors import InputError, OutputError
from polyres.core.json_text import json_file
from polyres.core.whole_files import write_whole
from polyres.data.names import shown

_HASH_WINDOWS = 8
_HASH_BYTES = 1 << 14

Entries = dict[str, dict[str, Any]]


def content_stamp(path: Path) -> str:
    """Return what changes with the content of a file: a hash of its size and of windows from its head to its tail.

    Args:
        path: the file.

    Returns:
        32 hexadecimal digits. A copy has the same ones.

    Raises:
        InputError: if the file is missing or cannot be opened.
    """
    try:
        size = path.stat().st_size
        digest = hashlib.sha256(str(size).encode())
        with path.open("rb") as file:
            for window in range(_HASH_WINDOWS):
                file.seek(max(size - _HASH_BYTES, 0) * window // (_HASH_WINDOWS - 1))
                digest.update(file.read(_HASH_BYTES))
    except OSError as error:
        raise InputError(f"{shown(path)} cannot be opened ({error.strerror}); restore it or take it away") from error
    return digest.hexdigest()[:32]


def load_measured(root: Path, name: str, version: int) -> Entries:
    """Read what was kept, empty where there is nothing of this version.

    Args:
        root: folder of the data set.
        name: file name in the root, such as `.polyres_index.json`.
        version: of the content.

    Returns:
        Entries by key.
    """
    for place in _places(root, name):
        try:
            content = json_file(place)
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("format") == version:
            entries: Entries = content["files"]
            return entries
    return {}


def save_measured(root: Path, name: str, version: int, entries: Entries) -> None:
    """Keep entries in the root, or in the user's cache folder where the root is read-only.

    Args:
        root: folder of the data set.
        name: file name in the root.
        version: of the content.
        entries: by key.
    """
    text = json.dumps({"format": version, "files": entries})
    for place in _places(root, name):
        try:
            write_whole(place, text)
        except OutputError:
            continue
        return


def _places(root: Path, name: str) -> tuple[Path, Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    kind = name.removeprefix(".polyres_").removesuffix(".json")
    return root / name, cache / "polyres" / kind / f"{digest}.json"
