"""Time of separating one file: polyres against demucs 4.1.0, same random tensors, same run.

    python benchmarks/speed.py [--seconds 60] [--threads 2] [--repeats 3]

Each measurement is a process of its own that loads the model, warms up on one segment and then separates the file from
disk into memory. The two programs take turns, and the table shows the median. The released architecture is used
(41 984 456 parameters) with random weights, since only time and equality are measured. Needs the `test` extra.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import soundfile
import torch

RATE_HZ = 44100


def make_package(folder: Path) -> Path:
    """Write an official-style package with random tensors of the released architecture."""
    from demucs.htdemucs import HTDemucs

    torch.manual_seed(0)
    model = HTDemucs(["drums", "bass", "other", "vocals"], dconv_mode=3, bottom_channels=512, segment=Fraction(39, 5))
    for name, value in model.named_parameters():
        if name.endswith("scale"):  # residual branches start near zero; let them count
            value.data.uniform_(0.1, 0.3)
    args, kwargs = model._init_args_kwargs
    package = {"klass": HTDemucs, "args": args, "kwargs": kwargs, "state": model.state_dict(), "training_args": {}}
    torch.save(package, folder / "package.th")
    digest = hashlib.sha256((folder / "package.th").read_bytes()).hexdigest()[:8]
    return (folder / "package.th").rename(folder / f"0badc0de-{digest}.th")


def make_song(path: Path, seconds: float) -> None:
    """Write a stereo file: a few decaying tones and clicks over noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(int(seconds * RATE_HZ)) / RATE_HZ
    tones = sum(
        np.sin(2 * np.pi * f * time_s) * np.exp(-((time_s * r) % 1) * 5) for f, r in ((55, 2), (220, 3), (880, 4))
    )
    wave = 0.1 * np.stack([tones, np.roll(tones, 4410)]) + 0.03 * rng.standard_normal((2, len(time_s)))
    soundfile.write(path, wave.T, RATE_HZ, subtype="PCM_16")


def child(program: str, package: Path, song: Path, out: Path, threads: int) -> None:
    """Separate once after a warm-up; print the seconds and save the stems."""
    torch.set_num_threads(threads)
    warm = torch.randn(2, 7 * RATE_HZ, generator=torch.Generator().manual_seed(1)) * 0.1
    if program == "demucs":
        from demucs.api import Separator

        separator = Separator(model=package.name.split("-")[0], repo=package.parent, shifts=0, device="cpu")
        separator.separate_tensor(warm, RATE_HZ)
        start, processor = time.perf_counter(), time.process_time()
        _, stems = separator.separate_audio_file(song)
    else:
        import polyres
        from polyres.audio.files import read_audio

        precision = program.removeprefix("polyres-")
        ours = polyres.load_separator(package, device="cpu", precision=precision)
        ours.separate(warm, RATE_HZ)
        start, processor = time.perf_counter(), time.process_time()
        wave, rate_hz = read_audio(song)
        stems = ours.separate(torch.from_numpy(wave), rate_hz)
    spent = {"seconds": time.perf_counter() - start, "processor_s": time.process_time() - processor}
    np.save(out, np.stack([stems[name].numpy() for name in ("drums", "bass", "other", "vocals")]))
    print(json.dumps(spent))


def measure(program: str, package: Path, song: Path, out: Path, threads: int) -> float:
    """Run one child and return its seconds."""
    command = [
        sys.executable,
        __file__,
        "--child",
        program,
        str(package),
        str(song),
        str(out),
        "--threads",
        str(threads),
    ]
    own = {} if program == "demucs" else {"THP_MEM_ALLOC_ENABLE": "1"}  # what the polyres command sets for itself
    done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, **own})
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"])


def compare(seconds: float, threads: int, repeats: int) -> None:
    """Measure in turns and print a table."""
    programs = ("demucs", "polyres-fp32", "polyres-auto")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        package, song = make_package(folder), folder / "song.wav"
        make_song(song, seconds)
        times: dict[str, list[float]] = {program: [] for program in programs}
        for _ in range(repeats):
            for program in programs:
                times[program].append(measure(program, package, song, folder / f"{program}.npy", threads))
        stems = {program: np.load(folder / f"{program}.npy").astype(np.float64) for program in programs}
    peer = statistics.median(times["demucs"])
    print(f"{seconds:g} s of stereo, {threads} threads, median of {repeats} turns")
    print("| program | seconds | ratio | largest difference to demucs | SDR against demucs |")
    print("|---|---|---|---|---|")
    for program in programs:
        median = statistics.median(times[program])
        error = stems[program] - stems["demucs"]
        power = (error**2).sum()
        sdr_db = f"{10 * np.log10((stems['demucs'] ** 2).sum() / power):.1f} dB" if power else "-"
        print(f"| {program} | {median:.2f} | {peer / median:.2f} | {np.abs(error).max():.1e} | {sdr_db} |")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the file")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        program, package, song, out = arguments.child
        child(program, Path(package), Path(song), Path(out), arguments.threads)
    else:
        compare(arguments.seconds, arguments.threads, arguments.repeats)


if __name__ == "__main__":
    main()
