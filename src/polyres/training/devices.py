"""Devices and precision: what Fabric is told, and what is refused before it is asked."""

from __future__ import annotations

import inspect
import os
from datetime import timedelta
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from torch.nn.parallel import DistributedDataParallel

from polyres.core.errors import TrainingError
from polyres.training.config import SolverConfig

PRECISIONS: dict[str, Literal["32-true", "bf16-mixed", "16-mixed"]] = {
    "fp32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}
"""Names in recipes and at Fabric; weights are fp32 in all of them."""

PATIENCE = timedelta(hours=2)
"""How long processes wait for each other, at most: the first one validates for all."""


def device_kind(config: SolverConfig) -> str:
    """Return the kind of device to train on: cuda, mps or cpu."""
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


def started_outside() -> tuple[int, int] | None:
    """Say what torchrun, or whatever sets the same variables, has started."""
    if "LOCAL_RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        return None
    size = int(os.environ["WORLD_SIZE"])
    return size, int(os.environ.get("LOCAL_WORLD_SIZE", size))


def build_fabric(config: SolverConfig) -> Fabric:
    """Return the plumbing between the training loop and the hardware.

    Returns plumbing for one process; or for several, which is to be launched. Raises TrainingError if the devices are
    not there, cannot do the precision, or are not those that torchrun has started processes for.
    """
    kind, precision = device_kind(config), PRECISIONS[config.precision]
    outside = started_outside()
    size, here = outside or (config.devices, config.devices)
    if outside is not None and config.devices not in (1, here):
        raise TrainingError(
            f"devices is {config.devices} but {here} processes were started on this machine; "
            "leave devices out, or make the two equal"
        )
    there = torch.cuda.device_count() if kind == "cuda" else 1
    if kind != "cpu" and here > there:
        raise TrainingError(f"devices is {here} but there is {there} of the kind {kind!r} here; use {there} or fewer")
    if size == 1:
        return Fabric(accelerator=kind, devices=1, precision=precision)
    # Without syncing buffers one process alone can validate; no layer of ours keeps running statistics.
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    options: dict[str, Any] = {
        "forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False
    }
    strategy = DDPStrategy(
        cluster_environment=LightningEnvironment() if outside is None else TorchElasticEnvironment(),
        start_method="spawn" if outside is None else "popen",
        timeout=PATIENCE,
        find_unused_parameters=config.strategy == "ddp_find_unused_parameters_true",
        **options,
    )
    return Fabric(accelerator=kind, devices=here, num_nodes=size // here, strategy=strategy, precision=precision)


def check_compiler(device: torch.device) -> None:
    """Compile a trifle, to learn whether models can be compiled here."""
    try:
        torch.compile(_trifle)(torch.zeros(4, device=device))
    except Exception as error:  # whatever a missing or broken compiler raises
        reason = " ".join(str(error).split())[:200]
        raise TrainingError(f"compile: true does not work here ({reason}); set compile: false") from error


def _trifle(x: torch.Tensor) -> torch.Tensor:
    """Do something that can be fused."""
    return (x + 1).cos()
