"""Time of one training step: polyres against demucs 4.1.0's HTDemucs of equal size, same data, same run.

    python benchmarks/training.py [--channels 48] [--batch 2] [--seconds 3.9] [--threads 2] [--repeats 3] [--steps 4]

A step is forward, mean absolute error, backward, clipping and Adam, as in both projects' own training. Each measurement
is a process of its own: one step to warm up, then the median of the rest. The programs take turns; the table shows the
median over the turns. demucs' random shrinking of the segment is off, so both see the same samples. Needs the `test`
extra. Rows: `fp32` is equal arithmetic; `bf16` is what `precision: bf16` trains with where the processor has it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from fractions import Fraction

import torch
from torch import Tensor, nn

RATE_HZ = 44100
SOURCES = ("drums", "bass", "other", "vocals")
PROGRAMS = ("demucs", "polyres-fp32", "polyres-bf16")


def build(program: str, channels: int, seconds: float) -> nn.Module:
    """Build HTDemucs in its constructor's defaults, as either project has it."""
    if program == "demucs":
        from demucs.htdemucs import HTDemucs

        model = HTDemucs(list(SOURCES), channels=channels, segment=Fraction(seconds).limit_denominator(1000))
        model.use_train_segment = False
        return model
    from polyres.separation.model import Separator
    from polyres.separation.variants import variant

    return Separator(variant("htdemucs_48").with_values({"channels": channels}))


def step_of(program: str, model: nn.Module, mix: Tensor, stems: Tensor) -> Callable[[], float]:
    """Return a function that takes one optimiser step and gives its loss."""
    optimiser = torch.optim.Adam(model.parameters(), lr=3e-4, fused=program != "demucs")
    half = program == "polyres-bf16"

    def step() -> float:
        optimiser.zero_grad()
        with torch.autocast("cpu", torch.bfloat16) if half else nullcontext():
            estimate = model(mix)
        loss = (estimate.float() - stems).abs().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimiser.step()
        return float(loss.detach())

    return step


def child(program: str, arguments: argparse.Namespace) -> None:
    """Take the steps; print the median seconds and the number of parameters."""
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = build(program, arguments.channels, arguments.seconds).train()
    length = round(arguments.seconds * RATE_HZ)
    stems = 0.1 * torch.randn(arguments.batch, len(SOURCES), 2, length)
    step = step_of(program, model, stems.sum(dim=1), stems)
    step()
    times = []
    for _ in range(arguments.steps):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    count = sum(parameter.numel() for parameter in model.parameters())
    print(json.dumps({"seconds": statistics.median(times), "parameters": count}))


def compare(arguments: argparse.Namespace) -> None:
    """Measure in turns and print a table."""
    rows: dict[str, list[dict[str, float]]] = {program: [] for program in PROGRAMS}
    for _ in range(arguments.repeats):
        for program in PROGRAMS:
            own = (
                {} if program == "demucs" else {"THP_MEM_ALLOC_ENABLE": "1"}
            )  # what the polyres command sets for itself
            command = [sys.executable, __file__, *sys.argv[1:], "--child", program]
            done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **own})
            rows[program].append(json.loads(done.stdout.splitlines()[-1]))
    seconds = {program: statistics.median(row["seconds"] for row in found) for program, found in rows.items()}
    audio_s = arguments.batch * arguments.seconds
    print(
        f"{arguments.channels} channels, {arguments.batch} x {arguments.seconds:g} s, {arguments.threads} threads, "
        f"median of {arguments.repeats} turns of {arguments.steps} steps"
    )
    print("| program | parameters | seconds per step | seconds of audio per second | ratio |")
    print("|---|---|---|---|---|")
    for program in PROGRAMS:
        took_s = seconds[program]
        count = f"{rows[program][0]['parameters']:,}"
        print(f"| {program} | {count} | {took_s:.2f} | {audio_s / took_s:.2f} | {seconds['demucs'] / took_s:.2f} |")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--channels", type=int, default=48)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=3.9, help="length of a segment")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--child", choices=PROGRAMS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        child(arguments.child, arguments)
    else:
        compare(arguments)


if __name__ == "__main__":
    main()
