"""A codec against plain resampling at the same rate: `python benchmarks/codec.py FOLDER [--codec NAME]`.

Every file is brought to the codec's rate, and to mono for a codec of one channel (a mono file is mono twice for one of
two). SNR, log-spectral distance (log10 of power), error of the energy above 4 kHz in dB, stored numbers per second,
and seconds of one processor per second of sound (encoding and decoding); beside them the control: resampling to as many
samples per second as the codec stores numbers, and back; 3 200 for `polyres_wave`, which stores a little less. The
codec's wave is decoded from latents that went through a file. `--r3` adds the distance of 64 mels, non-negative least
squares and a phase method, which is no waveform codec; `--r4 RUN` that of a mel codec's spectra and its vocoder, such
as a run of `recipes/reconstruct/vocoder_16k.yaml`. `--live` pushes the samples of a codec for live sound block by
block through `polyres.codec.wave.streaming` and adds its slowest block. `--curve DIR` codes every file at several
rates instead, and writes `rate.md` and `rate.png`.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from polyres.audio.files import read_audio
from polyres.audio.resample import resample
from polyres.codec.latent import Latent
from polyres.codec.load import LoadedCodec, load_codec
from polyres.codec.wave.codec import WaveCodec
from polyres.codec.wave.streaming import WaveStreamDecoder, WaveStreamEncoder
from polyres.core.whole_files import write_whole
from polyres.dsp.mel import AUDIOLDM2_16K, mel_of_magnitude, mel_to_linear
from polyres.dsp.phase import reconstruct_phase
from polyres.metrics.reconstruction.levels import matched
from polyres.metrics.reconstruction.spectra import log_spectral_distance, metric_magnitude

CONTROL_HZ = {"polyres_wave": 3200, "polyres_wave:plain": 3200, "polyres_wave_live": 3200}
"""Codecs that were made for a round number of scalars per second are held against that."""
SHARES = (1 / 4, 1 / 3, 1 / 2, 2 / 3, 1, 4 / 3, 2)
"""Of the codec's own numbers per step, for the curve."""
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


def spoken(x: np.ndarray, rate: int, mel_codec: str) -> np.ndarray:
    """Mel spectra of a mel codec, not coded, and its vocoder."""
    chain = load_codec(mel_codec, device="cpu", settings={"autoencoder": "none", "synthesis": "vocoder"})
    return chain.reconstruct(torch.from_numpy(x), rate).numpy()


def prepared(path: Path, codec: LoadedCodec, max_seconds: float | None) -> np.ndarray:
    """Read a file as the codec takes it, `[C, T]`."""
    wave, given = read_audio(path)
    channels = codec.model.audio_channels
    if channels == 1 or len(wave) == 1:
        wave = np.repeat(wave.mean(axis=0, keepdims=True), channels, axis=0)
    x = resample(wave[:channels], given, codec.sample_rate_hz)
    return x if max_seconds is None else x[:, : int(max_seconds * codec.sample_rate_hz)]


def control_of(x: np.ndarray, rate: int, control_hz: int) -> np.ndarray:
    """Resample to fewer samples per second and back."""
    return resample(resample(x, rate, control_hz), control_hz, rate)[:, : x.shape[-1]]


def coded(codec: LoadedCodec, x: np.ndarray) -> tuple[np.ndarray, float]:
    """Code through a file: the wave, and numbers per second."""
    with tempfile.TemporaryDirectory() as folder:
        saved = codec.encode(torch.from_numpy(x), codec.sample_rate_hz).save(Path(folder) / "z.safetensors")
        latent = Latent.load(saved)
    return codec.decode(latent).numpy(), latent.scalars_per_second


def streamed(codec: LoadedCodec, x: np.ndarray, slowest_s: list[float]) -> tuple[np.ndarray, float]:
    """Code block by block as sound comes in: the wave, and numbers per second; notes the slowest block."""
    model = codec.model
    if not isinstance(model, WaveCodec):
        raise SystemExit(f"error: {codec.name} cannot stream; take polyres_wave_live")
    encoder, decoder = WaveStreamEncoder(model), WaveStreamDecoder(model)
    out, numbers, slowest, hop = [], 0, 0.0, model.hop_samples
    for start in range(0, x.shape[-1] + hop, hop):
        began = time.process_time()
        latents = encoder.push(torch.from_numpy(x[:, start : start + hop])) if start < x.shape[-1] else encoder.finish()
        if latents is not None:
            numbers += sum(value.numel() for value in latents.values())
            out.append(decoder.push(latents))
        slowest = max(slowest, time.process_time() - began)
    slowest_s.append(slowest)
    y = torch.cat([*out, decoder.finish()], dim=-1)[:, : x.shape[-1]].numpy()
    return y, numbers / (x.shape[-1] / codec.sample_rate_hz)


def scores(x: np.ndarray, y: np.ndarray, rate: int) -> list[float]:
    """SNR, LSD, energy above 4 kHz."""
    return [snr_db(x, y), lsd(x, y, rate), high_db(x, y, rate)]


def table(paths: list[Path], codec: LoadedCodec, args: argparse.Namespace) -> list[list[float]]:
    """Print a row per file, and give them."""
    rate, rows = codec.sample_rate_hz, []
    names = [
        *HEADER,
        *(["LSD R3"] if args.r3 else []),
        *(["LSD R4"] if args.r4 else []),
        *(["ms max"] if args.live else []),
    ]
    print(f"{'':32}{'codec':^35}{'control':^21}\n{'file':<32}" + "".join(f"{name:>8}" for name in names))
    for path in paths:
        x = prepared(path, codec, args.max_seconds)
        if np.abs(x).max() < 1e-4:
            continue
        start, slowest = time.process_time(), []
        y, numbers = streamed(codec, x, slowest) if args.live else coded(codec, x)
        seconds = time.process_time() - start
        control_hz = args.control or max(CONTROL_HZ.get(codec.name, 0), math.ceil(numbers / len(x)))
        row = [*scores(x, y, rate), numbers, seconds / (x.shape[-1] / rate)]
        row += scores(x, control_of(x, rate, control_hz), rate)
        row += [lsd(x, mel_chain(x), rate)] if args.r3 else []
        row += [lsd(x, spoken(x, rate, args.r4), rate)] if args.r4 else []
        row += [1000 * slowest[0]] if args.live else []
        rows.append(row)
        print(f"{path.name[:31]:<32}" + "".join(f"{value:8.2f}" for value in row), flush=True)
    if rows:
        print(f"{'median':<32}" + "".join(f"{statistics.median(column):8.2f}" for column in zip(*rows, strict=True)))
    return rows


def curve(paths: list[Path], codec: LoadedCodec, out: Path, max_seconds: float | None) -> None:
    """Write table and figure of quality against rate."""
    rate, full = codec.sample_rate_hz, codec.model.config.to_dict()["scalars_per_step"]
    waves = [prepared(path, codec, max_seconds) for path in paths]
    points = []
    for share in SHARES:
        codec.model.configure({"scalars_per_step": round(share * full)})
        found = []
        for x in waves:
            y, numbers = coded(codec, x)
            control = control_of(x, rate, math.ceil(numbers / len(x)))
            found.append([numbers, *scores(x, y, rate), *scores(x, control, rate)])
        points.append([round(share * full), *(statistics.median(column) for column in zip(*found, strict=True))])
        print(" ".join(f"{value:9.2f}" for value in points[-1]), flush=True)
    out.mkdir(parents=True, exist_ok=True)
    names = (
        "scalars_per_step | numbers/s | SNR dB | LSD | > 4 kHz dB | control SNR dB | control LSD | control > 4 kHz dB"
    )
    lines = [f"| {names} |", "|---" * 8 + "|"]
    for values in points:
        cells = [f"{values[0]:.0f}", f"{values[1]:.0f}", *(f"{value:.2f}" for value in values[2:])]
        lines.append(f"| {' | '.join(cells)} |")
    write_whole(out / "rate.md", "\n".join(lines) + "\n")
    draw(points, codec.name, len(waves), out / "rate.png")


def draw(points: list[list[float]], name: str, files: int, path: Path) -> None:
    """Draw SNR and LSD against numbers per second."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    rates = [values[1] for values in points]
    panels = zip(figure.subplots(1, 2), (2, 3), ("SNR in dB", "log-spectral distance (log10 of power)"), strict=True)
    for axes, column, label in panels:
        axes.plot(rates, [values[column] for values in points], "o-", color="tab:blue", label=name)
        axes.plot(rates, [values[column + 3] for values in points], "s--", color="tab:gray", label="resampling")
        axes.set_xlabel("stored numbers per second")
        axes.set_ylabel(label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    figure.suptitle(f"{name}: median over {files} excerpts")
    figure.savefig(path, dpi=130)


def main() -> int:
    """Print the table, or write the curve."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--codec", default="polyres_wave")
    parser.add_argument("--max-seconds", type=float, default=None)
    parser.add_argument("--control", type=int, default=None, help="samples per second of the control")
    parser.add_argument("--r3", action="store_true")
    parser.add_argument("--r4", default=None, metavar="RUN", help="a mel codec")
    parser.add_argument("--live", action="store_true")
    parser.add_argument("--curve", type=Path, default=None, metavar="DIR")
    args = parser.parse_args()
    torch.set_num_threads(1)
    codec = load_codec(args.codec, "cpu")
    paths = sorted(path for path in args.folder.iterdir() if path.suffix in {".wav", ".flac", ".ogg", ".mp3"})
    if args.curve is not None and paths:
        curve(paths, codec, args.curve, args.max_seconds)
    elif not paths or not table(paths, codec, args):
        print(f"{args.folder} holds no sound", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
