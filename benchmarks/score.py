"""nSDR of a model per stem on folders of stems, beside silence, the mixture and an equal share of it.

    python benchmarks/score.py TRACK_FOLDER… [--model default] [--precision fp32]

A track folder holds drums, bass, other and vocals files; the mixture is their sum. Stems a track lacks are not scored.
nSDR = 10 log10((sum of squared reference + 1e-7) / (sum of squared error + 1e-7)) over the whole track, in dB.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor

import polyres
from polyres.data.datasets import load_track
from polyres.metrics.separation import nsdr


def guesses(stems: Tensor, estimate: Tensor) -> dict[str, Tensor]:
    """Name every set of estimates `[S, C, T]` that is scored."""
    mixture = stems.sum(dim=0, keepdim=True).expand_as(stems)
    return {
        "silence": torch.zeros_like(stems),
        "mixture": mixture,
        f"mixture / {len(stems)}": mixture / len(stems),
        "model": estimate,
    }


def main() -> None:
    """Parse the command line, separate every track and print one table each, then the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", nargs="+", type=Path)
    parser.add_argument("--model", default="default", help="name or path")
    parser.add_argument("--precision", default="fp32", help="auto, fp32 or bf16")
    parser.add_argument("--device", default="auto")
    arguments = parser.parse_args()
    separator = polyres.load_separator(arguments.model, arguments.device, arguments.precision)
    means: dict[str, list[float]] = {}
    for folder in arguments.tracks:
        stems = load_track(folder, separator.sources, separator.sample_rate_hz)
        parts = separator.separate(stems.sum(dim=0), separator.sample_rate_hz)
        estimate = torch.stack([parts[name] for name in separator.sources])
        present = [bool(stem.any()) for stem in stems]
        print(f"\n{folder.name}, {stems.shape[-1] / separator.sample_rate_hz:.1f} s, nSDR in dB\n")
        print("| estimate | " + " | ".join(separator.sources) + " | mean |")
        print("|---" * (len(separator.sources) + 2) + "|")
        for name, guess in guesses(stems, estimate).items():
            scores = nsdr(stems, guess).tolist()
            mean = sum(s for s, on in zip(scores, present, strict=True) if on) / sum(present)
            means.setdefault(name, []).append(mean)
            cells = [f"{s:.2f}" if on else "-" for s, on in zip(scores, present, strict=True)]
            print(f"| {name} | " + " | ".join(cells) + f" | {mean:.2f} |")
    if len(arguments.tracks) > 1:
        print("\nmean over tracks: " + ", ".join(f"{name} {sum(v) / len(v):.2f} dB" for name, v in means.items()))


if __name__ == "__main__":
    main()
