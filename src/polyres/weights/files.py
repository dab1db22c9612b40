"""Weight files of our own: one safetensors file whose metadata holds the config and a card."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from polyres.core.errors import ConfigError, OutputError, WeightsError
from polyres.core.json_text import json_value
from polyres.core.whole_files import replaced_atomically
from polyres.weights.places import weights_file

FORMAT = 1
METADATA_KEY = "polyres"

DTYPES = {"fp16": torch.float16, "fp32": torch.float32}
HEADER_LIMIT_BYTES = 2**24

BUFFER_NUMBERS = 2**24
"""Numbers that a model may make beside those of its file: windows, filter banks, what is thrown away again."""
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.eye, torch.hann_window}
_FACTORIES |= {torch.arange}
Built = TypeVar("Built", bound=nn.Module)
Shapes = Mapping[str, tuple[int, ...]]


def write_weights(
    model: nn.Module, path: str | Path, about: Mapping[str, Any], dtype: Literal["fp16", "fp32"] = "fp16"
) -> Path:
    """Write the tensors of a model with what is to be known of it; an older file is replaced only by a complete one.

    `path`: the file, or an existing folder that gets `best.safetensors`; `about`: format, kind, config and card, as
    JSON can hold them. Raises WeightsError when a tensor is not finite or does not fit into the dtype, or the card is
    not JSON; OutputError when the file cannot be written.
    """
    target = weights_file(path)
    if dtype not in DTYPES:
        raise WeightsError(f"dtype {dtype!r} is not allowed; allowed: {', '.join(DTYPES)}")
    try:
        metadata = {METADATA_KEY: json.dumps(dict(about), sort_keys=True, allow_nan=False)}
    except (TypeError, ValueError) as error:
        raise WeightsError(f"the card of {target} cannot be written as JSON: {one_line(error)}") from error
    tensors = {name: value.detach().to("cpu", DTYPES[dtype]).contiguous() for name, value in model.state_dict().items()}
    check_finite(tensors, f"{target} as {dtype}")
    try:
        with replaced_atomically(target) as temporary:
            save_file(tensors, temporary, metadata)
    except (OSError, SafetensorError) as error:
        raise OutputError(f"cannot write {target}: {one_line(error)}; make room or choose another folder") from error
    return target


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata of any safetensors file. Raises WeightsError when it is missing, cut or no safetensors file."""
    with _opened(path) as file:
        return dict(file.metadata() or {})


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read all tensors of any safetensors file. Raises WeightsError when it is missing, cut or no safetensors file."""
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (not a mapping)


class _Building(TorchFunctionMode):
    """Counts the numbers that tensors are made for, before they are made."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._calls = 10 * len(tensors) + 1000
        self._numbers = 2 * sum(value.numel() for value in tensors.values()) + BUFFER_NUMBERS

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in _FACTORIES:
            size = args[0] if args and isinstance(args[0], (tuple, list)) else args
            self._calls -= 1
            self._numbers -= math.prod(max(0, count) for count in size if type(count) is int)
            if self._calls < 0 or self._numbers < 0:
                raise ConfigError("it asks for far more than the tensors of the file")
        return func(*args, **(kwargs or {}))


def build_for(build: Callable[[], Built], tensors: Mapping[str, Tensor], where: Path) -> Built:
    """Build the model that a file describes, in no more memory than its tensors bear out, and fill it.

    `build`: makes it from the file's config. Raises WeightsError when the config is not possible, asks for more, or its
    tensors are others.
    """
    try:
        with _Building(tensors):
            model = build()
    except ConfigError as error:
        raise WeightsError(f"{where}: its config is not usable: {error}") from error
    fill(model, tensors, str(where))
    return model


def count_parameters(path: str | Path) -> int:
    """Number of values in a weight file, read from its header alone.

    Raises WeightsError when it is missing, cut or no safetensors file.
    """
    with _opened(weights_file(path)) as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def read_about(path: Path) -> dict[str, Any]:
    """Read what a file of ours says of itself under `METADATA_KEY`; empty where it says nothing.

    Raises WeightsError when it is missing, cut, no safetensors file, or what it says is no JSON mapping.
    """
    try:
        about = json_value(read_metadata(path).get(METADATA_KEY, "{}"), special=True)
    except ValueError as error:
        raise WeightsError(f"{path}: its metadata is damaged ({one_line(error)}); get the file again") from error
    if not isinstance(about, dict):
        raise WeightsError(f"{path}: its metadata is damaged (a mapping is needed); get the file again")
    return about


def checked_facts(about: Mapping[str, Any], source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return config and card of what `read_about` found.

    Raises WeightsError when the format is another one, or either is missing or no mapping.
    """
    found, config, card = (about.get(key) for key in ("format", "config", "card"))
    if type(found) is not int or found != FORMAT:
        raise WeightsError(f"{source} has format {found!r}; this version reads format {FORMAT}; update polyres")
    if not isinstance(config, dict) or not isinstance(card, dict):
        raise WeightsError(f"{source}: its metadata lacks the config or the card; get the file again")
    return config, card


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        if os.path.exists(path) and not os.path.isfile(path):
            sort = "folder" if path.is_dir() else "pipe or a device"
            raise WeightsError(f"{path} is a {sort}, not a weight file; name the file")
        if os.path.isfile(path) and int.from_bytes(_start(path)[:8], "little") >= HEADER_LIMIT_BYTES:
            raise SafetensorError("header too large")
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except FileNotFoundError as error:
        raise WeightsError(f"there is no weight file {path}; check the path") from error
    except (OSError, SafetensorError) as error:
        raise WeightsError(_why_unreadable(path, error)) from error


def _start(path: Path) -> bytes:
    with open(path, "rb") as file:
        return file.read(9)


def _why_unreadable(path: Path, error: Exception) -> str:
    if isinstance(error, OSError) and error.errno is not None:
        return f"cannot read {path}: {error.strerror}"
    start = _start(path)
    if not start:
        return f"{path} is empty; get the file again"
    plausible = start[8:] == b"{" and int.from_bytes(start[:8], "little") < HEADER_LIMIT_BYTES
    if plausible:
        return f"{path} is cut or damaged ({one_line(error)}); get the file again"
    return f"{path} is not a safetensors file; give a file written by polyres"


def fill(model: nn.Module, tensors: Mapping[str, Tensor], where: str) -> None:
    """Put tensors into a model, all of them and nothing else.

    `model`: filled in place; keeps its own dtype. `tensors`: by the names of `model.state_dict()`. `where`: what to
    call the tensors in messages. Raises WeightsError on a missing, extra, misshapen, non-finite or non-float tensor;
    names the first one.
    """
    check_fit({name: tuple(value.shape) for name, value in model.state_dict().items()}, tensors, where)
    check_finite(tensors, where)
    model.load_state_dict(dict(tensors))


def check_fit(expected: Shapes, tensors: Mapping[str, Tensor], where: str) -> None:
    """Compare names and shapes both ways.

    Raises WeightsError naming the first tensor that does not fit, and how many more.
    """
    missing = [name for name in expected if name not in tensors]
    extra = [name for name in tensors if name not in expected]
    wrong = [name for name in expected if name in tensors and tuple(tensors[name].shape) != expected[name]]
    if missing:
        raise WeightsError(
            f"{where}: {_counted(missing)} missing, first {missing[0]!r}; the weights are of another model"
        )
    if extra:
        raise WeightsError(f"{where}: {_counted(extra)} too many, first {extra[0]!r}; the weights are of another model")
    if wrong:
        first = wrong[0]
        raise WeightsError(
            f"{where}: {_counted(wrong)} of another shape, first {first!r}: "
            f"{list(tensors[first].shape)} instead of {list(expected[first])}; the weights are of another model"
        )


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Refuse tensors that are not floating point or hold NaN or infinity.

    Raises WeightsError naming the first such tensor, and how many there are.
    """
    for name, value in tensors.items():
        if not value.is_floating_point():
            raise WeightsError(f"{where}: tensor {name!r} is {str(value.dtype)[6:]}; floating point is needed")
    bad = [name for name, value in tensors.items() if not bool(torch.isfinite(value).all())]
    if bad:
        raise WeightsError(f"{where}: {_counted(bad)} not finite, first {bad[0]!r}; get or train the weights again")


def _counted(names: list[str]) -> str:
    return "1 tensor" if len(names) == 1 else f"{len(names)} tensors"


def one_line(error: Exception) -> str:
    """The message of an error on one line, shortened."""
    text = " ".join(str(error).split())
    return text if len(text) <= 200 else text[:199] + "…"
