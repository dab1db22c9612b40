"""Draw the log spectrograms of a mixture and of its four stems as polyres wrote them.

    python docs/stems_figure.py SONG STEM_FOLDER OUT.png [--start 60] [--seconds 20]

STEM_FOLDER is what `polyres separate SONG` made, for example separated/polyres-small/SONG. Needs the `figures` extra.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib
import numpy as np
import torch

from polyres.audio.files import read_audio
from polyres.dsp.stft import stft

matplotlib.use("Agg")
from matplotlib import pyplot as plt

N_FFT, HOP = 2048, 512
LOW_HZ, HIGH_HZ = 40, 16000


def level_db(path: Path, start_s: float, seconds: float) -> tuple[np.ndarray, int]:
    """Spectrogram in dB `[F, N]` of the mono part of a file, and its sample rate."""
    _, rate_hz = read_audio(path, 0, 1)
    wave, _ = read_audio(path, int(start_s * rate_hz), int(seconds * rate_hz))
    spec = stft(torch.from_numpy(wave).mean(dim=0), N_FFT, HOP)
    return (20 * torch.log10(spec.abs() + 1e-6)).numpy(), rate_hz


def main() -> None:
    """Parse the command line and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("song", type=Path)
    parser.add_argument("stems", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--start", type=float, default=60.0, help="seconds")
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    names = ["mixture", "drums", "bass", "other", "vocals"]
    paths = [arguments.song, *(next(arguments.stems.glob(f"{name}.*")) for name in names[1:])]
    spectra = [level_db(path, arguments.start, arguments.seconds) for path in paths]
    top = max(float(level.max()) for level, _ in spectra)
    figure, axes = plt.subplots(5, 1, figsize=(10, 11), sharex=True, layout="constrained")
    for axis, name, (level, rate_hz) in zip(axes, names, spectra, strict=True):
        times = arguments.start + (np.arange(level.shape[1]) + 0.5) * HOP / rate_hz
        bins_hz = np.arange(level.shape[0]) * rate_hz / N_FFT
        image = axis.pcolormesh(times, bins_hz, level, vmin=top - 80, vmax=top, cmap="magma", rasterized=True)
        axis.set(yscale="log", ylim=(LOW_HZ, HIGH_HZ), ylabel="Hz")
        axis.set_title(name, loc="left", fontsize=11, fontweight="bold")
    axes[-1].set_xlabel("time in s")
    figure.colorbar(image, ax=axes, label="level in dB", shrink=0.5)
    figure.savefig(arguments.out, dpi=90)


if __name__ == "__main__":
    main()
