"""nSDR of a model per stem on folders of stems, beside silence, the mixture and an equal share of it.

    python benchmarks/score.py TRACK_FOLDER… [--model default] [--precision fp32] [--equal-levels]

A track folder holds drums, bass, other and vocals files; the mixture is their sum. Stems a track lacks are not scored.
nSDR = 10 log10((sum of squared reference + 1e-7) / (sum of squared error + 1e-7)) over the whole track, in dB.

--equal-levels cuts a track into parts of 7.43 s, brings every stem of a part that sounds to one RMS, mixes them anew
and averages over the parts in which three stems or more sound: how well a stem is found when none is the loudest.
"""

from __future__ import annotations

import argparse
from math import isnan
from pathlib import Path

import torch
from torch import Tensor

import polyres
from polyres.datasets.tracks import load_track
from polyres.metrics.separation import nsdr
from polyres.separation.load import LoadedSeparator

PART_S = 7.43
PART_RMS = 0.05
SILENT_RMS = 3e-4


def equal_parts(stems: Tensor, sample_rate_hz: int) -> list[Tensor]:
    """Cut a track `[S, C, T]` into parts whose stems are equally loud, as far as they sound."""
    parts = []
    for part in stems.split(round(PART_S * sample_rate_hz), dim=-1)[:-1]:
        rms = part.square().mean(dim=(1, 2), keepdim=True).sqrt()
        if int((rms > SILENT_RMS).sum()) >= 3:
            parts.append(torch.where(rms > SILENT_RMS, part * (PART_RMS / rms.clamp_min(1e-9)), 0.0))
    return parts


def guesses(stems: Tensor, estimate: Tensor) -> dict[str, Tensor]:
    """Name every set of estimates `[S, C, T]` that is scored."""
    mixture = stems.sum(dim=0, keepdim=True).expand_as(stems)
    return {
        "silence": torch.zeros_like(stems),
        "mixture": mixture,
        f"mixture / {len(stems)}": mixture / len(stems),
        "model": estimate,
    }


def score(separator: LoadedSeparator, pieces: list[Tensor]) -> dict[str, list[float]]:
    """nSDR per stem of every kind of estimate, averaged over the pieces `[S, C, T]` that have the stem; NaN without."""
    values: dict[str, list[Tensor]] = {}
    for stems in pieces:
        parts = separator.separate(stems.sum(dim=0), separator.sample_rate_hz)
        estimate = torch.stack([parts[name] for name in separator.sources])
        present = stems.flatten(1).any(dim=1)
        for name, guess in guesses(stems, estimate).items():
            values.setdefault(name, []).append(torch.where(present, nsdr(stems, guess), torch.nan))
    return {name: torch.stack(rows).nanmean(dim=0).tolist() for name, rows in values.items()}


def print_table(title: str, sources: tuple[str, ...], rows: dict[str, list[float]]) -> dict[str, float]:
    """Print one table in Markdown and return the mean over the stems of every row."""
    print(f"\n{title}, nSDR in dB\n")
    print("| estimate | " + " | ".join(sources) + " | mean |")
    print("|---" * (len(sources) + 2) + "|")
    means = {}
    for name, scores in rows.items():
        known = [value for value in scores if not isnan(value)]
        means[name] = sum(known) / len(known)
        cells = ["-" if isnan(value) else f"{value:.2f}" for value in scores]
        print(f"| {name} | " + " | ".join(cells) + f" | {means[name]:.2f} |")
    return means


def main() -> None:
    """Parse the command line, separate every track and print one table each, then the mean."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracks", nargs="+", type=Path)
    parser.add_argument("--model", default="default", help="name or path")
    parser.add_argument("--precision", default="fp32", help="auto, fp32 or bf16")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--equal-levels", action="store_true", help="score parts whose stems are equally loud")
    arguments = parser.parse_args()
    separator = polyres.load_separator(arguments.model, arguments.device, arguments.precision)
    means: dict[str, list[float]] = {}
    for folder in arguments.tracks:
        stems = load_track(folder, separator.sources, separator.sample_rate_hz)
        pieces = equal_parts(stems, separator.sample_rate_hz) if arguments.equal_levels else [stems]
        if not pieces:
            print(f"\n{folder.name}: no part has three stems that sound")
            continue
        what = f"{len(pieces)} parts of {PART_S} s" if arguments.equal_levels else f"{stems.shape[-1] / 44100:.1f} s"
        for name, mean in print_table(f"{folder.name}, {what}", separator.sources, score(separator, pieces)).items():
            means.setdefault(name, []).append(mean)
    if len(arguments.tracks) > 1:
        print("\nmean over tracks: " + ", ".join(f"{name} {sum(v) / len(v):.2f} dB" for name, v in means.items()))


if __name__ == "__main__":
    main()
