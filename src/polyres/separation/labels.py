"""What models are called."""

from __future__ import annotations

import os
import re
from pathlib import Path

from polyres.batch.jobs import folder_name, run_label
from polyres.core.errors import ConfigError
from polyres.weights.places import RUN_FILE

DEFAULT = "default"
EMBEDDED = "polyres-small"
SCHEME = "hf://"
_REPOSITORY = re.compile(r"[\w.-]+/[\w.-]+")


def model_label(name_or_path: str) -> str:
    """Folder name for the results of a model.

    `name_or_path`: a known name, or the path of a file or folder with weights. Returns the name itself, of the default
    that of its model; of a path its last part without the ending, as it was given even where it is a link; of the best
    weights of a run the name of the run; of a run of a study ARM-seedN.
    """
    if name_or_path == DEFAULT:
        return EMBEDDED
    if name_or_path.startswith(SCHEME):
        return folder_name(repository_of(name_or_path).replace("/", "_"))
    path = Path(os.path.abspath(Path(name_or_path).expanduser()))
    if path.is_dir():
        return run_label(path)
    if path.is_file():
        return run_label(path.parent) if path.name == RUN_FILE else folder_name(path.stem)
    return folder_name(name_or_path)


def repository_of(name: str) -> str:
    """Return the `user/repo` of a name with or without `hf://`; raises ConfigError for anything else."""
    repository = name.removeprefix(SCHEME)
    if not _REPOSITORY.fullmatch(repository):
        raise ConfigError(f"{name!r} is no repository; write USER/REPO, or {SCHEME}USER/REPO to load one")
    return repository
