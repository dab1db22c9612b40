"""The official implementation with random weights in which every part counts, and its two file layouts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from demucs import states
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file
from torch import Tensor, nn

from polyres.separation.official import SUPPORTED_CLASS
from polyres.weights.packages import OfficialPackage

FOUR = ["drums", "bass", "other", "vocals"]
SIX = [*FOUR, "guitar", "piano"]
SEGMENT = Fraction(39, 5)
RELEASED: dict[str, Any] = {"sources": FOUR, "dconv_mode": 3, "bottom_channels": 512, "segment": SEGMENT}
RELEASED_6S: dict[str, Any] = {"sources": SIX, "dconv_mode": 3, "segment": SEGMENT}
SMALL: dict[str, Any] = {"sources": FOUR, "channels": 8, "t_heads": 4, "segment": Fraction(1, 2)}


def demucs_model(arguments: Mapping[str, Any], seed: int = 0) -> HTDemucs:
    """An official model whose residual parts are not near zero, as they are when freshly made."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = HTDemucs(**arguments)
    shake(model, seed)
    return model.eval()


def shake(model: nn.Module, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, value in model.named_parameters():
            noise = torch.randn(value.shape, generator=generator)
            if ".gamma_" in name:
                value.copy_(noise)
            elif name.endswith(".scale"):
                value.copy_(0.3 * noise)
            elif value.dim() == 1:
                value.add_(0.1 * noise)


def package_of(model: HTDemucs) -> OfficialPackage:
    """What reading the model's file would give, without rounding to half precision."""
    args, kwargs = model._init_args_kwargs
    return OfficialPackage(SUPPORTED_CLASS, args, dict(kwargs), dict(model.state_dict()), "oracle")


def serialize(model: HTDemucs, half: bool = True) -> dict[str, Any]:
    """The package that the official trainer saves, made by its own function."""
    plain = SimpleNamespace(OmegaConf=SimpleNamespace(to_container=lambda value, resolve: value))
    with mock.patch.dict(sys.modules, omegaconf=plain):
        return states.serialize_model(model, {"epochs": 360, "dset": {"musdb": "x"}}, half=half)


def write_th(model: HTDemucs, path: Path, half: bool = True) -> Path:
    torch.save(serialize(model, half), path)
    return path


def write_safetensors(model: HTDemucs, path: Path, changes: Mapping[str, str] | None = None) -> Path:
    """The layout of Demucs 4.1."""
    args, kwargs = model._init_args_kwargs
    metadata = {"klass": SUPPORTED_CLASS, "args": encode(args), "kwargs": encode(kwargs), **(changes or {})}
    save_file({name: value.half().contiguous() for name, value in model.state_dict().items()}, path, metadata)
    return path


def encode(value: object) -> str:
    def fraction(item: object) -> dict[str, object]:
        assert isinstance(item, Fraction)
        return {"_type": "fraction", "numerator": item.numerator, "denominator": item.denominator}

    return json.dumps(value, default=fraction)


def halved(model: HTDemucs) -> HTDemucs:
    """The model with the weights its file holds."""
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(value.half())
    return model


def noise(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def relative_error(found: Tensor, wanted: Tensor) -> float:
    assert found.shape == wanted.shape
    return float((found - wanted).abs().max() / wanted.abs().max())
