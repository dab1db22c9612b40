"""Peak memory of a command against the length of the file, each length in a process of its own.

    python benchmarks/memory.py                                  # 1 and 60 minutes through a model that costs nothing
    python benchmarks/memory.py --model default --minutes 1 3    # a real model
    python benchmarks/memory.py --task reconstruct encode decode --model polyres_wave --minutes 1 30 --channels 1

`separate` is the default; `reconstruct`, `encode` and `decode` run `polyres` as users do, with a codec as the model.
The model `cheap` gives every source a quarter of the mixture: reading, resampling, cutting, cross-fading, scratch files
and encoding are real, only the network is not.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import torch
from torch import Tensor, nn

from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.batch.jobs import OutputOptions, plan_jobs
from polyres.separation.ensemble import Ensemble, Member
from polyres.separation.files import TrackResult, separate_track
from polyres.separation.options import SeparateOptions

CHEAP = "cheap"
SOURCES = ("drums", "bass", "other", "vocals")
SEGMENT_SAMPLES = 343_980
TASKS = ("separate", "reconstruct", "encode", "decode")


class Quarter(nn.Module):
    """Every source is a quarter of the mixture."""

    def forward(self, mix: Tensor) -> Tensor:
        return (mix / len(SOURCES)).unsqueeze(1).repeat(1, len(SOURCES), 1, 1)


def peak_mib() -> float:
    """Largest memory this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1024 * 1024 if sys.platform == "darwin" else 1024)


def write_song(path: Path, minutes: float, rate_hz: int, channels: int) -> None:
    """Write noise block by block."""
    generator = torch.Generator().manual_seed(0)
    left = round(minutes * 60 * rate_hz)
    with AudioWriter(path, WriteSpec(rate_hz, channels, path.suffix[1:], 16)) as writer:
        while left:
            block = 0.1 * torch.randn(channels, min(left, rate_hz), generator=generator)
            writer.write(block.numpy())
            left -= block.shape[1]


def separate(model: str, path: Path, out: Path) -> tuple[float, TrackResult]:
    """Separate one file; also returns the peak before, with the model loaded."""
    output = OutputOptions("flac", 16)
    if model != CHEAP:
        from polyres.separation.load import load_separator

        separator = load_separator(model, device="cpu")
        return peak_mib(), separator.separate_file(path, out, output=output)
    from polyres.separation.load import torch_runner

    member = Member(torch_runner(Quarter(), torch.device("cpu"), "fp32"), SEGMENT_SAMPLES, (1.0,) * len(SOURCES))
    ensemble = Ensemble((member,), SOURCES, 44100, 2, "fp32")
    job = plan_jobs([path], out, CHEAP)[0]
    return peak_mib(), separate_track(ensemble, (CHEAP, ""), job, SeparateOptions(), output)


def code(task: str, codec: str, folder: Path) -> float:
    """Run a command on the song of a folder; returns the peak before, with the codec loaded."""
    from polyres.cli.main import main as polyres
    from polyres.codec.load import load_codec

    coded, chosen = str(folder / "z.safetensors"), ["--codec", codec, "--device", "cpu", "--overwrite"]
    load_codec(codec, "cpu")
    before = peak_mib()
    words = {
        "reconstruct": ["reconstruct", str(folder / "song.flac"), "--out", str(folder / "out")],
        "encode": ["encode", str(folder / "song.flac"), "-o", coded],
        "decode": ["decode", coded, "-o", str(folder / "again.flac")],
    }
    if polyres([*words[task], *chosen]) != 0:
        raise SystemExit(f"polyres {task} failed")
    return before


def child(task: str, model: str, minutes: float, folder: Path) -> None:
    """Measure one length and print it as JSON."""
    torch.set_num_threads(2)
    began = time.perf_counter()
    if task == "separate":
        before = separate(model, folder / "song.flac", folder / "out")[0]
    else:
        with redirect_stdout(sys.stderr):
            before = code(task, model, folder)
    row = {"minutes": minutes, "before_mib": before, "peak_mib": peak_mib(), "seconds": time.perf_counter() - began}
    print(json.dumps(row))


def measure(model: str, minutes: float, rate_hz: int, channels: int = 2, task: str = "separate") -> dict[str, float]:
    """Make a song and work on it in a fresh process."""
    with tempfile.TemporaryDirectory() as name:
        write_song(Path(name) / "song.flac", minutes, rate_hz, channels)

        def run(what: str) -> str:
            command = [sys.executable, __file__, "--child", name, "--model", model, "--task", what]
            done = subprocess.run([*command, "--minutes", str(minutes)], check=True, stdout=subprocess.PIPE, text=True)
            return done.stdout

        if task == "decode":
            run("encode")
        row: dict[str, float] = json.loads(run(task))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 60])
    parser.add_argument("--model", default=CHEAP, help="a model, or a codec for the other tasks")
    parser.add_argument("--task", nargs="+", choices=TASKS, default=["separate"])
    parser.add_argument("--rate", type=int, default=48000, help="sample rate of the songs in Hz")
    parser.add_argument("--channels", type=int, default=2, help="of the songs")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.child is not None:
        child(chosen.task[0], chosen.model, chosen.minutes[0], chosen.child)
        return
    began = time.perf_counter()
    print(f"model {chosen.model}, {chosen.rate} Hz, {chosen.channels} channels, flac\n")
    print(
        "| command | minutes | peak with the model loaded, MiB | peak, MiB | seconds |\n|---|---|---|---|---|",
        flush=True,
    )
    for task in chosen.task:
        for minutes in chosen.minutes:
            row = measure(chosen.model, minutes, chosen.rate, chosen.channels, task)
            numbers = f"{row['before_mib']:.0f} | {row['peak_mib']:.0f} | {row['seconds']:.1f}"
            print(f"| {task} | {minutes:g} | {numbers} |", flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
