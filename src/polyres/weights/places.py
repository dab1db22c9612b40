"""Where weights lie, and what they are called there."""

from __future__ import annotations

import os
import sys
from pathlib import Path

RUN_FILE = "best.safetensors"
EMBEDDED_FOLDER = Path(__file__).parent / "embedded"
"""Weights that are part of the package."""


def weights_file(path: str | Path) -> Path:
    """The weight file meant by a path: the path itself, or `best.safetensors` in a folder."""
    given = Path(os.path.expanduser(path))
    return given / RUN_FILE if os.path.isdir(given) else given


def cache_folder() -> Path:
    """Folder of downloaded weights: `POLYRES_CACHE` where set, else below the platform's cache folder."""
    chosen = os.environ.get("POLYRES_CACHE")
    if chosen:
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "polyres"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "polyres" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "polyres"
