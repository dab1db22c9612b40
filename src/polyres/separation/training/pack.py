"""Bundles: a recipe with its data, compressed, and the code, to train on a machine without network."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

import polyres
from polyres.core.errors import OutputError, TrainingError
from polyres.core.json_text import json_file
from polyres.separation.training.contents import (
    Ingredient,
    choose,
    collect,
    encode,
    folder_names,
    train_keys,
    valid_keys,
)
from polyres.separation.training.task import TrainConfig, load_start
from polyres.separation.weights import save_separator
from polyres.synth.cache import FOLDERS, MadeConfig, is_made

BUNDLE_FILE = "bundle.json"
RECIPE_FILE = "recipe.yaml"
DATA_FOLDER = "data"
CODE_FOLDER = "code"
INIT_FILE = "init.safetensors"
TEACHER_FILE = "teacher.safetensors"
FORMAT = 1

_MEGABYTE = 1_000_000

Report = Callable[[str], None]


def pack(config: TrainConfig, out: Path, max_mb: float = 60.0, report: Report = print) -> Mapping[str, object]:
    """Write a bundle: compressed stems, the package's code, the resolved recipe, and what it was made of.

    The best Vorbis quality that fits is used; where even the worst does not, whole training tracks are left out,
    evenly over the roots. Validation tracks always stay.

    `config`: the recipe; its roots must exist. `max_mb`: upper limit of its size in MB (10^6 bytes). Returns what
    stands in the bundle's `bundle.json`. Raises OutputError if the folder exists or cannot be written; TrainingError if
    a root is missing, or the bundle cannot be made small enough; InputError if a root has no track, or a stem is
    missing or cannot be read.
    """
    if out.exists():
        raise OutputError(f"'{out}' exists already; choose another folder or remove it")
    config = config.with_values({"data_dir": config.data_dir or "."})
    ingredients = collect(config, report)
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        (partial / DATA_FOLDER).mkdir(parents=True)
        fixed = _write_code(partial) + _write_weights(config, partial) + _write_ingredients(config, partial)
        quality, kept = choose(ingredients, max_mb * _MEGABYTE - fixed, report)
        written = sum(encode(item, partial / DATA_FOLDER, quality) for item in kept)
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


def _write_weights(config: TrainConfig, folder: Path) -> int:
    """Write the weights to start from and those of the teacher, whatever named them; return the bytes written."""
    teacher = None if config.distil is None else config.distil.teacher
    written = 0
    for key, name, file in (("init", config.init, INIT_FILE), ("distil.teacher", teacher, TEACHER_FILE)):
        if name is not None:
            model = load_start(name, key)
            # Released weights are of 16 bits, and stay as small as they are.
            halves = all(torch.equal(value, value.half().float()) for value in model.state_dict().values())
            written += save_separator(model, folder / file, dtype="fp16" if halves else "fp32").stat().st_size
    return written


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


def _write_recipe(config: TrainConfig, folder: Path, kept: Sequence[Ingredient]) -> None:
    """Write the resolved recipe with roots relative to the bundle's data, which is plain stems without splits."""
    names = folder_names(config)
    present = {item.root for item in kept}
    plain = {"layout": "stems", "split": "all"}
    roots = []
    for root, key in zip(config.data.roots, train_keys(config), strict=True):
        if is_made(root.path):
            roots.append(root.to_dict())
        elif names[key] in present:
            roots.append({**root.to_dict(), **plain, "path": names[key]})
    valid_roots = [names[key] for key in valid_keys(config)]
    inside = config.with_values(
        {
            "data_dir": None,
            "init": None,
            "distil": None if config.distil is None else {**config.distil.to_dict(), "teacher": TEACHER_FILE},
            "data": {**config.data.to_dict(), "roots": roots},
            "valid": {**config.valid.to_dict(), **plain, "roots": valid_roots},
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

    `folder`: made by `pack`. Returns the recipe's path, and values by key: `data_dir`, and `init` and `distil.teacher`
    where the bundle has them. Raises TrainingError if the folder is no bundle, or one of another format.
    """
    try:
        facts = json_file(folder / BUNDLE_FILE)
    except (OSError, ValueError) as error:
        raise TrainingError(f"'{folder}' is no bundle; make one with: polyres pack RECIPE --out {folder}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise TrainingError(f"'{folder}' is a bundle of another format; make it again with this version of polyres")
    values = {"data_dir": str(folder / DATA_FOLDER)}
    for key, file in (("init", INIT_FILE), ("distil.teacher", TEACHER_FILE)):
        if (folder / file).is_file():
            values[key] = str(folder / file)
    return folder / RECIPE_FILE, values
