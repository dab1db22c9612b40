"""The same work on a quiet machine and beside busy loops: polyres, demucs 4.1.0 and museval 0.4.1, in one run.

    python benchmarks/busy.py            # about ten minutes on two quiet cores
    python benchmarks/busy.py --quick    # shorter sounds and no demucs, to try the script
    python benchmarks/busy.py --only bss_eval museval   # rows with these words alone

Every measurement is a process of its own. "Busy" means one endless loop per processor that this process may use,
started and ended around the measurement. Start it on a machine that does nothing else: the load that it finds is
printed. Needs the `test` extra.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
from bss_eval import RATE_HZ, museval_metrics, timed
from speed import make_package, make_song

from polyres.core.process import THREADS_VARIABLES, WAITING_VARIABLES, usable_processors

LOOP = "import os\nparent = os.getppid()\nwhile os.getppid() == parent:\n    for _ in range(1_000_000): pass"
STEMS = ("drums", "bass", "other", "vocals")


@dataclass(frozen=True)
class Cost:
    """Wall and processor time in seconds."""

    wall_s: float
    processor_s: float


@dataclass(frozen=True)
class Work:
    """One row of the table: a name and how to do it once."""

    name: str
    do: Callable[[], Cost]


@contextmanager
def busy_loops(count: int) -> Iterator[list[int]]:
    """Keep so many processors busy with processes that end with the block, and by themselves should this one die."""
    loops = [subprocess.Popen([sys.executable, "-S", "-c", LOOP]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0)
        yield [loop.pid for loop in loops]
    finally:
        for loop in loops:
            loop.kill()
        for loop in loops:
            loop.wait()


def environment(more: dict[str, str]) -> dict[str, str]:
    """The environment of this process without what says how threads wait or how many there are, and with `more`."""
    dropped = {*WAITING_VARIABLES, *THREADS_VARIABLES}
    return {name: value for name, value in os.environ.items() if name not in dropped} | more


def whole_process(command: Sequence[str], more: dict[str, str], until: Path | None = None) -> Cost:
    """Run a command; wall time until its end, or until the first sound file appears below a folder."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *command], env=environment(more), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    first_s = None
    while until is not None and first_s is None and process.poll() is None:
        first_s = time.perf_counter() - start if any(until.rglob("*.wav")) else None
        time.sleep(0.01)
    if process.returncode is None:
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    else:
        raise RuntimeError(f"{command} ended before its first file")
    if process.returncode:
        raise RuntimeError(f"{command} ended with {process.returncode}")
    return Cost(first_s or time.perf_counter() - start, usage.ru_utime + usage.ru_stime)


def separate(song: Path, folder: Path, more: dict[str, str], first: bool = False) -> Cost:
    """`polyres separate` with the default model, as a whole process."""
    with tempfile.TemporaryDirectory(dir=folder) as out:
        return whole_process(["-m", "polyres", "separate", str(song), "--out", out], more, Path(out) if first else None)


def of_child(script: str, words: Sequence[str], more: dict[str, str]) -> Cost:
    """Run a script of this folder that measures itself and prints its seconds."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *words]
    done = subprocess.run(command, env=environment(more), capture_output=True, text=True, check=True)
    values = json.loads(done.stdout.splitlines()[-1])
    return Cost(values["seconds"], values["processor_s"])


def make_scored_song(folder: Path, seconds: float, mono: bool) -> Path:
    """Compose a song and estimates of its stems with leakage and noise, as 16-bit files hold them."""
    songs = folder / "composed"
    if not songs.exists():
        command = ["-m", "polyres", "synth", str(songs), "--tracks", "1", "--length", "60"]
        whole_process([*command, "--instruments", "electronic"], {})
    stems = [soundfile.read(next(songs.rglob(f"{stem}.wav")), always_2d=True)[0].T for stem in STEMS]
    references = np.stack(stems)[..., -round(seconds * RATE_HZ) :]
    if mono:
        references = references.mean(1, keepdims=True).repeat(2, 1)
    noise = np.random.default_rng(0).standard_normal(references.shape)
    estimates = 0.9 * references + 0.1 * np.roll(references, 1, axis=0) + 0.003 * (noise[:, :1] if mono else noise)
    path = folder / f"scored_{'mono' if mono else 'stereo'}.npy"
    np.save(path, np.round(np.stack([references, estimates]) * 32768) / 32768)
    return path


def score(program: str, path: Path) -> None:
    """Score a made song once, after a first second in which libraries load; print the cost."""
    import polyres

    polyres.tune_cpu()
    references, estimates = np.load(path)
    if program == "museval":
        inner, window = museval_metrics().bss_eval, RATE_HZ
        references, estimates = references.transpose(0, 2, 1), estimates.transpose(0, 2, 1)
        _, wall_s, processor_s = timed(lambda: inner(references, estimates, window=window, hop=window), 1)
    else:
        from polyres.metrics.track_score import bss_eval

        bss_eval(references[..., :RATE_HZ], estimates[..., :RATE_HZ])
        _, wall_s, processor_s = timed(lambda: bss_eval(references, estimates), 1)
    print(json.dumps({"seconds": wall_s, "processor_s": processor_s}))


def works(folder: Path, quick: bool) -> list[Work]:
    """Make the sounds, and list what is to be measured."""
    long_s, peer_s, scored_s = (10.0, 0.0, 5.0) if quick else (30.0, 10.0, 60.0)
    long, short = folder / "long.wav", folder / "short.wav"
    make_song(long, long_s)
    make_song(short, 10.0)
    name = f"`polyres separate`, {long_s:g} s"
    found = [
        Work(f"{name}, passive", lambda: separate(long, folder, {})),
        Work(f"{name}, active", lambda: separate(long, folder, {"OMP_WAIT_POLICY": "ACTIVE"})),
        Work("first stem of a 10 s file", lambda: separate(short, folder, {}, first=True)),
    ]
    if peer_s:
        package, song = make_package(folder), folder / "peer.wav"
        make_song(song, peer_s)
        own = {"THP_MEM_ALLOC_ENABLE": "1", "OMP_WAIT_POLICY": "PASSIVE"}  # what the command sets for itself
        for program, more in (("demucs", {}), ("polyres-fp32", own), ("polyres-auto", own)):
            words = ["--child", program, str(package), str(song), str(folder / "stems.npy")]
            words += ["--threads", str(usable_processors())]
            title = f"{program.replace('demucs', 'demucs 4.1.0')}, same tensors, {peer_s:g} s"
            found.append(Work(title, lambda words=words, more=more: of_child("speed.py", words, more)))
    for kind in ("stereo", "mono"):
        path = make_scored_song(folder, scored_s, kind == "mono")
        for program in ("bss_eval", "museval"):
            words = ["--child", program, str(path)]
            title = f"{program.replace('museval', 'museval 0.4.1')}, {kind}, {scored_s:g} s"
            found.append(Work(title, lambda words=words: of_child("busy.py", words, {})))
    return found


def row(name: str, quiet: Cost, busy: Cost) -> str:
    """One line of the table."""
    values = (quiet.wall_s, quiet.processor_s, busy.wall_s, busy.processor_s)
    cells = " | ".join(f"{value:.2f}" for value in values)
    return f"| {name} | {cells} | {busy.wall_s / quiet.wall_s:.2f} | {busy.processor_s / quiet.processor_s:.2f} |"


def ratio_row(name: str, slow: tuple[Cost, Cost], fast: tuple[Cost, Cost]) -> str:
    """How many times as much one takes as the other: wall and processor time, quiet and busy."""
    pairs = ((a, b) for a, b in zip(slow, fast, strict=True))
    cells = [f"{a.wall_s / b.wall_s:.2f} | {a.processor_s / b.processor_s:.2f}" for a, b in pairs]
    return f"| {name} | {' | '.join(cells)} | | |"


def report(costs: dict[str, tuple[Cost, Cost]], loops: int, load: float) -> str:
    """The Markdown table, absolute rows first, then ratios."""
    heads = ("", "quiet wall s", "processor s", "busy wall s", "processor s", "× wall", "× processor")
    lines = [
        f"{loops} busy loops on {usable_processors()} processors; load before: {load:.1f}\n",
        f"| {' | '.join(heads)} |",
        "|---|" + "--:|" * (len(heads) - 1),
    ]
    lines += [row(name, quiet, busy) for name, (quiet, busy) in costs.items()]
    pairs = (("active", "passive"), ("demucs", "polyres-fp32"), ("demucs", "polyres-auto"))
    pairs += tuple((f"museval 0.4.1, {kind}", f"bss_eval, {kind}") for kind in ("stereo", "mono"))
    for slow, fast in pairs:
        ends = [next((name for name in costs if word in name), None) for word in (slow, fast)]
        if ends[0] and ends[1]:
            lines.append(ratio_row(f"{slow} ÷ {fast}", costs[ends[0]], costs[ends[1]]))
    return "\n".join(lines)


def compare(quick: bool, loops: int, only: Sequence[str]) -> None:
    """Measure every work quiet and busy, one after the other, and print the table."""
    load = os.getloadavg()[0]
    costs = {}
    with tempfile.TemporaryDirectory() as name:
        for work in works(Path(name), quick):
            if only and not any(word in work.name for word in only):
                continue
            quiet = work.do()
            with busy_loops(loops):
                costs[work.name] = (quiet, work.do())
            print(row(work.name, *costs[work.name]), file=sys.stderr, flush=True)
    print(report(costs, loops, load))


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short sounds, no demucs")
    parser.add_argument("--loops", type=int, default=usable_processors(), help="busy loops (default: all processors)")
    parser.add_argument("--only", nargs="+", default=[], metavar="WORD", help="only rows whose names hold one of these")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        score(options.child[0], Path(options.child[1]))
    else:
        compare(options.quick, options.loops, options.only)


if __name__ == "__main__":
    main()
