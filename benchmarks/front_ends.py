"""Front ends of mel autoencoders compared: `python benchmarks/front_ends.py TEST_FOLDER --data DATA --out OUT`.

The same small autoencoder is trained for equal steps on each front end (number of mels, n_fft, hop, top of the band,
scaling), by the recipe polyres_mel, and judged by the wave that NNLS and pghi+fgla make of what it decodes; beside it
the same front end without an autoencoder, which no autoencoder can beat. One seed. OUT holds one run per front end and
rows.jsonl; front ends that are in there already are not trained again. Ends with the table as Markdown.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mel_codec import NAMES, R3, excerpts, median_row, scored

from polyres.codec.load import LoadedCodec
from polyres.codec.registry import build_codec
from polyres.study.run.train import run_training

RECIPE = Path(__file__).resolve().parents[1] / "recipes" / "reconstruct" / "polyres_mel.yaml"
SIZES = "model.network={widths: [8, 16, 32], middle_blocks: 1}"
BASE: dict[str, Any] = {"mel_bins": 128, "n_fft": 2048, "hop_length": 512, "max_hz": 22050, "scaling": "z_score"}
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "base": {},
    "64 mels": {"mel_bins": 64},
    "64 mels, n_fft 1024, hop 256": {"mel_bins": 64, "n_fft": 1024, "hop_length": 256},
    "n_fft 4096": {"n_fft": 4096},
    "hop 256": {"hop_length": 256},
    "hop 1024, n_fft 4096": {"hop_length": 1024, "n_fft": 4096},
    "up to 8 kHz": {"max_hz": 8000},
    "scaling none": {"scaling": "none"},
    "scaling standard": {"scaling": "standard"},
    "scaling percentile": {"scaling": "percentile"},
    "scaling tanh": {"scaling": "tanh"},
}


def trained(name: str, settings: Mapping[str, Any], args: argparse.Namespace) -> Path:
    """Train the autoencoder of a front end; return its run."""
    out: Path = args.out / name.replace(" ", "_").replace(",", "")
    mel = {key: value for key, value in settings.items() if key != "scaling"}
    mel |= {"sample_rate_hz": 44100, "win_length": settings["n_fft"]}
    changes = [SIZES, f"model.network.scaling={settings['scaling']}", f"model.mel={json.dumps(mel)}"]
    changes += ["epochs=1", f"steps_per_epoch={args.steps}", "time_budget_s=null", "valid.roots=[]"]
    changes += [f"pool_items={args.pool}", f"scaling_items={min(args.pool, 40)}", f"data_dir={args.data}"]
    is_there = (out / "run.json").exists()
    run_training(None if is_there else RECIPE, out, changes, resume=is_there)
    return out


def judged(run: Path, args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Score a trained front end with and without its autoencoder."""
    codec = build_codec(run)
    chains = {
        "with": LoadedCodec(codec.reconfigured({**R3, "autoencoder": "mode"}), "cpu"),
        "without": LoadedCodec(codec.reconfigured(R3), "cpu"),
    }
    found: dict[str, list[Mapping[str, float]]] = {name: [] for name in chains}
    for _, wave in excerpts(args.folder, codec.sample_rate_hz, args.max_seconds):
        for name, chain in chains.items():
            found[name].append(scored(chain, wave))
    return {name: median_row(rows) for name, rows in found.items()}


def table(rows: list[Mapping[str, Any]]) -> str:
    """Word the rows as Markdown."""
    titles = ["LSD", "log-mel", "< 500", "0.5-4k", "> 4k"]
    lines = [
        "| front end | numbers/s | " + " | ".join([*titles, *(f"{title}, bound" for title in titles)]) + " |",
        "|---" * (2 + 2 * len(titles)) + "|",
    ]
    for row in rows:
        values = [f"{row[kind][name]:.2f}" for kind in ("with", "without") for name in NAMES]
        lines.append(f"| {row['name']} | {row['with']['numbers_per_second']:.0f} | " + " | ".join(values) + " |")
    return "\n".join(lines)


def main() -> int:
    """Train, judge and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--pool", type=int, default=100)
    parser.add_argument("--max-seconds", type=float, default=4.0)
    parser.add_argument("--only", nargs="*", default=list(FRONT_ENDS))
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    path = args.out / "rows.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    done = {row["name"] for row in rows}
    for name in (name for name in args.only if name not in done):
        settings = {**BASE, **FRONT_ENDS[name]}
        row = {"name": name, **settings, "steps": args.steps, **judged(trained(name, settings, args), args)}
        rows.append(row)
        with path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    print(table(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
