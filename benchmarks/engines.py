"""Engines against each other, in one run: the model alone, a file through the command, and its first stem.

    python benchmarks/engines.py [--model default] [--repeats 3] [--engines torch onnxruntime openvino]

Engines take turns; the table shows the median of each column and the ratio of processor times to torch. Graphs are
made first where they are missing (`polyres export`). The load that the machine has before is printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import soundfile
from busy import Cost, environment, whole_process
from speed import make_song

from polyres.core.process import usable_processors
from polyres.separation.engines import EXPORT_KINDS, graph_path

SONG_S = 10.0


CHILD = """
import json, sys, time
import numpy as np
import polyres

polyres.tune_cpu()  # before torch is imported, as the command does
from polyres.separation.engines import ENGINES

separator = ENGINES.build(sys.argv[1], sys.argv[2], "cpu", "fp32")
(member,) = separator._ensemble.members
shape = 1, separator.audio_channels, member.segment_samples
mix = np.random.default_rng(0).standard_normal(shape, np.float32)
costs = []
for turn in range(4):
    start, processor_s = time.perf_counter(), time.process_time()
    member.run(mix)
    costs.append([time.perf_counter() - start, time.process_time() - processor_s])
print(json.dumps(sorted(costs[1:])[1]))
"""


def segment(engine: str, model: str) -> Cost:
    """One segment in a process of its own: the median of three, after a first."""
    command = [sys.executable, "-c", CHILD, engine, model]
    done = subprocess.run(
        command, env=environment({"THP_MEM_ALLOC_ENABLE": "1"}), capture_output=True, text=True, check=True
    )
    return Cost(*json.loads(done.stdout.splitlines()[-1]))


def file(engine: str, model: str, song: Path, out: Path, first: bool) -> Cost:
    """`polyres separate` on a file, as a whole process, or until its first stem is there."""
    words = ["-m", "polyres", "separate", str(song), "--model", model, "--engine", engine, "--out", str(out)]
    words += ["--precision", "fp32", "--device", "cpu", "--bit-depth", "float"]
    return whole_process(words, {}, out if first else None)


def measure(model: str, engines: list[str], repeats: int, folder: Path) -> None:
    """Measure all engines by turns and print the table."""
    load = os.getloadavg()[0]
    for engine in engines:
        if engine in EXPORT_KINDS and not graph_path(model, engine).is_file():
            whole_process(["-m", "polyres", "export", model, "--to", EXPORT_KINDS[engine]], {})
    make_song(folder / "song.wav", SONG_S)
    costs: dict[str, list[tuple[Cost, Cost, Cost]]] = {engine: [] for engine in engines}
    for turn in range(repeats):
        for engine in engines:
            outs = [folder / f"{engine}-{turn}-{name}" for name in ("first", "whole")]
            song = folder / "song.wav"
            files = (file(engine, model, song, out, first) for out, first in zip(outs, (True, False), strict=True))
            costs[engine].append((segment(engine, model), *files))
    print(f"{usable_processors()} processors, load before {load:.1f}, file of {SONG_S:g} s, medians of {repeats}\n")
    print("| engine | segment wall s | processor s | ratio | file wall s | processor s | first stem s | off torch |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    for engine in engines:
        one, first, whole = ([turn[column] for turn in costs[engine]] for column in range(3))
        values = [statistics.median(cost.wall_s for cost in one), statistics.median(cost.processor_s for cost in one)]
        base = statistics.median(turn[0].processor_s for turn in costs[engines[0]])
        values += [base / values[1]]
        values += [statistics.median(getattr(cost, name) for cost in whole) for name in ("wall_s", "processor_s")]
        values += [statistics.median(cost.wall_s for cost in first)]
        cells = " | ".join(f"{value:.2f}" for value in values)
        print(f"| {engine} | {cells} | {difference(folder, engines[0], engine):.1e} |")


def difference(folder: Path, reference: str, engine: str) -> float:
    """Largest difference between the stems that two engines wrote."""
    pairs = zip(*(sorted((folder / f"{name}-0-whole").rglob("*.wav")) for name in (reference, engine)), strict=True)
    return max(float(np.abs(soundfile.read(a)[0] - soundfile.read(b)[0]).max()) for a, b in pairs)


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--engines", nargs="+", default=["torch", "onnxruntime"], help="the first is the reference")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measure(options.model, options.engines, options.repeats, Path(folder))


if __name__ == "__main__":
    main()
