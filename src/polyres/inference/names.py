"""Folder names for tracks and models."""

from __future__ import annotations

import os
import re
from pathlib import Path

from polyres.data.names import safe_name
from polyres.models.registry import DEFAULT, EMBEDDED
from polyres.models.weights import RUN_FILE

# Below the 255 bytes that file systems take, so that an ending or a number still fits.
MAX_FOLDER_BYTES = 240
_SEED = re.compile(r"seed[_-]?\d+")


def folder_name(text: str) -> str:
    """Turn any text into one folder name that is safe on every system and leaves room for a number."""
    return safe_name(text, MAX_FOLDER_BYTES)


def model_label(name_or_path: str) -> str:
    """Folder name for the results of a model.

    Args:
        name_or_path: a known name, or the path of a file or folder with weights.

    Returns:
        The name itself, of the default that of its model; of a path its last part without the ending, as it was given
        even where it is a link; of the best weights of a run the name of the run; of a run of a study ARM-seedN.
    """
    if name_or_path == DEFAULT:
        return EMBEDDED
    path = Path(os.path.abspath(Path(name_or_path).expanduser()))
    if path.is_dir():
        return run_label(path)
    if path.is_file():
        return run_label(path.parent) if path.name == RUN_FILE else folder_name(path.stem)
    return folder_name(name_or_path)


def run_label(path: Path) -> str:
    """Name a folder of weights by its last part; that of one seed of a study also by its arm, which it shares."""
    return folder_name(f"{path.parent.name}-{path.name}" if _SEED.fullmatch(path.name) else path.name)
