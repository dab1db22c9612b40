"""Load separators by name or path, and tell which are known."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import UnknownNameError, WeightsError
from polyres.core.json_text import bounded_bytes
from polyres.core.yaml_files import yaml_value
from polyres.separation.bag import Bag
from polyres.separation.labels import DEFAULT, EMBEDDED, SCHEME
from polyres.separation.model import MUSIC_SOURCES, Separator
from polyres.separation.official import load_official
from polyres.separation.sharing import pull
from polyres.separation.weights import load_separator_weights, read_info
from polyres.weights.files import count_parameters, one_line
from polyres.weights.hub import (
    LICENCE,
    OFFICIAL,
    REFUSED,
    OfficialModel,
    check_name,
    fetch,
    find_file,
    kept_file,
    present_files,
    remark_licence,
    signature_of,
)
from polyres.weights.packages import is_official
from polyres.weights.places import RUN_FILE

SUFFIXES = (".safetensors", ".th", ".pt", ".yaml")
_SIGNATURE = re.compile(r"[\w.-]+")


@dataclass(frozen=True)
class ModelInfo:
    """A model known by name."""

    name: str
    sources: tuple[str, ...]
    parameters: int  # number of parameters; 0 where not known
    licence: str
    source: str
    present: bool


def known_models() -> list[ModelInfo]:
    """List the models that can be loaded by name."""
    infos = [_embedded_info()]
    for model in OFFICIAL.values():
        source = f"https://huggingface.co/{model.repository}"
        present = all(kept_file(model, name) is not None for name in model.files)
        infos.append(ModelInfo(model.name, model.sources, model.parameters, LICENCE, source, present))
    return infos


def load_model(name_or_path: str | Path = DEFAULT, device: str | torch.device = "cpu") -> Separator | Bag:
    """Load a model by name, or from a file or folder.

    `name_or_path`: a name of `known_models()`, "default", `hf://user/repo`, a weight file (`.safetensors`, `.th`, the
    `.yaml` of a bag), a run folder, or a folder with the files of an official model. Raises UnknownNameError for a name
    that is not known; suggests the nearest; WeightsError when the weights cannot be read, do not fit, or are of an
    architecture that is not supported; OfflineError when weights are not here and cannot be downloaded.
    """
    name = str(name_or_path)
    if name in (DEFAULT, EMBEDDED):
        model: Separator | Bag = _load_embedded()
    elif name in OFFICIAL:
        model = _load_named(OFFICIAL[name], fetch(OFFICIAL[name]))
    elif name in REFUSED:
        raise WeightsError(f"{name} is {REFUSED[name]}; only the transformer models can be read: {', '.join(OFFICIAL)}")
    elif name.startswith(SCHEME):
        model = load_separator_weights(pull(name))
    elif _looks_like_path(name):
        model = load_path(name)
    else:
        raise UnknownNameError(unknown_name_message("model", name, [DEFAULT, EMBEDDED, *OFFICIAL]))
    return model.to(device).eval()


def load_path(path: str | Path) -> Separator | Bag:
    """Load a model from a file or folder; see `load_model`."""
    source = Path(os.path.expanduser(path))
    if os.path.isdir(source):
        return load_separator_weights(source) if (source / RUN_FILE).exists() else _load_folder(source)
    if source.suffix == ".yaml":
        return _load_bag(source)
    if source.suffix == ".safetensors" and not is_official(source):
        return load_separator_weights(source)
    return _load_file(source)


def _looks_like_path(name: str) -> bool:
    separators = (os.sep, os.altsep or os.sep)
    return any(mark in name for mark in separators) or Path(name).suffix in SUFFIXES or os.path.exists(name)


def _load_file(path: Path, segment_s: float | None = None) -> Separator:
    check_name(path)
    model = load_official(path, segment_s)
    if signature_of(path) is not None:
        remark_licence()
    return model


def _load_named(model: OfficialModel, files: list[Path]) -> Separator | Bag:
    models = [_load_file(path) for path in files]
    for path, one in zip(files, models, strict=True):
        if one.sources != model.sources:
            raise WeightsError(f"{path} has the sources {', '.join(one.sources)}; {model.name} has others")
    return models[0] if len(models) == 1 else Bag(models, model.weights)


def _load_folder(folder: Path) -> Separator | Bag:
    bags = [path for path in sorted(folder.glob("*.yaml")) if isinstance(_read_yaml(path).get("models"), list)]
    if len(bags) == 1:
        return _load_bag(bags[0])
    if len(bags) > 1:
        raise WeightsError(f"{folder} holds several models; name one: {', '.join(str(path) for path in bags)}")
    complete = [(model, present_files(model, folder)) for model in OFFICIAL.values()]
    named = [(model, files) for model, files in complete if files is not None]
    if len(named) == 1:
        return _load_named(*named[0])
    files = sorted(path for path in folder.iterdir() if path.suffix in (".safetensors", ".th"))
    if len(files) == 1:
        return load_path(files[0])
    if files:
        raise WeightsError(f"{folder} holds several models; name one: {', '.join(str(path) for path in files)}")
    raise WeightsError(f"{folder} holds no weights; {RUN_FILE}, a .safetensors or a .th file is needed")


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml_value(bounded_bytes(path).decode())
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weight file {path}; check the path") from error
    except (OSError, ValueError) as error:
        raise WeightsError(f"cannot read {path}: {one_line(error)}") from error
    return content if isinstance(content, Mapping) else {}


def _load_bag(path: Path) -> Separator | Bag:
    """Load the models that a bag's YAML file names, from its own folder."""
    about = _read_yaml(path)
    names, weights, segment = about.get("models"), about.get("weights"), about.get("segment")
    if not isinstance(names, list) or not names or not all(_SIGNATURE.fullmatch(str(name)) for name in names):
        raise WeightsError(f"{path} does not name the models of a bag; a list 'models' of signatures is needed")
    rows = weights if weights is not None else [[1.0]]
    if not isinstance(rows, list) or not all(
        isinstance(row, list) and all(isinstance(value, (int, float)) for value in row) for row in rows
    ):
        raise WeightsError(f"{path}: its weights are not rows of numbers")
    if not isinstance(segment, (int, float, type(None))):
        raise WeightsError(f"{path}: segment {segment!r} is not a number of seconds")
    models = []
    for name in map(str, names):
        file = find_file(path.parent, name)
        if file is None:
            raise WeightsError(f"{path} names {name}, but {path.parent} has no {name}.safetensors and no {name}-….th")
        models.append(_load_file(file, segment))
    return models[0] if len(models) == 1 and weights is None else Bag(models, weights)


def _embedded_file() -> AbstractContextManager[Path]:
    return resources.as_file(resources.files("polyres.weights") / "embedded" / f"{EMBEDDED}.safetensors")


def _load_embedded() -> Separator:
    with _embedded_file() as path:
        if not path.is_file():
            raise WeightsError(f"{EMBEDDED} is not part of this installation ({path}); install polyres again")
        return load_separator_weights(path)


def _embedded_info() -> ModelInfo:
    with _embedded_file() as path:
        if not path.is_file():
            return ModelInfo(EMBEDDED, MUSIC_SOURCES, 0, "MIT", "missing in this installation", False)
        info = read_info(path)
        licence = str(info.card.get("licence", "MIT"))
        return ModelInfo(EMBEDDED, info.config.sources, count_parameters(path), licence, "polyres (the default)", True)
