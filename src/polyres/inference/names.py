"""Folder names for tracks and models."""

from __future__ import annotations

from pathlib import Path

from polyres.data.names import safe_name
from polyres.models.registry import DEFAULT, EMBEDDED

# Below the 255 bytes that file systems take, so that an ending or a number still fits.
MAX_FOLDER_BYTES = 240


def folder_name(text: str) -> str:
    """Turn any text into one folder name that is safe on every system and leaves room for a number."""
    return safe_name(text, MAX_FOLDER_BYTES)


def model_label(name_or_path: str) -> str:
    """Folder name for the results of a model.

    Args:
        name_or_path: a known name, or the path of a file or folder with weights.

    Returns:
        The name itself, of the default that of its model; of a path its last part without the ending.
    """
    if name_or_path == DEFAULT:
        return EMBEDDED
    path = Path(name_or_path).expanduser()
    if path.is_file():
        return folder_name(path.stem)
    return folder_name(path.resolve().name if path.is_dir() else name_or_path)
