"""Devices and precision that Fabric is told, and the processes that train one model together."""

from __future__ import annotations

import inspect
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from types import FrameType
from typing import Any, Literal, TypeVar

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments import LightningEnvironment, TorchElasticEnvironment
from lightning_fabric.strategies import DDPStrategy
from lightning_fabric.strategies.launchers.multiprocessing import _MultiProcessingLauncher
from torch import Tensor, distributed
from torch.multiprocessing import ProcessExitedException
from torch.nn.parallel import DistributedDataParallel

from polyres.core.errors import TrainingError
from polyres.core.process import handled
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


T = TypeVar("T")


class Ranks:
    """A group of processes, one per device; every method must be called by all of them, in the same order.

    For a process on its own each of them is its plain meaning, without any communication.
    """

    def __init__(self, fabric: Fabric) -> None:
        """Refer to a group. `fabric`: launched, where there is more than one process."""
        self._fabric = fabric
        self.size, self.number = fabric.world_size, fabric.global_rank

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes files and shows progress."""
        return self.number == 0

    def _reduced(self, values: Sequence[float], how: str) -> list[float]:
        """Return numbers put together over the processes, place by place."""
        if self.size == 1 or not values:
            return list(values)
        tensor = torch.tensor(values, dtype=torch.float64, device=self._fabric.device)
        reduced: Tensor = self._fabric.all_reduce(tensor, reduce_op=how)  # type: ignore[assignment]
        return reduced.tolist()

    def largest(self, values: Sequence[float]) -> list[float]:
        """Return the largest of every number over the processes."""
        return self._reduced(values, "max")

    def total(self, value: float) -> float:
        """Return the sum of a number over the processes; NaN and infinity in any of them show in it."""
        return self._reduced([value], "sum")[0]

    def means(self, values: Mapping[str, float]) -> dict[str, float]:
        """Return the means of named numbers over the processes. `values`: with the same names in every process."""
        names = sorted(values)
        sums = self._reduced([values[name] for name in names], "sum")
        return {name: value / self.size for name, value in zip(names, sums, strict=True)}

    def together(self, batch: Tensor) -> Tensor:
        """Return the batches of all processes as one, in their order.

        `batch`: `[B, ...]`, of the same shape in every process.
        """
        if self.size == 1:
            return batch
        parts = [torch.empty_like(batch) for _ in range(self.size)]
        torch.distributed.all_gather(parts, batch.contiguous())
        return torch.cat(parts)

    def from_first(self, function: Callable[[], T]) -> T:
        """Let the first process do something, and return in all what came of it.

        `function`: what to do; what it returns must pickle. Raises Exception in all processes, what the function raised
        in the first one.
        """
        if self.size == 1:
            return function()
        outcome: tuple[T | None, Exception | None] = (None, None)
        if self.is_first:
            try:
                outcome = (function(), None)
            except Exception as error:  # whatever it is, the others must not wait for ever
                outcome = (None, error)
        value, failure = self._fabric.broadcast(outcome)
        if failure is not None:
            raise failure
        return value  # type: ignore[return-value]


class _Box:
    """Carries a value past the launcher, which would look for tensors inside it."""

    def __init__(self, content: Any) -> None:
        self.content = content


def _boxed(fabric: Fabric, function: Callable[..., Any], *arguments: Any) -> _Box:
    """Call a function in one of the processes."""
    box = _Box(function(fabric, *arguments))
    # Left to the end of the process, threads of the group can outlive what they use and abort a run that has finished.
    if distributed.is_available() and distributed.is_initialized():
        distributed.destroy_process_group()
    return box


def is_to_be_spawned(fabric: Fabric) -> bool:
    """Say whether this process is there to start others, not to train."""
    return isinstance(fabric.strategy.launcher, _MultiProcessingLauncher)


def spawned(fabric: Fabric, function: Callable[..., T], *arguments: Any) -> T:
    """Run a function in as many processes as there are devices, and wait for them.

    SIGTERM and Ctrl-C are passed on, and the processes are left the time to stop as they see fit.

    `fabric`: for several processes, not launched yet. `function`: takes the launched fabric and the arguments; must be
    found under its name in its module. Returns what the function returned in the first process. Raises SystemExit if a
    signal came before the processes were ready for it.
    """
    port = os.environ.get("MASTER_PORT")
    with _passed_on() as seen:
        try:
            launch: Callable[..., _Box] = fabric.launch
            return launch(_boxed, function, *arguments).content
        except ProcessExitedException as error:
            if seen:
                raise SystemExit(128 + seen[0]) from error
            raise
        finally:
            if port is None:
                os.environ.pop("MASTER_PORT", None)  # the launcher leaves it behind


@contextmanager
def _passed_on() -> Iterator[list[int]]:
    """Pass signals on to the child processes as SIGTERM; yields the list of those that came."""
    seen: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        seen.append(number)
        if sys.platform != "win32":  # there a terminal's Ctrl-C reaches all, and terminating leaves no time to stop
            for child in multiprocessing.active_children():
                child.terminate()

    with handled(pass_on, signal.SIGTERM, signal.SIGINT):
        yield seen
