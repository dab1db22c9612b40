"""Measure speed and memory of a model in an own process: `python -m polyres.separation.complexity.measure REQUEST`."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import polyres
from polyres.core.config import read_as
from polyres.core.errors import AnalysisError, PolyresError
from polyres.core.tables import MISSING, Table, number, whole
from polyres.nn.device import autocast_for, resolve_device, resolve_precision
from polyres.separation.bag import Bag
from polyres.separation.complexity.counts import KINDS, OTHER, Cost, cost_of
from polyres.separation.model import Separator
from polyres.separation.variants import load_subject

GIGA = 1e9

CONVENTION = (
    "A MAC is one multiplication and one addition. Counted: convolutions, linear layers, the products inside "
    "attention, and Fourier transforms at 1.25 n log2 n per frame (2.5 n log2 n operations); not element-wise work."
)


def complexity_page(results: Sequence[Complexity]) -> str:
    """Return all tables as a page of Markdown."""
    tables = [summary_table(results), kinds_table(results), *map(parts_table, results)]
    return "# Complexity\n\n" + "\n".join(table.markdown() for table in tables)


def summary_table(results: Sequence[Complexity]) -> Table:
    """Return one row per model: size, cost, time, memory."""
    header = ("model", "resolutions", "parameters", "audio s", "GMAC", "GMAC per s", "latency s", "real-time factor")
    table = Table("", (*header, "peak memory MiB"), text_columns=2, notes=tuple(_notes(results)))
    for result in results:
        speed = result.speed
        table.rows.append(
            (
                result.model,
                "; ".join(" ".join(map(str, n_fft)) for n_fft in dict.fromkeys(result.n_fft)),
                whole(result.cost.parameters),
                number(result.audio_s),
                number(result.cost.macs / GIGA),
                number(result.macs_per_second / GIGA, 3),
                number(speed.latency_s, 3) if speed else MISSING,
                number(speed.real_time_factor, 3) if speed else MISSING,
                whole(speed.peak_memory_mib) if speed and speed.peak_memory_mib is not None else MISSING,
            )
        )
    return table


def _notes(results: Sequence[Complexity]) -> list[str]:
    notes = [CONVENTION]
    for speed in (result.speed for result in results if result.speed):
        where = f"{speed.device} ({speed.hardware}), {speed.precision}"
        if speed.device == "cpu":
            where += f", threads: {speed.threads}"
        runs = len(speed.latencies_s)
        memory = "of the whole process" if speed.device == "cpu" else "of the tensors on the device"
        notes.append(
            f"Measured on {where}: median of {runs} warm passes of one piece of audio; real-time factor = seconds of "
            f"computing per second of audio; peak memory {memory}, a fresh one for every model."
        )
    return list(dict.fromkeys(notes))


def kinds_table(results: Sequence[Complexity]) -> Table:
    """Return one row per model: GMAC by kind of operation."""
    kinds = [kind for kind in (*KINDS, OTHER) if any(kind in result.cost.by_kind for result in results)]
    table = Table("GMAC by kind of operation", ("model", *kinds))
    for result in results:
        values = (result.cost.by_kind.get(kind) for kind in kinds)
        table.rows.append(
            (result.model, *(number(None if value is None else value / GIGA, 3) for value in values)),
        )
    return table


def parts_table(result: Complexity) -> Table:
    """Return one row per part of a model."""
    table = Table(f"Parts of {result.model}", ("part", "parameters", "GMAC", "GMAC per s", "% of GMAC"))
    for part in result.cost.parts:
        share = 100 * part.macs / result.cost.macs if result.cost.macs else 0.0
        macs, per_second = number(part.macs / GIGA, 3), number(part.macs / GIGA / result.audio_s, 4)
        table.rows.append((part.name, whole(part.parameters), macs, per_second, number(share, 1)))
    return table


LEVEL = 0.1
MIB = 2**20


@dataclass(frozen=True)
class Request:
    """What to measure."""

    model: str  # anything `load_subject` takes
    seconds: float = 7.8  # length of the audio, in one piece
    device: str = "auto"  # "auto", "cpu", "cuda", "cuda:N" or "mps"
    precision: str = "fp32"  # "auto", "fp32" or "bf16" (of the timed passes)
    repeats: int = 5  # timed passes after a warm-up; 0 only counts
    threads: int | None = None  # of the CPU; None leaves torch's default
    depth: int = 1  # how deep parts are told apart


@dataclass(frozen=True)
class Speed:
    """Time and memory of a model on a device."""

    device: str
    hardware: str
    threads: int
    precision: str  # "fp32" or "bf16"
    latencies_s: tuple[float, ...]
    latency_s: float
    real_time_factor: float  # seconds of computing per second of audio; below 1 is faster than real time
    memory_mib: float | None
    peak_memory_mib: float | None  # the same after the passes; None where it cannot be told


@dataclass(frozen=True)
class Complexity:
    """All that is known about what a model costs."""

    model: str
    audio_s: float
    n_fft: tuple[tuple[int, ...], ...]  # resolutions of every separator in it
    cost: Cost
    speed: Speed | None  # measured; None where only counted

    @property
    def macs_per_second(self) -> float:
        """Multiply-accumulates per second of audio."""
        return self.cost.macs / self.audio_s

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON would hold it."""
        return {**asdict(self), "macs_per_second": self.macs_per_second}


def measure(request: Request) -> Complexity:
    """Measure and count in this process; its peak memory is then that of all it ever did.

    Raises PolyresError when the model or the device is not there; AnalysisError when the audio would be empty or the
    memory is too small.
    """
    device = resolve_device(request.device)
    if request.threads is not None:
        torch.set_num_threads(request.threads)
    model = load_subject(request.model).to(device).eval()
    length = round(request.seconds * model.sample_rate_hz)
    if length < 1:
        raise AnalysisError(f"--seconds {request.seconds:g} is no audio; give more than 0, such as 7.8")
    generator = torch.Generator().manual_seed(0)
    mix = (LEVEL * torch.randn(1, model.audio_channels, length, generator=generator)).to(device)
    audio_s = length / model.sample_rate_hz
    try:
        speed = time_model(model, mix, request, audio_s) if request.repeats else None
        cost = cost_of(model, mix, request.depth)
    except torch.OutOfMemoryError as error:
        raise AnalysisError(
            f"{request.model} does not fit into the memory of {device}; give fewer --seconds or another --device"
        ) from error
    separators = [part for part in model.modules() if isinstance(part, Separator)]
    return Complexity(request.model, audio_s, tuple(one.config.n_fft for one in separators), cost, speed)


@torch.no_grad()
def time_model(model: Separator | Bag, mix: Tensor, request: Request, audio_s: float) -> Speed:
    """Time warm passes; see `measure`. `mix`: `[1, C, T]`."""
    device = mix.device
    precision = resolve_precision(request.precision, device)
    ready = memory_mib(device)
    wait = waiter(device)
    latencies = []
    with autocast_for(precision, device):
        for _ in range(1 + request.repeats):
            wait()
            start = time.perf_counter()
            model(mix)
            wait()
            latencies.append(time.perf_counter() - start)
    del latencies[0]  # the warm-up
    latency = statistics.median(latencies)
    return Speed(
        device=str(device),
        hardware=hardware(device),
        threads=torch.get_num_threads(),
        precision=precision,
        latencies_s=tuple(latencies),
        latency_s=latency,
        real_time_factor=latency / audio_s,
        memory_mib=ready,
        peak_memory_mib=memory_mib(device),
    )


def waiter(device: torch.device) -> Callable[[], None]:
    """Return what waits until a device has done all it was asked for."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    return torch.mps.synchronize if device.type == "mps" else lambda: None


def hardware(device: torch.device) -> str:
    """Name the hardware behind a device."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    model = ""
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = (line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name"))
        model = next(lines, "").partition(":")[2].strip()
    return model or platform.processor() or platform.machine()


def memory_mib(device: torch.device) -> float | None:
    """Return the most memory used so far in MiB: of the GPU's tensors, or of this process on a CPU; None if unknown."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / MIB
    if device.type == "mps":
        return float(torch.mps.driver_allocated_memory()) / MIB
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would also count what the process had before it became this program.
        lines = status.read_text(encoding="utf-8").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(peak) / (MIB if sys.platform == "darwin" else 1024)


def measure_apart(request: Request) -> Complexity:
    """Measure in a fresh process, so that its peak memory is the model's and nothing is warm that should not be.

    Raises AnalysisError when the process fails, with its reason.
    """
    root = str(Path(polyres.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
    command = [sys.executable, "-m", "polyres.separation.complexity.measure", json.dumps(asdict(request))]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, env=environment, check=False)
    try:
        answer = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError) as error:
        raise AnalysisError(
            f"measuring {request.model} ended with status {done.returncode}; "
            "the memory may be too small: give fewer --seconds"
        ) from error
    if "error" in answer:
        raise AnalysisError(answer["error"])
    return read_as(Complexity, answer)


def main(text: str) -> None:
    """Answer a request in JSON with a line of JSON. `text`: fields of `Request`."""
    try:
        answer = measure(Request(**json.loads(text))).to_dict()
    except PolyresError as error:
        answer = {"error": str(error)}
    print(json.dumps(answer))


if __name__ == "__main__":
    main(sys.argv[1])
