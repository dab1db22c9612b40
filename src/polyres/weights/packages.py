"""Reading official Demucs weight files as plain values and tensors, without running anything they name.

Two layouts exist. A `.th` package is a `torch.save` archive of `klass`, `args`, `kwargs`, `state` and notes about the
training. Since Demucs 4.1 there is also a safetensors file whose metadata holds `klass` and, as JSON, `args` and
`kwargs`; fractions are written as `{"_type": "fraction", "numerator": n, "denominator": d}`.
"""

from __future__ import annotations

import os
import pickle
import re
import threading
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyres.core.errors import WeightsError
from polyres.core.json_text import json_value
from polyres.weights.files import one_line, read_metadata, read_tensors

# Names a package may hold beside tensors and plain values. They become `Inert`; the real things are never imported.
INERT_MODULES = frozenset({"demucs", "diffq", "numpy", "omegaconf", "typing"})
INERT_NAMES = frozenset({"builtins.dict", "builtins.float", "builtins.int", "builtins.list", "builtins.str"})

_LOADING = threading.Lock()
_FRACTION_TEXT = re.compile(r"-?\d{1,12}(/\d{1,12})?")


@dataclass(frozen=True)
class OfficialPackage:
    """What an official weight file holds."""

    klass: str  # dotted name of the class it was made from
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    state: dict[str, Tensor]
    where: str


class Inert:
    """Stands in for a class or function named in a package: takes whatever it is given and does nothing."""

    dotted_name = ""

    def __new__(cls, *args: object) -> Inert:
        return super().__new__(cls)

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


def read_package(path: str | Path) -> OfficialPackage:
    """Read an official weight file of either layout.

    `path`: a `.th` or `.safetensors` file. Returns its class name, arguments and tensors. Raises WeightsError when it
    is missing, damaged, quantised, or names anything off the allow-list.
    """
    source = Path(os.path.expanduser(path))
    if source.suffix == ".safetensors":
        return _read_safetensors(source)
    return _read_archive(source)


def is_official(path: Path) -> bool:
    """Say whether a safetensors file has the official layout (rather than ours).

    Raises WeightsError when it is missing or no safetensors file.
    """
    return "klass" in read_metadata(path)


def _read_safetensors(path: Path) -> OfficialPackage:
    metadata = read_metadata(path)
    absent = [key for key in ("klass", "args", "kwargs") if key not in metadata]
    if absent:
        raise WeightsError(f"{path} has no {absent[0]!r} metadata; it is not an official Demucs file")
    if "structure" in metadata:
        raise WeightsError(f"{path} is quantised, which is not supported; give the weights that are not quantised")
    try:
        args, kwargs = (_revive(json_value(metadata[key])) for key in ("args", "kwargs"))
    except (ValueError, TypeError, KeyError, ZeroDivisionError, OverflowError) as error:
        raise WeightsError(f"{path}: its metadata is damaged ({one_line(error)}); get the file again") from error
    return _checked(metadata["klass"], args, kwargs, read_tensors(path), path)


def _revive(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get("_type") == "fraction":
            return Fraction(value["numerator"], value["denominator"])
        return {key: _revive(item) for key, item in value.items()}
    return [_revive(item) for item in value] if isinstance(value, list) else value


def _read_archive(path: Path) -> OfficialPackage:
    content = _load_archive(path)
    if not isinstance(content, dict) or not {"klass", "args", "kwargs", "state"} <= set(content):
        raise WeightsError(f"{path} is not an official Demucs package (klass, args, kwargs and state are needed)")
    klass = content["klass"]
    if not (isinstance(klass, type) and issubclass(klass, Inert)):
        raise WeightsError(f"{path}: its klass is {type(klass).__name__} instead of a class; get the file again")
    return _checked(klass.dotted_name, content["args"], content["kwargs"], content["state"], path)


def _checked(klass: str, args: Any, kwargs: Any, state: Any, path: Path) -> OfficialPackage:
    if not isinstance(args, (list, tuple)) or not isinstance(kwargs, Mapping) or not isinstance(state, Mapping):
        raise WeightsError(f"{path}: args, kwargs or state have the wrong type; get the file again")
    if "__quantized" in state:
        raise WeightsError(f"{path} is quantised, which is not supported; give the weights that are not quantised")
    for key, value in [*enumerate(args), *kwargs.items()]:
        if not _is_plain(value):
            raise WeightsError(f"{path}: argument {key!r} is {type(value).__name__}; plain values are needed")
    odd = [name for name, value in state.items() if not isinstance(name, str) or not isinstance(value, Tensor)]
    if odd:
        raise WeightsError(f"{path}: state holds {odd[0]!r}, which is no tensor; get the file again")
    return OfficialPackage(klass, tuple(args), dict(kwargs), dict(state), str(path))


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(item) for item in value)
    if isinstance(value, dict):
        return all(_is_plain(item) for item in value.values())
    return value is None or isinstance(value, (bool, int, float, str, Fraction))


def _load_archive(path: Path) -> Any:
    """Unpickle an archive with nothing but tensors, plain values, fractions and inert stand-ins."""
    _refuse_other_files(path)
    with _LOADING, warnings.catch_warnings():
        # Torch warns about pickle protocols it was not written for; what it cannot read it refuses anyway.
        warnings.simplefilter("ignore")
        try:
            named = torch.serialization.get_unsafe_globals_in_checkpoint(str(path))
            with torch.serialization.safe_globals([(_stand_in(name, path), name) for name in sorted(named)]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except WeightsError:
            raise
        except pickle.UnpicklingError as error:
            raise WeightsError(f"{path} holds more than weights and is refused: {one_line(error)}") from error
        except (OSError, EOFError, RuntimeError, ValueError, TypeError, LookupError, AttributeError) as error:
            raise WeightsError(f"{path} is damaged ({one_line(error)}); get the file again") from error


def _refuse_other_files(path: Path) -> None:
    try:
        with open(path, "rb") as file:
            start = file.read(4)
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weight file {path}; check the path") from error
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    if start != b"PK\x03\x04":
        raise WeightsError(f"{path} is {'not a torch.save archive' if start else 'empty'}; give an official .th file")
    if not zipfile.is_zipfile(path):
        raise WeightsError(f"{path} is cut or damaged; get the file again")


def _stand_in(name: str, path: Path) -> Any:
    if name == "fractions.Fraction":
        return read_fraction
    if name == "collections.defaultdict":
        return plain_dict
    if name in INERT_NAMES or name.partition(".")[0] in INERT_MODULES:
        return type("Inert", (Inert,), {"dotted_name": name})
    raise WeightsError(f"{path} names {name!r}, which is not on the allow-list; it is refused unread")


def plain_dict(*args: object) -> dict[Any, Any]:
    """Stand-in for a defaultdict, whose factory is not wanted."""
    return {}


def read_fraction(*args: object) -> Fraction:
    """Build a fraction from what its pickle holds: one text such as "39/5", or numerator and denominator."""
    if len(args) == 1 and isinstance(args[0], str) and _FRACTION_TEXT.fullmatch(args[0]):
        return Fraction(args[0])
    whole = [part for part in args if type(part) is int]
    if len(args) == len(whole) == 2 and whole[1]:
        return Fraction(*whole)
    raise ValueError(f"{args!r:.80} is not a fraction")
