"""A codec against plain resampling at the same rate: `python benchmarks/codec.py FOLDER [--codec NAME]`.

Every file is turned into mono at the codec's rate. SNR, log-spectral distance (log10 of power), error of the energy
above 4 kHz in dB, stored numbers per second, and seconds of one processor per second of sound (encoding and decoding);
beside them the control: resampling to 3.2 kHz, which keeps 3 200 numbers per second of mono, and back. The codec's
wave is decoded from latents that went through a file. `--r3` adds the distance of 64 mels, non-negative least squares
and a phase method, which is no waveform codec.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from polyres.data.audio import read_audio
from polyres.data.resample import resample
from polyres.inference.codec import load_codec
from polyres.metrics.reconstruction_level import matched
from polyres.metrics.reconstruction_spectra import log_spectral_distance, metric_magnitude
from polyres.models.codec_latent import Latent
from polyres.ops.mel import AUDIOLDM2_16K, mel_of_magnitude
from polyres.ops.mel_inverse import mel_to_linear
from polyres.ops.phase import reconstruct_phase

CONTROL_HZ = 3200
HEADER = ("SNR", "LSD", ">4k", "n/s", "RTF", "SNR", "LSD", ">4k")


def snr_db(x: np.ndarray, y: np.ndarray) -> float:
    """Energy of the original over that of the error."""
    return float(10 * np.log10(np.square(x).sum() / max(np.square(x - y).sum(), 1e-20)))


def high_db(x: np.ndarray, y: np.ndarray, sample_rate_hz: int) -> float:
    """Energy above 4 kHz over that of the original."""
    low = int(4000 / sample_rate_hz * x.shape[-1])
    energies = [np.square(np.abs(np.fft.rfft(wave)[..., low:])).sum() for wave in (y, x)]
    return float(10 * np.log10(max(energies[0], 1e-20) / max(energies[1], 1e-20)))


def lsd(x: np.ndarray, y: np.ndarray, sample_rate_hz: int) -> float:
    """Log-spectral distance as the ladder has it, at equal level."""
    true, given = torch.from_numpy(x).double(), torch.from_numpy(y).double()
    magnitudes = (metric_magnitude(wave, sample_rate_hz) for wave in (true, matched(true, given)))
    return float(log_spectral_distance(*magnitudes))


def mel_chain(x: np.ndarray) -> np.ndarray:
    """64 mels, least squares, phases by pghi+fgla."""
    wave = torch.from_numpy(x[0])
    magnitude = torch.stft(wave, 1024, 160, window=torch.hann_window(1024), return_complex=True).abs()
    linear = mel_to_linear(mel_of_magnitude(magnitude, AUDIOLDM2_16K), AUDIOLDM2_16K)
    return reconstruct_phase(linear, "pghi+fgla", 1024, 160, 32, length_samples=x.shape[-1])[None].numpy()


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codec", default="polyres_wave")
    parser.add_argument("--max-seconds", type=float, default=None)
    parser.add_argument("--r3", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec = load_codec(args.codec, "cpu")
    rate, rows = codec.sample_rate_hz, []
    names = [*HEADER, *(["LSD R3"] if args.r3 else [])]
    print(f"{'':32}{'codec':^35}{'control':^21}\n{'file':<32}" + "".join(f"{name:>7}" for name in names))
    for path in sorted(path for path in args.folder.iterdir() if path.suffix in {".wav", ".flac", ".ogg", ".mp3"}):
        wave, given = read_audio(path, length_samples=None)
        x = resample(wave.mean(axis=0, keepdims=True), given, rate)
        if args.max_seconds is not None:
            x = x[:, : int(args.max_seconds * rate)]
        if np.abs(x).max() < 1e-4:
            continue
        start = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            saved = codec.encode(torch.from_numpy(x), rate).save(Path(folder) / "z.safetensors")
            latent = Latent.load(saved)
        y = codec.decode(latent).numpy()
        seconds = time.process_time() - start
        control = resample(resample(x, rate, CONTROL_HZ), CONTROL_HZ, rate)[:, : x.shape[-1]]
        row = [snr_db(x, y), lsd(x, y, rate), high_db(x, y, rate), latent.scalars_per_second]
        row += [seconds / (x.shape[-1] / rate)]
        row += [snr_db(x, control), lsd(x, control, rate), high_db(x, control, rate)]
        row += [lsd(x, mel_chain(x), rate)] if args.r3 else []
        rows.append(row)
        print(f"{path.name[:31]:<32}" + "".join(f"{value:7.2f}" for value in row), flush=True)
    if not rows:
        print(f"{args.folder} holds no sound", file=sys.stderr)
        return 2
    print(f"{'median':<32}" + "".join(f"{statistics.median(column):7.2f}" for column in zip(*rows, strict=True)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
