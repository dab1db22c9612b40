"""Devices and precision: what Fabric is told, and what is refused before it is asked."""

from __future__ import annotations

from typing import Literal

import torch
from lightning_fabric import Fabric

from polyres.core.errors import TrainingError
from polyres.training.config import SolverConfig

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
"""Names in recipes and at Fabric; weights are fp32 in all of them."""


def device_kind(config: SolverConfig) -> str:
    """Return the kind of device to train on: cuda, mps or cpu.

    Args:
        config: names it, or leaves the choice.

    Returns:
        What was named; else the fastest kind there is.

    Raises:
        TrainingError: if it is not there, or cannot do the precision.
    """
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    kind: str = config.device
    if kind == "auto":
        kind = next(name for name, available in there.items() if available)
    elif not there[kind]:
        names = ", ".join(["auto", *(name for name, available in there.items() if available)])
        raise TrainingError(f"device {kind!r} is not available here; use one of: {names}")
    if config.precision == "fp16" and kind != "cuda":
        raise TrainingError(
            f"precision 'fp16' needs gradient scaling, which works on CUDA alone, and the device is {kind!r}; "
            "use precision bf16 or fp32"
        )
    return kind


def build_fabric(config: SolverConfig) -> Fabric:
    """Return the plumbing between the training loop and the hardware.

    Args:
        config: names device and precision.

    Raises:
        TrainingError: if the device is not there, or cannot do the precision.
    """
    return Fabric(accelerator=device_kind(config), devices=1, precision=PRECISIONS[config.precision])


def check_compiler(device: torch.device) -> None:
    """Compile a trifle, to learn whether models can be compiled here.

    Args:
        device: to compile for.

    Raises:
        TrainingError: if there is no compiler that works.
    """
    try:
        torch.compile(_trifle)(torch.zeros(4, device=device))
    except Exception as error:  # whatever a missing or broken compiler raises
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"compile: true does not work here ({reason}); set compile: false") from error


def _trifle(x: torch.Tensor) -> torch.Tensor:
    """Do something that can be fused."""
    return (x + 1).cos()
