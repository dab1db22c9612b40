"""Post filters after codecs: `python benchmarks/post_filters.py AUDIO... [--codec NAME...] [--out FILE]`.

Each filter at three strengths on what a codec decodes, levels matched: log-spectral distance (log10 of power), error of
log-mel spectra in dB, the same above 4 kHz, and SNR where the codec keeps the phase. Differences against the codec
alone, means over files with 95 % intervals; the first row has the codec's own medians.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from polyres.codec.enhance.sweep import Chain
from polyres.codec.load import load_codec
from polyres.codec.post_filter import POST_FILTERS, post_filter
from polyres.core.whole_files import write_whole
from polyres.metrics.aggregate import bootstrap_interval
from polyres.metrics.reconstruction.levels import matched
from polyres.metrics.reconstruction.metrics import score

STRENGTHS = (0.1, 0.3, 1.0)
DB_PER_NEPER = 20 / math.log(10)
METRICS = {"lsd": 1.0, "log_mel_l1": DB_PER_NEPER, "log_mel_l1_high": DB_PER_NEPER, "snr": 1.0}
Scores = dict[str, float]


def run(name: str, files: Sequence[Path], seconds: float) -> tuple[bool, list[dict[tuple[str, float], Scores]]]:
    """Score every filter at every strength on every file; ("", 0) is the codec alone."""
    codec = load_codec(name, "cpu").model
    chain, rows = Chain(codec), []
    for path in files:
        wave = chain.excerpt(path, seconds).wave
        with torch.no_grad():
            latents = {key: value.half().float() for key, value in codec.encode(wave).items()}
            decoded = codec.decode(latents, wave.shape[-1])
        reference, found = wave.flatten(0, 1), {}
        for key in [("", 0.0), *((each, strength) for each in POST_FILTERS.names() for strength in STRENGTHS)]:
            taken = decoded if not key[0] else post_filter(key[0], decoded, codec.sample_rate_hz, key[1])
            estimate = matched(reference, taken.flatten(0, 1))
            raw = score(reference, estimate, codec.sample_rate_hz, list(METRICS))
            found[key] = {metric: METRICS[metric] * value for metric, value in raw.items()}
        rows.append(found)
        print(f"{name} {path.name}", file=sys.stderr, flush=True)
    return codec.phase_sensitive, rows


def table(name: str, phase_sensitive: bool, rows: Sequence[dict[tuple[str, float], Scores]]) -> str:
    """Word the rows of a codec."""
    metrics = [metric for metric in METRICS if metric != "snr" or phase_sensitive]
    titles = {"lsd": "LSD", "log_mel_l1": "log-mel error, dB", "log_mel_l1_high": "error > 4 kHz, dB", "snr": "SNR, dB"}
    lines = [
        "| filter | strength | " + " | ".join(titles[m] for m in metrics) + " |",
        "|---" * (len(metrics) + 2) + "|",
    ]
    for key in rows[0]:
        cells = []
        for metric in metrics:
            form = ".3f" if metric == "lsd" else ".2f"
            if not key[0]:
                cells.append(f"{statistics.median(row[key][metric] for row in rows):{form}}")
                continue
            apart = [row[key][metric] - row[("", 0.0)][metric] for row in rows]
            low, high = bootstrap_interval(apart, "mean", seed=0)
            cells.append(f"{statistics.fmean(apart):+{form}} ({low:+{form}} to {high:+{form}})")
        lines.append(f"| {key[0] or 'none'} | {key[1]:g} | " + " | ".join(cells) + " |")
    return f"### {name}\n\n" + "\n".join(lines) + "\n"


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--codec", nargs="+", default=["polyres_wave", "polyres_mel"])
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    text = "\n".join(table(name, *run(name, args.audio, args.seconds)) for name in args.codec)
    print(text)
    if args.out is not None:
        write_whole(args.out, text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
