"""Enhancers behind a codec: `python benchmarks/enhancers.py AUDIO... --tune TRAIN... --out DIR`.

Every enhancer at strength 1 and at the strength that has the smallest error above 4 kHz on music for training (--tune),
between the codec alone, trivial controls and the upper bound (gradient descent on the latent towards the original).
Levels are matched before scoring. Above 4 kHz: error of log-mel spectra in dB, error of the energy in dB, and the
percentage of energy kept, which is what the first experiments reported. Then log-spectral distance (log10 of power),
error of the whole log-mel spectrum in dB, error above 4 kHz before synthesis, level before matching, and the
real-time factor of the enhancer alone. Medians over files with 95 % intervals. Averages that an enhancer matches are
those of the training music (blind) or of the very file ("told"). --network NAME=FILE adds trained networks, --wrong
VARIANT a chain with a mistake in it; --decibel that of the first experiments: power in decibels below the peak over 20
goes into the autoencoder, and what it decodes to the vocoder, as if it were the natural logarithm of magnitudes.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch

from polyres.codec.base import Codec
from polyres.codec.enhance.enhancers import ENHANCERS
from polyres.codec.enhance.sweep import (
    CODEC_ALONE,
    DEFAULT_STRENGTHS,
    Chain,
    EnhanceOptions,
    EnhanceRow,
    run_enhancers,
    summarise,
    typical_statistics,
    usable_names,
)
from polyres.codec.load import load_codec
from polyres.codec.networks import load_network
from polyres.core.whole_files import replaced_atomically, write_whole
from polyres.dsp.mel import decibel_front_end
from polyres.metrics.aggregate import bootstrap_interval

DB_PER_NEPER = 20 / math.log(10)
TOLD = ("gain_match", "ltas_match", "adaptive")
HEADER = ("enhancer", "sees", "strength", "error > 4 kHz, dB", "energy > 4 kHz, dB", "kept > 4 kHz, %", "LSD",
          "log-mel error, dB", "before synthesis > 4 kHz, dB", "level, dB", "real-time factor")  # fmt: skip


def tuned(chain: Chain, files: Sequence[Path], options: EnhanceOptions, seconds: float) -> dict[str, float]:
    """Find the strength of every enhancer with the smallest error above 4 kHz on other music."""
    rows = [one.row for path in files for one in run_enhancers(chain, chain.excerpt(path, seconds), options)]
    best: dict[str, EnhanceRow] = {}
    for row in summarise(rows):
        if row.enhancer not in best or row.scores["log_mel_l1_high"] < best[row.enhancer].scores["log_mel_l1_high"]:
            best[row.enhancer] = row
    return {name: row.strength for name, row in best.items() if name != CODEC_ALONE}


def scored(chain: Chain, files: Sequence[Path], options: EnhanceOptions, args: argparse.Namespace) -> list[EnhanceRow]:
    """Run everything on held-out files."""
    quick = tuple(name for name in options.names if name != "optimise")
    best = tuned(chain, args.tune, replace(options, names=quick, strengths=DEFAULT_STRENGTHS), args.seconds)
    rows: list[EnhanceRow] = []
    for path in files:
        excerpt = chain.excerpt(path, args.seconds)
        mine = [one.row for one in run_enhancers(chain, excerpt, replace(options, strengths=(1.0,)))]
        for name, strength in best.items():
            if strength != 1.0:
                again = replace(options, names=(name,), strengths=(strength,))
                mine += [one.row for one in run_enhancers(chain, excerpt, again)][1:]
        told = replace(options, names=tuple(n for n in TOLD if n in quick), typical=None, strengths=(1.0,))
        mine += [
            replace(one.row, enhancer=f"{one.row.enhancer}, told")
            for one in list(run_enhancers(chain, excerpt, told))[1:]
        ]
        rows += mine
        print(f"{chain.codec.name} {path.name}", file=sys.stderr, flush=True)
    return rows


def cell(values: Sequence[float], form: str) -> str:
    """Word a median with its interval."""
    middle = f"{statistics.median(values):{form}}"
    low, high = bootstrap_interval(list(values), "median", seed=0)
    return middle if math.isnan(low) else f"{middle} ({low:{form}} to {high:{form}})"


def table(rows: Sequence[EnhanceRow]) -> str:
    """Word a table: the codec alone, blind enhancers by what they see, controls, then what has seen the original."""
    groups: dict[tuple[str, float], list[EnhanceRow]] = {}
    for row in rows:
        groups.setdefault((row.enhancer, row.strength), []).append(row)
    ordered = sorted(groups, key=lambda key: (_kind(groups[key][0]), list(groups).index((key[0], key[1])), key[1]))
    lines = ["| " + " | ".join(HEADER) + " |", "|---" * len(HEADER) + "|"]
    for key in ordered:
        mine = groups[key]
        cells = [key[0], ("nothing", "latent", "control", "original")[_kind(mine[0])], f"{key[1]:g}"]
        cells += [cell([DB_PER_NEPER * row.scores["log_mel_l1_high"] for row in mine], ".1f")]
        cells += [cell([row.scores["band_error_high"] for row in mine], "+.1f")]
        cells += [cell([row.scores["retention_high"] for row in mine], ".0f")]
        cells += [cell([row.scores["lsd"] for row in mine], ".2f")]
        cells += [cell([DB_PER_NEPER * row.scores["log_mel_l1"] for row in mine], ".1f")]
        cells += [cell([DB_PER_NEPER * row.mel_l1_high for row in mine], ".1f")]
        cells += [f"{statistics.median(row.gain_db for row in mine):+.1f}"]
        cells += [f"{statistics.median(row.real_time_factor for row in mine):.4f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _kind(row: EnhanceRow) -> int:
    return 0 if row.enhancer == CODEC_ALONE else 3 if row.informed else 2 if row.control else 1


def better(rows: Sequence[EnhanceRow]) -> str:
    """Word what each enhancer changes on the same files, against the codec alone."""
    alone = {row.file: row.scores for row in rows if row.enhancer == CODEC_ALONE}
    groups: dict[tuple[str, float], list[EnhanceRow]] = {}
    for row in rows:
        if row.enhancer != CODEC_ALONE:
            groups.setdefault((row.enhancer, row.strength), []).append(row)
    lines = ["| enhancer | strength | error > 4 kHz, dB more | kept > 4 kHz, % more | LSD more |", "|---" * 5 + "|"]
    for (name, strength), mine in groups.items():
        cells = []
        for metric, factor, form in (("log_mel_l1_high", DB_PER_NEPER, "+.2f"), ("retention_high", 1.0, "+.0f"),
                                     ("lsd", 1.0, "+.3f")):  # fmt: skip
            apart = [factor * (row.scores[metric] - alone[row.file][metric]) for row in mine]
            low, high = bootstrap_interval(apart, "mean", seed=0)
            cells.append(f"{statistics.fmean(apart):{form}} ({low:{form}} to {high:{form}})")
        lines.append(f"| {name} | {strength:g} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def draw(rows: dict[str, list[EnhanceRow]], path: Path) -> None:
    """Draw error above 4 kHz against the energy kept there, a panel per chain."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullFormatter, ScalarFormatter

    figure = Figure(figsize=(6.5 * len(rows), 5.5), layout="constrained")
    axes = figure.subplots(1, len(rows), squeeze=False)[0]
    for panel, (title, mine) in zip(axes, rows.items(), strict=True):
        whole = summarise(mine)
        first = next(row for row in whole if row.enhancer == CODEC_ALONE)
        here = DB_PER_NEPER * first.scores["log_mel_l1_high"], first.scores["retention_high"]
        near = []
        for row in whole:
            across, up = DB_PER_NEPER * row.scores["log_mel_l1_high"], max(row.scores["retention_high"], 0.1)
            kind = _kind(row)
            look = {"color": ("k", "C0", "C1", "C2")[kind], "markersize": 15 if kind == 0 else 8}
            panel.plot(across, up, "*osD"[kind], markerfacecolor="none" if row.strength not in (0, 1) else None, **look)
            label = row.enhancer if row.strength in (0, 1) else f"{row.enhancer} × {row.strength:g}"
            close = 0.15 if row.strength in (0, 1) else 0.5
            if abs(math.log(across / here[0])) < close and abs(math.log(up / here[1])) < 2 * close:
                near += [label] if row.strength == 1 else []
                continue
            panel.annotate(label, (across, up), xytext=(5, 4), textcoords="offset points", fontsize=8)
        text = textwrap.fill("near the codec alone: " + ", ".join(near), 60) if near else ""
        panel.text(0.02, 0.98, text, transform=panel.transAxes, fontsize=8, verticalalignment="top")
        panel.margins(x=0.12, y=0.15)
        panel.axvline(DB_PER_NEPER * first.scores["log_mel_l1_high"], color="k", linewidth=0.6, linestyle=":")
        panel.axhline(100, color="grey", linewidth=0.6)
        panel.set(
            title=title, xscale="log", yscale="log", xlabel="error of log-mel spectra above 4 kHz, dB; left is better"
        )
        panel.set_ylabel("energy above 4 kHz kept, %; 100 is right")
        for axis in (panel.xaxis, panel.yaxis):
            axis.set_major_formatter(ScalarFormatter())
            axis.set_minor_formatter(NullFormatter())
        panel.set_xticks([1, 2, 5, 10, 20, 50])
        panel.grid(alpha=0.3)
    legend = (("*", "k", "codec alone"), ("o", "C0", "blind; hollow: at its tuned strength"), ("s", "C1", "control"),
              ("D", "C2", "has seen the original"))  # fmt: skip
    for marker, colour, text in legend:
        axes[0].plot([], [], marker, color=colour, label=text)
    axes[0].legend(fontsize=8)
    with replaced_atomically(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")


def mistaken(codec: Codec) -> Codec:
    """Give a mel codec the front end of the first experiments."""
    wrong: Any = codec.reconfigured({})
    config = wrong.config.mel
    wrong.mel = lambda wave: decibel_front_end(wave, config)
    wrong.name = f"{codec.name}, decibel front end"
    return cast(Codec, wrong)


def networks(given: Sequence[str]) -> dict[str, torch.nn.Module]:
    """Load trained networks, ENHANCER=FILE each."""
    return {name: load_network(path).module for name, _, path in (entry.partition("=") for entry in given)}


def main() -> int:
    """Print the tables; keep them, the rows and the figure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("audio", type=Path, nargs="+")
    parser.add_argument("--tune", type=Path, nargs="+", required=True)
    parser.add_argument("--codec", default="polyres_mel")
    parser.add_argument("--synthesis", default=None)
    parser.add_argument("--wrong", nargs="*", default=[])
    parser.add_argument("--decibel", action="store_true")
    parser.add_argument("--right", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--network", nargs="*", default=[])
    parser.add_argument("--enhancer", nargs="*", default=None)
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    found: dict[str, list[EnhanceRow]] = {}
    settings = {} if args.synthesis is None else {"synthesis": args.synthesis}
    names = (*([args.codec] if args.right else []), *(f"{args.codec}:{variant}" for variant in args.wrong))
    codecs = {name: load_codec(name, "cpu", settings).model for name in names}
    if args.decibel:
        codecs["decibel front end"] = mistaken(load_codec(args.codec, "cpu", settings).model)
    for name, codec in codecs.items():
        chain = Chain(codec)
        trained = networks(args.network)
        chosen = tuple(args.enhancer) if args.enhancer else usable_names(chain, trained)
        unknown = [each for each in chosen if each not in ENHANCERS.names()]
        if unknown:
            parser.error(f"there is no enhancer {unknown[0]}")
        typical = typical_statistics(chain, args.tune, args.seconds)
        options = EnhanceOptions(chosen, steps=args.steps, typical=typical, networks=trained)
        found[name] = scored(chain, args.audio, options, args)
        text = f"### {name}\n\n{table(found[name])}\n\nAgainst the codec alone, means over the same files:\n\n"
        print(text + better(found[name]) + "\n")
        if args.out is not None:
            stem = name.replace(":", "_").replace("/", "_").replace(" ", "_")
            rows = "".join(json.dumps(row.to_dict()) + "\n" for row in found[name])
            write_whole(args.out / f"{stem}.jsonl", rows)
            write_whole(args.out / f"{stem}.md", text + better(found[name]) + "\n")
    if args.out is not None:
        draw(found, args.out / f"{args.codec.replace('/', '_')}.png")
    return 0


if __name__ == "__main__":
    sys.exit(main())
