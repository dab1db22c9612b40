"""What a graphics card changes: parity, speed of separation beside demucs 4.1.0, BSSEval, training steps, memory.

    python benchmarks/gpu.py --out gpu                   # on a machine with a card, within eight minutes
    python benchmarks/gpu.py --device cpu --quick        # a dry run anywhere, within a minute

Every part prints its table as soon as it is done and writes it to OUT/gpu.md, so that a run that is cut off keeps what
it has. A part that fails is told and the others go on; the exit status is then 1. Needs the `test` extra.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import numpy as np
import torch
from bss_eval import RATE_HZ, make_track, museval_metrics
from torch import Tensor, nn

from polyres.metrics import bss_eval
from polyres.separation.model import Separator
from polyres.separation.official import SUPPORTED_CLASS, convert
from polyres.separation.variants import variant
from polyres.weights.packages import OfficialPackage

SOURCES = ("drums", "bass", "other", "vocals")
VARIANTS = ("htdemucs_48", "htdemucs_24", "n", "nn", "w5")


@dataclass(frozen=True)
class Scale:
    """How much is done: sizes of networks, seconds of sound, repeats; `limit_s` ends a run between two parts."""

    device: torch.device
    channels: int
    seconds: float
    repeats: int
    batch: int
    variants: tuple[str, ...]
    limit_s: float


@contextmanager
def matmul(precision: str, device: torch.device) -> Iterator[None]:
    """Compute in fp32, in TF32, or in bfloat16 where autocast allows it."""
    allowed = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = allowed


def finish(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(do: Callable[[], object], scale: Scale) -> float:
    """Shortest wall time after two calls that warm up."""
    times = []
    for number in range(2 + scale.repeats):
        start = time.perf_counter()
        do()
        finish(scale.device)
        if number >= 2:
            times.append(time.perf_counter() - start)
    return min(times)


def peak_mib(device: torch.device) -> str:
    """Largest memory that tensors took since the last call; a dash where the device does not count it."""
    if device.type != "cuda":
        return "–"
    peak = torch.cuda.max_memory_allocated(device) / 2**20
    torch.cuda.reset_peak_memory_stats(device)
    return f"{peak:,.0f}"


def noise(batch: int, seconds: float, seed: int = 0) -> Tensor:
    """Noise `[B, 2, T]` at a usual level."""
    return 0.1 * torch.randn(batch, 2, round(seconds * RATE_HZ), generator=torch.Generator().manual_seed(seed))


def pair(scale: Scale) -> tuple[nn.Module, Separator]:
    """HTDemucs as demucs builds it, and ours with the same tensors."""
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(0)
    theirs = HTDemucs(list(SOURCES), channels=scale.channels, segment=Fraction(scale.seconds).limit_denominator(1000))
    for name, value in theirs.named_parameters():
        if name.endswith("scale"):  # residual branches start near zero; let them count
            value.data.uniform_(0.1, 0.3)
    arguments, keywords = theirs._init_args_kwargs
    ours = convert(OfficialPackage(SUPPORTED_CLASS, arguments, keywords, theirs.state_dict(), "demucs"))
    return theirs.to(scale.device).eval(), ours.to(scale.device).eval()


def parity(scale: Scale) -> list[str]:
    """Differences of the device to fp32 on the CPU, for one segment."""
    torch.manual_seed(0)
    config = variant("n").with_values(
        {"channels": scale.channels // 2, "segment_samples": round(scale.seconds * RATE_HZ)}
    )
    model, mix = Separator(config).eval(), noise(1, scale.seconds)
    with torch.no_grad():
        expected = model(mix)
        model.to(scale.device)
        rows = []
        for precision in ("fp32", "tf32", "bf16"):
            with matmul(precision, scale.device):
                found = model(mix.to(scale.device)).float().cpu()
            error = (found - expected).double()
            power = float(error.square().sum())
            level_db = 10 * np.log10(float(expected.double().square().sum()) / power) if power else np.inf
            rows.append(f"| {precision} | {float(error.abs().max()):.1e} | {level_db:.1f} |")
    return ["| precision | largest difference | SDR in dB |", "|---|--:|--:|", *rows]


def graphed(model: nn.Module, mix: Tensor) -> Callable[[], object]:
    """Record one pass as a CUDA graph and return what replays it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        model(mix)
    return graph.replay


def separation(scale: Scale) -> list[str]:
    """One segment per call through demucs and through ours: plain, compiled, as a CUDA graph, in lower precision."""
    theirs, ours = pair(scale)
    mix = noise(scale.batch, scale.seconds).to(scale.device)
    rows = []
    with torch.no_grad():
        ways: list[tuple[str, str, Callable[[], object]]] = [
            ("demucs 4.1.0", "fp32", lambda: theirs(mix)),
            *(("polyres", precision, lambda: ours(mix)) for precision in ("fp32", "tf32", "bf16")),
        ]
        if scale.device.type == "cuda":
            compiled = torch.compile(ours)
            ways += [("polyres, compiled", precision, lambda: compiled(mix)) for precision in ("tf32", "bf16")]
            ways += [("polyres, CUDA graph", "tf32", None)]  # type: ignore[list-item]
        peer = 0.0
        for name, precision, do in ways:
            peak_mib(scale.device)
            with matmul(precision, scale.device):
                try:
                    took_s = seconds_of(do or graphed(ours, mix), scale)
                except Exception as error:  # what a compiler or a recording cannot do is a result too
                    rows.append(f"| {name} | {precision} | {type(error).__name__} | | | |")
                    continue
            peer = peer or took_s
            cells = (1000 * took_s, scale.batch * scale.seconds / took_s, peer / took_s)
            numbers = "{:.1f} | {:.0f} | {:.2f}".format(*cells)
            rows.append(f"| {name} | {precision} | {numbers} | {peak_mib(scale.device)} |")
        close = float((theirs(mix) - ours(mix)).abs().max())
    head = ["| program | precision | ms | × real time | ratio | peak MiB |", "|---|---|--:|--:|--:|--:|"]
    return [*head, *rows, "", f"Largest difference between the two in fp32: {close:.1e}."]


def scores(scale: Scale) -> list[str]:
    """BSSEval of four stereo stems on the device, on the CPU, and by museval."""
    seconds = 60.0 if scale.repeats > 1 else 4.0
    references, estimates = make_track(seconds, 4, 2, seed=0)
    on_device = [torch.from_numpy(wave).to(scale.device) for wave in (references, estimates)]
    start = time.perf_counter()
    true, given = references.transpose(0, 2, 1), estimates.transpose(0, 2, 1)
    expected = museval_metrics().bss_eval(true, given, window=RATE_HZ, hop=RATE_HZ)[0]
    museval_s = time.perf_counter() - start
    cpu_s = seconds_of(lambda: bss_eval(references, estimates), scale)
    device_s = seconds_of(lambda: bss_eval(*on_device), scale)
    largest = float(np.nanmax(np.abs(bss_eval(*on_device)["SDR"].cpu().numpy() - expected)))
    times = {"museval 0.4.1": museval_s, "polyres, cpu": cpu_s, f"polyres, {scale.device.type}": device_s}
    rows = [f"| {name} | {took_s:.2f} | {museval_s / took_s:.1f} |" for name, took_s in times.items()]
    return [
        f"| {seconds:g} s | s | ratio |",
        "|---|--:|--:|",
        *rows,
        "",
        f"Largest difference to museval: {largest:.1e} dB.",
    ]


def training(scale: Scale) -> list[str]:
    """Optimiser steps a second and memory, per variant, in fp32 and in bfloat16."""
    rows = []
    for name in scale.variants:
        for precision in ("tf32", "bf16"):
            torch.manual_seed(0)
            small = {"channels": scale.channels // 2} if scale.repeats == 1 else {}
            model = Separator(variant(name).with_values(small)).to(scale.device).train()
            optimiser = torch.optim.Adam(model.parameters(), lr=3e-4, fused=scale.device.type == "cuda")
            mix = noise(scale.batch, min(scale.seconds, 3.0)).to(scale.device)

            def step(model: Separator = model, optimiser: torch.optim.Adam = optimiser, mix: Tensor = mix) -> None:
                optimiser.zero_grad()
                loss = model(mix).float().abs().mean()
                loss.backward()
                optimiser.step()

            peak_mib(scale.device)
            with matmul(precision, scale.device):
                took_s = seconds_of(step, scale)
            parameters = sum(value.numel() for value in model.parameters())
            rows.append(f"| {name} | {parameters:,} | {precision} | {1 / took_s:.2f} | {peak_mib(scale.device)} |")
    shape = f"batch {scale.batch}, {min(scale.seconds, 3.0):g} s"
    return [
        f"| variant ({shape}) | parameters | precision | steps a second | peak MiB |",
        "|---|--:|---|--:|--:|",
        *rows,
    ]


PARTS = {"Parity": parity, "Separation": separation, "BSSEval": scores, "Training": training}


def run(scale: Scale, out: Path, parts: Sequence[str]) -> int:
    """Do the parts and write their tables; return how many failed."""
    out.mkdir(parents=True, exist_ok=True)
    name = torch.cuda.get_device_name(scale.device) if scale.device.type == "cuda" else "CPU"
    pages, failed, start = [f"# {name}, torch {torch.__version__}"], 0, time.monotonic()
    for part in parts:
        if time.monotonic() - start > scale.limit_s:
            pages.append(f"## {part}\n\nnot begun: out of time")
            continue
        try:
            lines = PARTS[part](scale)
        except Exception as error:  # the other parts are worth having
            lines, failed = [f"failed: {type(error).__name__}: {error}"], failed + 1
        pages.append("\n".join([f"## {part}", "", *lines]))
        print(pages[-1], "\n", flush=True)
        (out / "gpu.md").write_text("\n\n".join(pages) + "\n", encoding="utf-8")
    return failed


def main(words: Sequence[str] | None = None) -> int:
    """Parse the command line and run; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--quick", action="store_true", help="tiny networks and short sounds, to try the script")
    parser.add_argument("--out", type=Path, default=Path("gpu"), help="folder of gpu.md (default: gpu)")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--limit", type=float, default=400.0, help="no part begins after so many seconds (default 400)")
    given = parser.parse_args(words)
    device = torch.device(given.device)
    if given.quick:
        scale = Scale(device, 8, 1.0, 1, 1, ("htdemucs_24", "n"), given.limit)
    else:
        scale = Scale(device, 48, 7.8, 10, 4, VARIANTS, given.limit)
    return 1 if run(scale, given.out, given.parts) else 0


if __name__ == "__main__":
    sys.exit(main())
