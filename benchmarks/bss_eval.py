"""BSSEval v4 against museval 0.4.1: time of the full set and of SDR alone, and largest difference, in one run.

    python benchmarks/bss_eval.py                 # 60 s, four stereo sources
    python benchmarks/bss_eval.py --seconds 10    # museval takes about a minute less

Wall time is what a user waits; processor time stays meaningful on a computer that is busy with other work.
"""

from __future__ import annotations

import argparse
import importlib.util
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from polyres.metrics.track_score import bss_eval, framewise_sdr

RATE_HZ = 44100
NAMES = ("SDR", "ISR", "SIR", "SAR")


def museval_metrics() -> ModuleType:
    """Load `museval/metrics.py` alone: the package itself asks for an ffmpeg program on import."""
    spec = importlib.util.find_spec("museval")
    if spec is None or spec.origin is None:
        raise SystemExit("museval is not installed; pip install museval==0.4.1")
    inner = importlib.util.spec_from_file_location("museval_metrics", Path(spec.origin).parent / "metrics.py")
    assert inner is not None
    assert inner.loader is not None
    module = importlib.util.module_from_spec(inner)
    inner.loader.exec_module(module)
    return module


def make_track(seconds: float, sources: int, channels: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Sources with falling spectra and their estimates with leakage and noise, both as 16-bit files hold them."""
    generator = np.random.default_rng(seed)
    length = round(seconds * RATE_HZ)
    slope = 1 / np.maximum(np.fft.rfftfreq(length, 1 / RATE_HZ), 50)
    white = generator.standard_normal((sources, channels, length))
    references = np.fft.irfft(np.fft.rfft(white) * slope, n=length)
    references *= 0.3 / np.abs(references).max()
    estimates = 0.9 * references + 0.1 * np.roll(references, 1, axis=0)
    estimates += 0.003 * generator.standard_normal(references.shape)
    return np.round(references * 32768) / 32768, np.round(estimates * 32768) / 32768


def timed(function: Callable[[], object], repeats: int) -> tuple[object, float, float]:
    """Result, shortest wall time and shortest processor time in seconds."""
    wall_s, processor_s = [], []
    result: object = None
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        result = function()
        wall_s.append(time.perf_counter() - wall)
        processor_s.append(time.process_time() - processor)
    return result, min(wall_s), min(processor_s)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the track (default 60)")
    parser.add_argument("--sources", type=int, default=4)
    parser.add_argument("--channels", type=int, default=2)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch (default 1)")
    parser.add_argument("--repeats", type=int, default=3, help="runs of ours; the shortest counts (default 3)")
    parser.add_argument("--device", default="cpu", help="where ours is computed (default cpu)")
    parser.add_argument("--skip-museval", action="store_true", help="time ours alone")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    references, estimates = make_track(options.seconds, options.sources, options.channels, seed=0)

    bss_eval(references[..., :RATE_HZ], estimates[..., :RATE_HZ], device=options.device)  # libraries load on first use
    rows = []
    ours, *times = timed(lambda: bss_eval(references, estimates, device=options.device), options.repeats)
    rows.append(("polyres, full set", *times))
    _, *times = timed(lambda: framewise_sdr(references, estimates, device=options.device), options.repeats)
    rows.append(("polyres, SDR alone", *times))
    slowest = None
    if not options.skip_museval:
        module = museval_metrics()
        true, given = references.transpose(0, 2, 1), estimates.transpose(0, 2, 1)
        theirs, *slowest = timed(lambda: module.bss_eval(true, given, window=RATE_HZ, hop=RATE_HZ), 1)
        rows.append(("museval 0.4.1", *slowest))

    shape = f"{options.seconds:g} s, {options.sources} sources, {options.channels} channels"
    print(f"{shape}, {options.threads} thread(s) of torch, {options.device}\n")
    print("| | wall s | processor s | × wall | × processor |")
    print("|---|--:|--:|--:|--:|")
    for name, wall_s, processor_s in rows:
        ratios = f"{slowest[0] / wall_s:.1f} | {slowest[1] / processor_s:.1f}" if slowest else "– | –"
        print(f"| {name} | {wall_s:.2f} | {processor_s:.2f} | {ratios} |")
    if slowest:
        differences = [np.nanmax(np.abs(ours[name] - values)) for name, values in zip(NAMES, theirs[:4], strict=True)]
        print(
            "\nlargest difference in dB: " + ", ".join(f"{n} {d:.1e}" for n, d in zip(NAMES, differences, strict=True))
        )


if __name__ == "__main__":
    main()
