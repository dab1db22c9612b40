"""Phase methods on exact magnitudes of your own music: error and speed, beside librosa where that is installed.

    python benchmarks/phase.py song.ogg… [--seconds 10] [--iterations 32] [--threads 1] [--repeats 3]

Each file is mixed down, resampled to 16 kHz and cut to an excerpt from its middle; its magnitudes (Hann 1024, hop 160)
are all that the methods see. The error is spectral convergence in dB, lower is better: the norm of the difference
between the magnitudes of the result and the given ones, over the norm of those. The programs take turns, and the time
is the median of the turns, in processor seconds per second of audio, so that other programs matter less.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyres.audio.files import probe, read_audio
from polyres.audio.resample import resample
from polyres.dsp.phase import PHASE_METHODS, reconstruct_phase

try:
    import librosa
except ImportError:
    librosa = None

N_FFT, HOP, RATE_HZ = 1024, 160, 16000
Method = Callable[[Tensor, int], Tensor]


def excerpt(path: Path, seconds: float) -> Tensor:
    """Read the middle of a file as 16 kHz mono, a whole number of hops."""
    info = probe(path)
    wanted = int(seconds * info.sample_rate_hz)
    start = max(0, (info.length_samples or wanted) - wanted) // 2
    wave, rate_hz = read_audio(path, start, wanted)
    mono = resample(wave.mean(axis=0, keepdims=True), rate_hz, RATE_HZ)[0]
    return torch.from_numpy(np.ascontiguousarray(mono[: len(mono) // HOP * HOP]))


def magnitudes(wave: Tensor) -> Tensor:
    """Return `[F, N]`."""
    window = torch.hann_window(N_FFT)
    return torch.stft(wave, N_FFT, HOP, window=window, center=True, return_complex=True).abs()


def ours(name: str) -> Method:
    """Return one of our methods."""
    return lambda magnitude, iterations: reconstruct_phase(magnitude, name, N_FFT, HOP, iterations)


def librosas(momentum: float) -> Method:
    """Return librosa's Griffin-Lim."""

    def run(magnitude: Tensor, iterations: int) -> Tensor:
        wave = librosa.griffinlim(
            magnitude.numpy(),
            n_iter=iterations,
            hop_length=HOP,
            n_fft=N_FFT,
            momentum=momentum,
            pad_mode="reflect",
            random_state=0,
        )
        return torch.from_numpy(wave)

    return run


def compare(paths: list[Path], seconds: float, iterations: int, repeats: int) -> None:
    """Measure in turns and print a table."""
    methods: dict[str, Method] = {name: ours(name) for name in PHASE_METHODS.names()}
    if librosa is not None:
        methods[f"librosa {librosa.__version__}, momentum 0"] = librosas(0.0)
        methods[f"librosa {librosa.__version__}, momentum 0.99"] = librosas(0.99)
    errors_db: dict[str, list[float]] = {name: [] for name in methods}
    costs: dict[str, list[float]] = {name: [] for name in methods}
    for path in paths:
        wave = excerpt(path, seconds)
        magnitude = magnitudes(wave)
        for turn in range(repeats):
            for name, method in methods.items():
                if turn == 0 and path == paths[0]:
                    method(magnitude, 1)  # warm-up
                start = time.process_time()
                result = method(magnitude, iterations)
                costs[name].append((time.process_time() - start) * RATE_HZ / len(wave))
                if turn == 0:
                    error = (magnitudes(result) - magnitude).norm() / magnitude.norm()
                    errors_db[name].append(float(20 * torch.log10(error)))
    print(f"{len(paths)} files of {seconds:g} s, {iterations} iterations, {torch.get_num_threads()} threads")
    print("| method | median dB | worst dB | best dB | seconds per second of audio |")
    print("|---|---|---|---|---|")
    for name, found in errors_db.items():
        middle, cost = statistics.median(found), statistics.median(costs[name])
        print(f"| {name} | {middle:.1f} | {max(found):.1f} | {min(found):.1f} | {cost:.4f} |")


def main() -> None:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path, help="audio files")
    parser.add_argument("--seconds", type=float, default=10.0, help="length of the excerpt of each file")
    parser.add_argument("--iterations", type=int, default=32)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    compare(arguments.paths, arguments.seconds, arguments.iterations, arguments.repeats)


if __name__ == "__main__":
    main()
