"""Bandwidth extension against its controls: `python benchmarks/bandwidth.py AUDIO... --train FOLDER [--weights W]`.

Pieces of every file go through a codec of 16 kHz, and what it decodes is brought to 44.1 kHz: by plain resampling
(nothing above 8 kHz), with the band below copied up, with noise, and with the trained extension. Copy and noise get
the mean level over the level of the band below that music for training has in each bin (--train), so they are as good
as a fixed rule can be. Scored above 8 kHz: error of the energy in dB, its size, and log-spectral distance (log10 of
power); below 7 kHz how close the extended wave is to the decoded one. Medians over files with 95 % intervals.
A folder with stems (vocals.wav and so on) is one file, the sum of its stems.

--calibrate FILE scores nothing: it shifts the level of every bin of the weights by what they miss, on the mean, of the
music for training once it has been through the codec, smoothed over half a kilohertz on either side, and writes FILE.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyres.audio.files import probe, read_audio
from polyres.audio.resample import resample
from polyres.codec.bandwidth import BandwidthConfig, BandwidthExtender, extend, low_band
from polyres.codec.load import load_codec
from polyres.codec.networks import load_network, save_network
from polyres.core.whole_files import write_whole
from polyres.dsp.stft import istft, stft
from polyres.metrics.aggregate import bootstrap_interval
from polyres.metrics.reconstruction.spectra import log_spectral_distance, metric_magnitude, spectral_n_fft

RATE_HZ = 44100
BANDS_HZ = {"above 8 kHz": (8000.0, 22050.0), "8 to 12 kHz": (8000.0, 12000.0), "12 to 20 kHz": (12000.0, 20000.0)}
ENDINGS = {".wav", ".flac", ".ogg", ".mp3"}
QUIET = 1e-4


def read(path: Path, start_s: float, seconds: float) -> Tensor | None:
    """Read a piece at 44.1 kHz, `[C, T]`; None where there is none."""
    parts = sorted(p for p in path.iterdir() if p.suffix in ENDINGS) if path.is_dir() else [path]
    total: np.ndarray | None = None
    for part in parts:
        info = probe(part)
        first, count = round(start_s * info.sample_rate_hz), round(seconds * info.sample_rate_hz)
        if info.length_samples is None or first + count > info.length_samples:
            return None
        samples, rate = read_audio(part, first, count)
        wave = resample(samples, rate, RATE_HZ)
        total = wave if total is None else total + wave
    return None if total is None else torch.from_numpy(total)


def length_s(path: Path) -> float:
    """Return the length of a file, or of the first stem in a folder."""
    part = min(p for p in path.iterdir() if p.suffix in ENDINGS) if path.is_dir() else path
    info = probe(part)
    return (info.length_samples or 0) / info.sample_rate_hz


def pieces(path: Path, count: int, seconds: float) -> list[Tensor]:
    """Read pieces spread evenly over a file."""
    room = max(0.0, length_s(path) - seconds)
    starts = [room * (index + 1) / (count + 1) for index in range(count)] if room > seconds else [room / 2]
    found = [read(path, start, min(seconds, length_s(path) - 0.01)) for start in starts]
    return [wave for wave in found if wave is not None]


class Rules:
    """Copy and noise with the mean level that bins above the cutoff have over the band below it."""

    def __init__(self, config: BandwidthConfig) -> None:
        """Start without any music."""
        self.config = config
        self.low = config.low_bins
        self._sums = {
            name: torch.zeros(config.n_fft // 2 - self.low, dtype=torch.float64) for name in ("noise", "copy")
        }
        self._frames = 0

    def _parts(self, wave: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        spectrum = stft(wave, self.config.n_fft, self.config.hop_samples)
        level = spectrum[:, self.low // 2 : self.low].abs().square().mean(dim=1, keepdim=True).sqrt()
        size = self.config.n_fft // 2 - self.low
        width = self.low - self.low // 2
        copied = spectrum[:, self.low // 2 : self.low].repeat(1, -(-size // width), 1)[:, :size]
        return spectrum, level, copied

    def learn(self, wave: Tensor) -> None:
        """Take in music at full band, `[C, T]`."""
        spectrum, level, copied = self._parts(wave)
        loud = level[:, 0] > 1e-3 * level.max()
        high = spectrum[:, self.low :].abs().clamp_min(QUIET * 1e-2).log()
        for name, base in (("noise", level), ("copy", copied.abs())):
            apart = high - base.clamp_min(QUIET * 1e-2).log()
            self._sums[name] += (apart * loud[:, None]).sum(dim=(0, 2)).double()
        self._frames += int(loud.sum())

    def make(self, name: str, skip: Tensor) -> Tensor:
        """Put a band over a decoded wave `[C, T]`."""
        _, level, copied = self._parts(skip)
        gain = (self._sums[name] / self._frames).exp().float()[:, None]
        if name == "noise":
            draws = torch.randn(*copied.shape, 2, generator=torch.Generator().manual_seed(0))
            # The mean logarithm of the magnitude of such noise is this far below that of 1.
            made = torch.view_as_complex(draws) / 2**0.5 * level * gain * float(np.exp(0.5772 / 2))
        else:
            made = copied * gain
        spectrum = torch.cat([torch.zeros(len(skip), self.low, made.shape[-1]) + 0j, made], dim=1)
        high = istft(spectrum, self.config.hop_samples, skip.shape[-1])
        return low_band(skip, self.config) + high


def scores(reference: Tensor, estimate: Tensor, decoded: Tensor) -> dict[str, float]:
    """Score a piece above 8 kHz, and how near it is to the decoded wave below 7 kHz."""
    found = {}
    wanted, given = (metric_magnitude(wave.double(), RATE_HZ) for wave in (reference, estimate))
    bins_hz = torch.arange(wanted.shape[-2]) * RATE_HZ / spectral_n_fft(RATE_HZ)
    for band, (low, high) in BANDS_HZ.items():
        inside = (bins_hz >= low) & (bins_hz < high)
        energies = [float(m[:, inside].square().sum()) for m in (given, wanted)]
        found[f"energy {band}"] = 10 * float(np.log10(max(energies[0], 1e-12) / max(energies[1], 1e-12)))
        found[f"LSD {band}"] = float(log_spectral_distance(wanted[:, inside], given[:, inside]))
    window = torch.hann_window(reference.shape[-1], dtype=torch.float64)
    spectra = [torch.fft.rfft(wave.double() * window) for wave in (estimate, decoded)]
    below = int(7000 * reference.shape[-1] / RATE_HZ)
    apart = (spectra[0] - spectra[1])[:, :below].abs().square().sum()
    found["kept below 7 kHz"] = -10 * float(
        torch.log10(apart.clamp_min(1e-20) / spectra[1][:, :below].abs().square().sum())
    )
    return found


def run(args: argparse.Namespace) -> list[dict[str, object]]:
    """Score every file."""
    plain = load_codec(args.codec, "cpu")
    wide = load_codec(args.codec, "cpu", {"bandwidth": args.weights})
    network = wide.model.extender()
    if network is None:
        raise SystemExit("the codec has no bandwidth extension")
    rules = Rules(network.config)
    for path in args.train:
        for wave in pieces(path, 8, 10.0):
            rules.learn(wave)
    rows: list[dict[str, object]] = []
    for path in args.audio:
        for number, wave in enumerate(pieces(path, args.pieces, args.seconds)):
            latent = plain.encode(wave, RATE_HZ)
            decoded = plain.decode(latent)
            start = time.process_time()
            again = plain.decode(latent)
            middle = time.process_time()
            takes = {"plain resampling": again, "band copied up": rules.make("copy", decoded)}
            takes["noise"] = rules.make("noise", decoded)
            middle_2 = time.process_time()
            takes["extension"] = wide.decode(latent)
            spent = (time.process_time() - middle_2) - (middle - start)
            for name, take in takes.items():
                row = {"file": path.stem, "piece": number, "take": name, **scores(wave, take, decoded)}
                if name == "extension":
                    row["real-time factor"] = spent / (wave.shape[-1] / RATE_HZ)
                rows.append(row)
            print(path.stem[:40], number, flush=True, file=sys.stderr)
    return rows


def calibrate(args: argparse.Namespace) -> None:
    """Take out of the weights what they miss of the mean level of each bin."""
    found = load_network(args.weights, ("bandwidth",))
    network = found.module
    if not isinstance(network, BandwidthExtender):
        raise SystemExit(f"{args.weights} holds no bandwidth extension")
    codec, config, missing = load_codec(args.codec, "cpu"), network.config, []
    for path in args.train:
        for wave in pieces(path, 3, 4.0):
            mono = wave.mean(dim=0, keepdim=True)
            if float(mono.abs().max()) < 0.01:
                continue
            decoded = codec.reconstruct(mono, RATE_HZ)
            with torch.no_grad():
                wide = extend(network, decoded[None])[0]
            spectra = [stft(each, config.n_fft, config.hop_samples).abs()[0] for each in (mono, wide, decoded)]
            level = spectra[2][config.low_bins // 2 : config.low_bins].square().mean(dim=0).sqrt()
            logs = [each[config.low_bins :, level > 1e-3 * level.max()].clamp_min(1e-5).log() for each in spectra[:2]]
            missing.append((logs[0] - logs[1]).mean(dim=1))
    around = round(500 * config.n_fft / config.sample_rate_hz)
    mean = torch.nn.functional.pad(torch.stack(missing).mean(dim=0)[None, None], (around, around), mode="replicate")
    with torch.no_grad():
        shift = torch.nn.functional.avg_pool1d(mean, 2 * around + 1, 1)[0, 0]
        bias = network.last.bias
        if bias is not None:
            bias[: network.high_bins] += shift
    about = {**found.card, "calibrated_on": [path.name for path in args.train], "codec": args.codec}
    save_network("bandwidth", network, args.calibrate, about, "fp16")
    print(f"{args.calibrate}: shifted by {float(shift.mean()) * 8.686:+.1f} dB on the mean")


def by_file(rows: list[dict[str, object]], take: str, key: str, size: bool = False) -> dict[str, float]:
    """Mean over the pieces of every file."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row["take"] == take and key in row:
            value = float(row[key])  # type: ignore[arg-type]
            found.setdefault(str(row["file"]), []).append(abs(value) if size else value)
    return {file: statistics.fmean(values) for file, values in found.items()}


def cell(values: dict[str, float], form: str = ".2f") -> str:
    """Word a median over files with its interval."""
    low, high = bootstrap_interval(list(values.values()), "median", seed=0)
    return f"{statistics.median(values.values()):{form}} ({low:{form}} to {high:{form}})"


def table(rows: list[dict[str, object]]) -> str:
    """Word the tables."""
    takes = list(dict.fromkeys(str(row["take"]) for row in rows))
    lines = ["| | size of energy error above 8 kHz, dB | energy error above 8 kHz, dB | LSD above 8 kHz | "
             "LSD 8 to 12 kHz | LSD 12 to 20 kHz | kept below 7 kHz, dB |", "|---" * 7 + "|"]  # fmt: skip
    for take in takes:
        cells = [cell(by_file(rows, take, "energy above 8 kHz", True), ".1f")]
        cells += [cell(by_file(rows, take, "energy above 8 kHz"), "+.1f")]
        cells += [cell(by_file(rows, take, f"LSD {band}")) for band in BANDS_HZ]
        cells += [f"{min(by_file(rows, take, 'kept below 7 kHz').values()):.0f} or more"]
        lines.append(f"| {take} | " + " | ".join(cells) + " |")
    files = list(dict.fromkeys(str(row["file"]) for row in rows))
    short = {file: file[:40].replace("_", " ") for file in files}
    lines += ["", "| file | " + " | ".join(f"{take}: energy dB / LSD" for take in takes) + " |"]
    lines += ["|---" * (len(takes) + 1) + "|"]
    for file in files:
        pairs = [
            (by_file(rows, t, "energy above 8 kHz")[file], by_file(rows, t, "LSD above 8 kHz")[file]) for t in takes
        ]
        lines.append(f"| {short[file]} | " + " | ".join(f"{energy:+.1f} / {lsd:.2f}" for energy, lsd in pairs) + " |")
    for control in takes[:-1]:
        ours, theirs = (by_file(rows, take, "LSD above 8 kHz") for take in (takes[-1], control))
        low, high = bootstrap_interval([ours[f] - theirs[f] for f in ours], "mean", seed=0)
        mean = statistics.fmean(ours[f] - theirs[f] for f in ours)
        lines += [
            "",
            f"LSD of {takes[-1]} less that of {control}, mean over files: {mean:+.3f} ({low:+.3f} to {high:+.3f}).",
        ]
    lines += [
        "",
        f"Real-time factor of the extension on one core: {cell(by_file(rows, takes[-1], 'real-time factor'), '.3f')}.",
    ]
    return "\n".join(lines)


def main() -> int:
    """Print the tables, and keep them and the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="*")
    parser.add_argument("--train", type=Path, nargs="+", required=True)
    parser.add_argument("--codec", default="polyres_wave")
    parser.add_argument("--weights", default="default")
    parser.add_argument("--pieces", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--calibrate", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.calibrate is not None:
        calibrate(args)
        return 0
    rows = run(args)
    text = table(rows)
    print(text)
    if args.out is not None:
        write_whole(args.out / "rows.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
        write_whole(args.out / "table.md", text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
