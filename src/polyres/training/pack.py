"""Bundles: a recipe with its data, compressed, and the code, to train on a machine without network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

import polyres
from polyres.core.errors import InputError, OutputError, TrainingError
from polyres.data.synth.made import FOLDERS, MadeConfig, is_made
from polyres.data.tracks import list_tracks, stem_paths
from polyres.training.separation import TrainConfig, resolve_roots

BUNDLE_FILE = "bundle.json"
RECIPE_FILE = "recipe.yaml"
DATA_FOLDER = "data"
CODE_FOLDER = "code"
INIT_FILE = "init.safetensors"
FORMAT = 1

QUALITIES = (6, 4, 2, 0)
"""Vorbis qualities tried from best to worst; about 192, 128, 96 and 64 kbit/s in stereo."""

_PROBE_S = 20.0
_BLOCK_SAMPLES = 4096  # libvorbis gets slow and deep in its stack with long blocks
_SAFETY = 1.06
_MEGABYTE = 1_000_000

Report = Callable[[str], None]


@dataclass(frozen=True)
class Ingredient:
    """One stem to be packed."""

    root: str
    track: str
    source: str
    path: Path
    length_s: float
    for_validation: bool


def pack(config: TrainConfig, out: Path, max_mb: float = 60.0, report: Report = print) -> Mapping[str, object]:
    """Write a bundle: compressed stems, the package's code, the resolved recipe, and what it was made of.

    The best Vorbis quality that fits is used; where even the worst does not, whole training tracks are left out,
    evenly over the roots. Validation tracks always stay.

    Args:
        config: the recipe; its roots must exist.
        out: folder to make.
        max_mb: upper limit of its size in MB (10^6 bytes).
        report: receives one line per step.

    Returns:
        What stands in the bundle's `bundle.json`.

    Raises:
        OutputError: if the folder exists or cannot be written.
        TrainingError: if a root is missing, or the bundle cannot be made small enough.
    """
    if out.exists():
        raise OutputError(f"'{out}' exists already; choose another folder or remove it")
    config = config.with_values({"data_dir": config.data_dir or "."})
    ingredients = _collect(config)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / DATA_FOLDER).mkdir(parents=True)
        fixed = _write_code(partial) + _write_init(config, partial) + _write_ingredients(config, partial)
        quality, kept = _choose(ingredients, max_mb * _MEGABYTE - fixed, report)
        written = sum(_encode(item, partial / DATA_FOLDER, quality) for item in kept)
        _write_recipe(config, partial, kept)
        facts = _facts(config, ingredients, kept, quality, fixed + written)
        (partial / BUNDLE_FILE).write_text(json.dumps(facts, indent=1, sort_keys=True) + "\n")
        if fixed + written > max_mb * _MEGABYTE:
            raise TrainingError(
                f"the bundle has {(fixed + written) / _MEGABYTE:.1f} MB but may have {max_mb:g}; raise --max-mb"
            )
        os.replace(partial, out)
    except OSError as error:
        raise OutputError(f"cannot write '{out}' ({error.strerror}); make room or choose another folder") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    report(f"{out}: {(fixed + written) / _MEGABYTE:.1f} MB, {len(kept)} of {len(ingredients)} stems, q{quality}")
    return facts


def _names(roots: Sequence[str], taken: dict[str, str]) -> dict[str, str]:
    """Give every root a folder name of its own; one that says what to make keeps its text."""
    for root in roots:
        if is_made(root):
            taken[root] = root
            continue
        base = Path(root).name or "root"
        name, number = base, 2
        while name in taken.values() and taken.get(root) != name:
            name, number = f"{base}_{number}", number + 1
        taken.setdefault(root, name)
    return taken


def _collect(config: TrainConfig) -> list[Ingredient]:
    """List every stem of the recipe's roots, validation first."""
    names: dict[str, str] = {}
    _names(config.valid.roots, names)
    _names([root.path for root in config.data.roots], names)
    found: list[Ingredient] = []
    seen: set[str] = set()
    for roots, validation in ((config.valid.roots, True), ([root.path for root in config.data.roots], False)):
        there = [root for root in roots if not is_made(root)]
        for root, folder in zip(there, resolve_roots(tuple(there), config.data_dir), strict=True):
            if root not in seen:
                seen.add(root)
                found += _stems(names[root], Path(folder), config.model.sources, validation)
    if not found and not any(map(is_made, names)):
        raise TrainingError("the recipe's roots hold no track; nothing can be packed")
    return found


def _stems(name: str, folder: Path, sources: Sequence[str], validation: bool) -> Iterator[Ingredient]:
    """List the stems under one root."""
    for track in list_tracks(folder, sources):
        inside = track.relative_to(folder).as_posix()
        for source, path in stem_paths(track, sources).items():
            try:
                length_s = soundfile.info(str(path)).duration
            except soundfile.LibsndfileError as error:
                raise InputError(f"cannot pack '{path}' ({error}); give WAV, FLAC, AIFF, Ogg or MP3 stems") from error
            yield Ingredient(name, inside, source, path, length_s, validation)


def _write_code(folder: Path) -> int:
    """Copy the package without its embedded weights; return the bytes written."""
    source, target = Path(polyres.__file__).parent, folder / CODE_FOLDER / "polyres"
    written = 0
    for path in sorted(source.rglob("*")):
        if path.suffix == ".py" or path.name == "py.typed":
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
            written += path.stat().st_size
    return written


def _write_init(config: TrainConfig, folder: Path) -> int:
    """Copy the weights to start from; return the bytes written."""
    if config.init is None:
        return 0
    path = Path(config.init)
    if not path.is_file():
        raise TrainingError(f"init is {config.init!r}; a bundle needs it to be a weight file")
    (folder / INIT_FILE).write_bytes(path.read_bytes())
    return path.stat().st_size


def _write_ingredients(config: TrainConfig, folder: Path) -> int:
    """Copy the scores, sung notes, loops and banks that roots are made from; return the bytes written."""
    written = 0
    for root in dict.fromkeys([*config.valid.roots, *(root.path for root in config.data.roots)]):
        if not is_made(root):
            continue
        spec = MadeConfig.from_root(root)
        named = [str(getattr(spec, key)) for key in FOLDERS if getattr(spec, key) is not None]
        for name in [*named, *spec.banks]:
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise TrainingError(f"'{name}' in {root!r} cannot be packed; name it relative to the data folder")
            source = Path(config.data_dir or ".") / name
            if not source.exists():
                raise TrainingError(f"there is no {source} (in root {root!r}); set the folder of your data with --data")
            for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
                place = folder / DATA_FOLDER / path.relative_to(Path(config.data_dir or "."))
                if path.is_file() and not place.exists():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    place.write_bytes(path.read_bytes())
                    written += path.stat().st_size
    return written


def _choose(items: Sequence[Ingredient], budget: float, report: Report) -> tuple[int, list[Ingredient]]:
    """Find the best quality at which everything fits, or the share of the tracks that fits at the worst."""
    rates: dict[str, float] = {}
    for quality in QUALITIES:
        rates = {str(item.path): _bytes_per_s(item, quality) for item in items}
        total = _SAFETY * sum(rates[str(item.path)] * item.length_s for item in items)
        report(f"quality {quality}: about {total / _MEGABYTE:.1f} MB")
        if total <= budget:
            return quality, list(items)
    sizes = {str(item.path): _SAFETY * rates[str(item.path)] * item.length_s for item in items}
    left = budget - sum(sizes[str(item.path)] for item in items if item.for_validation)
    training = sum(sizes[str(item.path)] for item in items if not item.for_validation)
    if left <= 0:
        raise TrainingError("the validation tracks alone are larger than the bundle may be; raise --max-mb")
    kept = _thin(items, left / training)
    return QUALITIES[-1], kept


def _thin(items: Sequence[Ingredient], share: float) -> list[Ingredient]:
    """Keep all validation tracks and about this share of every root's seconds, spread evenly."""
    kept = [item for item in items if item.for_validation]
    for root in dict.fromkeys(item.root for item in items if not item.for_validation):
        tracks: dict[str, list[Ingredient]] = {}
        for item in items:
            if item.root == root and not item.for_validation:
                tracks.setdefault(item.track, []).append(item)
        # Kept wherever the running share passes a whole number, so the kept ones are spread over the list.
        gone_s = kept_s = 0.0
        for stems in tracks.values():
            length_s = sum(item.length_s for item in stems)
            gone_s += length_s
            if kept_s + length_s <= share * gone_s:
                kept_s += length_s
                kept += stems
    return kept


def _bytes_per_s(item: Ingredient, quality: int) -> float:
    """Measure the bytes that a second takes, on an excerpt from the middle."""
    with soundfile.SoundFile(str(item.path)) as file:
        wanted = min(file.frames, round(_PROBE_S * file.samplerate))
        file.seek((file.frames - wanted) // 2)
        wave = file.read(wanted, dtype="float32", always_2d=True)
        rate_hz = file.samplerate
    if not len(wave):
        return 0.0
    target = _Counter()
    _write_vorbis(target, [wave], rate_hz, quality)
    return target.size / (len(wave) / rate_hz)


class _Counter:
    """A file that only counts what is written; libsndfile wants to seek in it."""

    def __init__(self) -> None:
        self.size = 0
        self.place = 0

    def write(self, content: bytes) -> int:
        """Count bytes."""
        self.place += len(content)
        self.size = max(self.size, self.place)
        return len(content)

    def read(self, size: int = -1) -> bytes:
        """Return nothing."""
        return b""

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self.place = offset + (0, self.place, self.size)[whence]
        return self.place

    def tell(self) -> int:
        """Say where."""
        return self.place

    def flush(self) -> None:
        """Keep nothing back."""
        return


def _write_vorbis(
    target: object, blocks: Sequence[np.ndarray] | Iterator[np.ndarray], rate_hz: int, quality: int
) -> None:
    """Encode blocks `[T, C]`."""
    file = None
    try:
        for block in blocks:
            if file is None:
                file = soundfile.SoundFile(
                    target,
                    "w",
                    rate_hz,
                    block.shape[1],
                    format="OGG",
                    subtype="VORBIS",
                    compression_level=1.0 - quality / 10.0,
                )
            for start in range(0, len(block), _BLOCK_SAMPLES):
                file.write(block[start : start + _BLOCK_SAMPLES])
    finally:
        if file is not None:
            file.close()


def _encode(item: Ingredient, folder: Path, quality: int) -> int:
    """Write one stem; return the bytes written."""
    path = folder / item.root / item.track / f"{item.source}.ogg"
    path.parent.mkdir(parents=True, exist_ok=True)
    with soundfile.SoundFile(str(item.path)) as file:
        rate_hz = file.samplerate
        _write_vorbis(str(path), file.blocks(1 << 16, dtype="float32", always_2d=True), rate_hz, quality)
    return path.stat().st_size


def _write_recipe(config: TrainConfig, folder: Path, kept: Sequence[Ingredient]) -> None:
    """Write the resolved recipe with roots relative to the bundle's data."""
    names: dict[str, str] = {}
    _names(config.valid.roots, names)
    _names([root.path for root in config.data.roots], names)
    present = {item.root for item in kept}
    roots = [
        {**root.to_dict(), "path": names[root.path]}
        for root in config.data.roots
        if names[root.path] in present or is_made(root.path)
    ]
    inside = config.with_values(
        {
            "data_dir": None,
            "init": None,
            "data": {**config.data.to_dict(), "roots": roots},
            "valid": {**config.valid.to_dict(), "roots": [names[root] for root in config.valid.roots]},
        }
    )
    (folder / RECIPE_FILE).write_text(inside.to_yaml())


def _facts(
    config: TrainConfig, items: Sequence[Ingredient], kept: Sequence[Ingredient], quality: int, size: int
) -> dict[str, object]:
    """Say what the bundle holds."""
    seconds: dict[str, float] = {}
    for item in kept:
        seconds[item.root] = seconds.get(item.root, 0.0) + item.length_s
    return {
        "format": FORMAT,
        "polyres": polyres.__version__,
        "recipe": config.fingerprint(),
        "bytes": size,
        "vorbis_quality": quality,
        "stems": len(kept),
        "stems_left_out": len(items) - len(kept),
        "stem_seconds": {root: round(value, 1) for root, value in seconds.items()},
        "run": f"PYTHONPATH={CODE_FOLDER} python -m polyres train . --time-budget 9m --resume",
    }


def open_bundle(folder: Path) -> tuple[Path, dict[str, str]]:
    """Find the recipe of a bundle and the values that depend on where it lies.

    Args:
        folder: made by `pack`.

    Returns:
        The recipe's path, and values by key: `data_dir`, and `init` where the bundle has weights to start from.

    Raises:
        TrainingError: if the folder is no bundle, or one of another format.
    """
    try:
        facts = json.loads((folder / BUNDLE_FILE).read_text())
    except (OSError, ValueError) as error:
        raise TrainingError(f"'{folder}' is no bundle; make one with: polyres pack RECIPE --out {folder}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise TrainingError(f"'{folder}' is a bundle of another format; make it again with this version of polyres")
    values = {"data_dir": str(folder / DATA_FOLDER)}
    if (folder / INIT_FILE).is_file():
        values["init"] = str(folder / INIT_FILE)
    return folder / RECIPE_FILE, values
