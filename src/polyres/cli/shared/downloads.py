"""Files of models and codecs that are known by name."""

from __future__ import annotations

from pathlib import Path

from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import UnknownNameError, WeightsError
from polyres.separation.registry import DEFAULT, known_models
from polyres.weights.hub import (
    OFFICIAL,
    REFUSED,
    fetch,
)


def weight_files(name: str) -> list[Path]:
    """Return the files of a model or codec known by name, downloading them where they are not here.

    Args:
        name: a name of `known_models()` or of a codec.

    Returns:
        The files; none for what is part of the package.

    Raises:
        UnknownNameError: for a name that is not known; suggests the nearest.
        WeightsError: when a model cannot be read by polyres, or a download is not the file it should be.
        OfflineError: when a file can be had from nowhere.
        OutputError: when the cache folder cannot be written.
    """
    from polyres.codec.audioldm2.parts import REPOSITORIES, hub_folder
    from polyres.codec.registry import known_codecs

    if name in OFFICIAL:
        return fetch(OFFICIAL[name])
    if name in REFUSED:
        raise WeightsError(f"{name} is {REFUSED[name]}; only the transformer models can be read: {', '.join(OFFICIAL)}")
    if name in REPOSITORIES:
        return sorted(path for path in hub_folder(name).rglob("*") if path.is_file())
    known = [DEFAULT, *(model.name for model in known_models()), *(codec.name for codec in known_codecs())]
    if name not in known:
        raise UnknownNameError(unknown_name_message("model", name, known))
    return []
