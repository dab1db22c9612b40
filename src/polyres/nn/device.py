"""Where and how exactly a model computes."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch

from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError


def resolve_device(name: str = "auto") -> torch.device:
    """Turn a device name into a device that is there.

    `name`: "auto" (cuda, else mps, else cpu), "cpu", "cuda", "cuda:N" or "mps". Raises UnknownNameError for a name that
    is not one of these; ConfigError when the device is not available.
    """
    kind, _, index = name.partition(":")
    if kind not in DEVICES or (index and (kind != "cuda" or not index.isdecimal())):
        raise UnknownNameError(unknown_name_message("device", name, DEVICES))
    has_cuda, has_mps = torch.cuda.is_available(), torch.backends.mps.is_available()
    if kind == "auto":
        kind = "cuda" if has_cuda else "mps" if has_mps else "cpu"
    missing_cuda = kind == "cuda" and (not has_cuda or int(index or 0) >= torch.cuda.device_count())
    if missing_cuda or (kind == "mps" and not has_mps):
        raise ConfigError(f"device {name} is not available here; use --device cpu, or auto to take what is there")
    return torch.device(f"{kind}:{index}" if index else kind)


def resolve_precision(name: str, device: torch.device) -> str:
    """Turn a precision name into the arithmetic that is used.

    `name`: "auto", "fp32" or "bf16". Returns "fp32" or "bf16"; "auto" is bf16 where the device has instructions for it.
    Raises UnknownNameError for a name that is not one of these.
    """
    if name not in PRECISIONS:
        raise UnknownNameError(unknown_name_message("precision", name, PRECISIONS))
    if name != "auto":
        return name
    return "bf16" if has_fast_bf16(device) else "fp32"


def has_fast_bf16(device: torch.device) -> bool:
    """Say whether a device has instructions for bfloat16, so that it is faster than fp32 there."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16", "bf16"))


def autocast_for(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Context in which the model is called.

    `precision`: as returned by `resolve_precision`. Returns A context manager; one that does nothing for fp32.
    """
    if precision == "bf16":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def default_batch(device: torch.device) -> int:
    """Segments per model call that suit a device: more than one only pays where there are many cores to fill."""
    return 4 if device.type == "cuda" else 1


DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("auto", "fp32", "bf16")
