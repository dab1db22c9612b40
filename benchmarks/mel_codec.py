"""Mel codecs on real sound: `python benchmarks/mel_codec.py FOLDER [CODEC ...] [--out rows.jsonl]`.

Every file is turned into mono at the codec's rate and goes through each codec; `NAME:VARIANT` names a variant, such as
`polyres_mel:no_autoencoder` or `polyres_mel:phase`. Beside them stands R3: the same mel spectra without the
autoencoder, least squares and 32 rounds of pghi+fgla. All are scored at equal level by what phase plays no part in:
log-spectral distance, absolute difference of log-mel spectra (both of the metrics' own front end, not the codec's),
and the error of the energy in three bands. Seconds of one processor per second of sound, for encoding and decoding.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from polyres.audio.files import read_audio
from polyres.audio.resample import resample
from polyres.codec.load import LoadedCodec, load_codec
from polyres.metrics.reconstruction.levels import matched
from polyres.metrics.reconstruction.metrics import score

NAMES = ("lsd", "log_mel_l1", "band_error_low", "band_error_mid", "band_error_high")
HEADER = ("LSD", "log-mel", "<500", "0.5-4k", ">4k")
ENDINGS = {".wav", ".flac", ".ogg", ".mp3"}
R3 = {"autoencoder": "none", "synthesis": "pghi+fgla", "mel_inverse": "nnls", "phase_iterations": 32}


def excerpts(folder: Path, sample_rate_hz: int, max_seconds: float | None = None) -> Iterator[tuple[str, Tensor]]:
    """Yield the name and the wave `[1, T]` of every file that is not silent."""
    for path in sorted(path for path in folder.iterdir() if path.suffix in ENDINGS):
        wave, given = read_audio(path)
        mono = resample(wave.mean(axis=0, keepdims=True), given, sample_rate_hz)
        if max_seconds is not None:
            mono = mono[:, : int(max_seconds * sample_rate_hz)]
        if np.abs(mono).max() >= 1e-4:
            yield path.stem, torch.from_numpy(np.ascontiguousarray(mono))


def scored(codec: LoadedCodec, wave: Tensor) -> dict[str, float]:
    """Reconstruct a wave `[1, T]` at the codec's rate and score it."""
    rate, start = codec.sample_rate_hz, time.process_time()
    latent = codec.encode(wave, rate)
    encoded = time.process_time()
    back = codec.decode(latent)
    ended, seconds = time.process_time(), wave.shape[-1] / rate
    found = score(wave, matched(wave.double(), back.double()), rate, NAMES)
    costs = {"encode_rtf": (encoded - start) / seconds, "decode_rtf": (ended - encoded) / seconds}
    return {**found, **costs, "numbers_per_second": latent.scalars_per_second}


def median_row(rows: list[Mapping[str, float]]) -> dict[str, float]:
    """Return the median of every column."""
    return {name: statistics.median(row[name] for row in rows) for name in rows[0]}


def show(label: str, row: Mapping[str, float]) -> None:
    """Print one line of the table."""
    values = "".join(f"{row[name]:9.2f}" for name in NAMES)
    print(f"{label[:45]:<46}{values}{row['encode_rtf']:9.3f}{row['decode_rtf']:9.3f}", flush=True)


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("codecs", nargs="*", default=["polyres_mel"])
    parser.add_argument("--max-seconds", type=float, default=None)
    parser.add_argument("--out", type=Path, default=None)
    args = parser.parse_args()
    torch.set_num_threads(1)
    codecs = {name: load_codec(name, "cpu") for name in args.codecs}
    first = next(iter(codecs.values()))
    codecs["R3"] = LoadedCodec(first.model.reconfigured(R3), "cpu")
    rows: dict[str, list[Mapping[str, float]]] = {name: [] for name in codecs}
    print(f"{'':46}" + "".join(f"{name:>9}" for name in (*HEADER, "enc RTF", "dec RTF")))
    lines = []
    for name, wave in excerpts(args.folder, first.sample_rate_hz, args.max_seconds):
        for label, codec in codecs.items():
            rows[label].append(scored(codec, wave))
            show(f"{name}  {label}", rows[label][-1])
            lines.append(json.dumps({"excerpt": name, "codec": label, **rows[label][-1]}))
    if not lines:
        print(f"{args.folder} holds no sound", file=sys.stderr)
        return 2
    for label, found in rows.items():
        show(f"median  {label}", median_row(found))
    if args.out is not None:
        args.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
