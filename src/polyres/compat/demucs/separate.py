"""The command line of demucs: its flags, and its tree of files."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from polyres.compat.demucs.api import LoadAudioError, LoadModelError, Separator, list_models, save_audio
from polyres.core.errors import PolyresError
from polyres.core.process import interruptible

DEFAULT_MODEL = "htdemucs"
UNUSED = "taken, not needed: {}"


def _parser() -> argparse.ArgumentParser:
    """Flags as demucs 4 has them; some are taken for its sake alone."""
    parser = argparse.ArgumentParser("polyres.compat.demucs", description="Separate songs, with the flags of demucs.")
    add = parser.add_argument
    add("tracks", nargs="*", type=Path, help="songs")
    name = parser.add_mutually_exclusive_group()
    name.add_argument("-n", "--name", default=DEFAULT_MODEL, help="model, see --list-models (default: %(default)s)")
    name.add_argument("-s", "--sig", help="model by its signature")
    add("--repo", type=Path, help="folder of models for -n")
    add("--list-models", action="store_true", help="list models and end")
    add("-v", "--verbose", action="store_true", help=UNUSED.format("messages are few"))
    add("-o", "--out", type=Path, default=Path("separated"), help="stems go to OUT/MODEL (default: %(default)s)")
    add(
        "--filename",
        default="{track}/{stem}.{ext}",
        help="names below OUT/MODEL (default: %(default)s); also {trackext}",
    )
    add("-d", "--device", default="cuda" if torch.cuda.is_available() else "cpu", help="cpu, cuda or mps")
    add("--shifts", type=int, default=1, help="shifted passes that are averaged (default: %(default)s)")
    add("--overlap", type=float, default=0.25, help="overlap of segments (default: %(default)s)")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--no-split", action="store_false", dest="split", help=UNUSED.format("memory is bounded"))
    split.add_argument("--segment", type=int, help=UNUSED.format("segments are those of the model"))
    add("--two-stems", metavar="STEM", dest="stem", help="only STEM and no_STEM")
    add("--other-method", choices=("none", "add", "minus"), default="add", help="how to get the other of two stems")
    depth = parser.add_mutually_exclusive_group()
    depth.add_argument("--int24", action="store_true", help="24-bit wav or flac")
    depth.add_argument("--float32", action="store_true", help="float wav")
    add("--clip-mode", choices=("rescale", "clamp", "none"), default="rescale", help="what to do about clipping")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--flac", action="store_const", const="flac", dest="ext", default="wav", help="write flac")
    kind.add_argument("--mp3", action="store_const", const="mp3", dest="ext", help="write mp3")
    add("--mp3-bitrate", type=int, default=320, help=UNUSED.format("the best rate is taken"))
    add("--mp3-preset", type=int, default=2, choices=range(2, 8), help=UNUSED.format("the best rate is taken"))
    add("-j", "--jobs", type=int, default=0, help=UNUSED.format("threads share the work"))
    return parser


def _list(repo: Path | None) -> None:
    """Print the models as demucs does."""
    models = list_models(repo)
    print("Bag of models:", *models["bag"], sep="\n    ")
    print("Single models:", *models["single"], sep="\n    ")


def _results(mixture: Tensor, stems: dict[str, Tensor], stem: str | None, method: str) -> dict[str, Tensor]:
    """Choose what is written: all stems, or one and what is left."""
    if stem is None:
        return stems
    results = {stem: stems[stem]}
    if method == "minus":
        results[f"minus_{stem}"] = mixture - stems[stem]
    elif method == "add":
        others = [wave for name, wave in stems.items() if name != stem]
        results[f"no_{stem}"] = torch.stack(others).sum(dim=0)
    return results


def _separate(separator: Separator, track: Path, out: Path, args: argparse.Namespace) -> None:
    """Separate one song and write its files."""
    mixture, stems = separator.separate_audio_file(track)
    bits: Literal[16, 24] = 24 if args.int24 else 16
    for name, wave in _results(mixture, stems, args.stem, args.other_method).items():
        parts = {"track": track.name.rsplit(".", 1)[0], "trackext": track.name.rsplit(".", 1)[-1]}
        path = out / args.filename.format(**parts, stem=name, ext=args.ext)
        save_audio(wave, path, separator.samplerate, args.mp3_bitrate, args.clip_mode, bits, args.float32)


def _run(args: argparse.Namespace) -> int:
    """Separate all songs; return the exit status: 2 if one could not be."""
    name = args.sig or args.name
    separator = Separator(
        name, args.repo, args.device, args.shifts, args.overlap, args.split, args.segment, args.jobs, progress=True
    )
    sources = separator.sources
    if args.stem is not None and args.stem not in sources:
        print(f"error: stem {args.stem!r} is not in the model; choose one of {', '.join(sources)}", file=sys.stderr)
        return 2
    out = args.out / name.replace("hf://", "").replace("/", "_")
    print(f"Separated tracks will be stored in {out.resolve()}")
    status = 0
    for track in args.tracks:
        print(f"Separating track {track}")
        try:
            _separate(separator, track, out, args)
        except (LoadAudioError, PolyresError, KeyError, IndexError) as error:
            print(f"error: {track}: {error}", file=sys.stderr)
            status = 2
    return status


def main(opts: Sequence[str] | None = None) -> None:
    """Do what `python -m demucs` does.

    Args:
        opts: the arguments; those of the process if None.

    Raises:
        SystemExit: with 1 or 2 where something could not be done.
    """
    args = _parser().parse_args(opts)
    if args.list_models:
        _list(args.repo)
        return
    if not args.tracks:
        print("error: the following arguments are required: tracks", file=sys.stderr)
        raise SystemExit(1)
    try:
        with interruptible():
            status = _run(args)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    except (LoadModelError, PolyresError) as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(2) from None
    if status:
        raise SystemExit(status)
