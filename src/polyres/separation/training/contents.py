"""Ingredients of a bundle: the stems that a recipe needs, how many of them fit, and their compression."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
import soundfile

from polyres.audio.encode import GuardedFile
from polyres.core.errors import TrainingError
from polyres.datasets.collections import STEM_SUFFIX
from polyres.datasets.stem_files import StemFile, StemReader, refuse_warnings
from polyres.datasets.tracks import index_tracks, read_stem
from polyres.separation.training.task import TrainConfig
from polyres.synth.cache import is_made
from polyres.training.task import resolve_roots

QUALITIES = (6, 4, 2, 0)
"""Vorbis qualities tried from best to worst; about 192, 128, 96 and 64 kbit/s in stereo."""

_PROBE_S = 20.0
_READ_SAMPLES = 1 << 16
_BLOCK_SAMPLES = 4096  # libvorbis gets slow and deep in its stack with long blocks
_SAFETY = 1.06
_MEGABYTE = 1_000_000

Report = Callable[[str], None]


class RootKey(NamedTuple):
    """What tells one set of tracks from another: the root as the recipe has it, its layout and its split."""

    path: str
    layout: str
    split: str


@dataclass(frozen=True)
class Ingredient:
    """One stem to be packed."""

    root: str
    track: str
    source: str
    stem: StemFile
    for_validation: bool

    @property
    def length_s(self) -> float:
        """Length in seconds."""
        return self.stem.length_s


def valid_keys(config: TrainConfig) -> list[RootKey]:
    """Return the roots of the validation, in the order of the recipe."""
    return [RootKey(root, config.valid.layout, config.valid.split) for root in config.valid.roots]


def train_keys(config: TrainConfig) -> list[RootKey]:
    """Return the roots of the training, in the order of the recipe."""
    return [RootKey(root.path, root.layout, root.split) for root in config.data.roots]


def folder_names(config: TrainConfig) -> dict[RootKey, str]:
    """Give every root, layout and split a folder of its own; a root that says what to make keeps its text."""
    names: dict[RootKey, str] = {}
    for key in [*valid_keys(config), *train_keys(config)]:
        if is_made(key.path):
            names[key] = key.path
        elif key not in names:
            base = Path(key.path).name
            base = "root" if base in ("", "..") else base
            base += "" if key.split == "all" else f"_{key.split}"
            name, number = base, 2
            while name in names.values():
                name, number = f"{base}_{number}", number + 1
            names[key] = name
    return names


def collect(config: TrainConfig, report: Report) -> list[Ingredient]:
    """List every stem of the recipe's roots, validation first.

    Returns the stems, those of a track after one another. Raises TrainingError if a root is missing, or no root has any
    track or is to be made; InputError if a root has no track, or a stem is missing or cannot be read.
    """
    names = folder_names(config)
    found: list[Ingredient] = []
    seen: set[RootKey] = set()
    for keys, validation in ((valid_keys(config), True), (train_keys(config), False)):
        there = [key for key in keys if not is_made(key.path)]
        folders = resolve_roots(tuple(key.path for key in there), config.data_dir)
        for key, folder in zip(there, folders, strict=True):
            if key not in seen:
                seen.add(key)
                found += _stems(key, names[key], Path(folder), config.model.sources, validation, report)
    if not found and not any(is_made(key.path) for key in names):
        raise TrainingError("the recipe's roots hold no track; nothing can be packed")
    return found


def _stems(
    key: RootKey, name: str, folder: Path, sources: Sequence[str], validation: bool, report: Report
) -> Iterator[Ingredient]:
    """List the stems under one root."""
    tracks = index_tracks(folder, sources, key.layout, key.split)
    which = "" if key.split == "all" else f", split {key.split}"
    report(f"{name}: {len(tracks)} tracks of {key.path} (layout {key.layout}{which})")
    for track in tracks:
        inside = track.folder.relative_to(folder).as_posix().removesuffix(STEM_SUFFIX)
        for source, stem in track.stems.items():
            yield Ingredient(name, inside, source, stem, validation)


def choose(items: Sequence[Ingredient], budget: float, report: Report) -> tuple[int, list[Ingredient]]:
    """Find the best quality at which everything fits, or the share of the tracks that fits at the worst.

    `budget`: bytes that they may take; `report`: receives one line per quality that is tried. Returns the Vorbis
    quality and the stems to keep. Raises TrainingError if the validation alone does not fit; InputError if a file is
    gone or cannot be read.
    """
    sizes: list[float] = []
    for quality in QUALITIES:
        sizes = [_SAFETY * _bytes_per_s(item.stem, quality) * item.length_s for item in items]
        report(f"quality {quality}: about {sum(sizes) / _MEGABYTE:.1f} MB")
        if sum(sizes) <= budget:
            return quality, list(items)
    left = budget - sum(size for item, size in zip(items, sizes, strict=True) if item.for_validation)
    training = sum(size for item, size in zip(items, sizes, strict=True) if not item.for_validation)
    if left <= 0:
        raise TrainingError("the validation tracks alone are larger than the bundle may be; raise --max-mb")
    return QUALITIES[-1], thin(items, left / training)


def thin(items: Sequence[Ingredient], share: float) -> list[Ingredient]:
    """Keep all validation tracks and about this share of every root's seconds, spread evenly.

    `share`: 0 to 1. Returns the stems of the tracks that are kept, validation first.
    """
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


def _bytes_per_s(stem: StemFile, quality: int) -> float:
    """Measure the bytes that a second takes, on an excerpt from the middle."""
    rate_hz, length_samples = stem.sample_rate_hz, stem.length_samples
    wanted = min(length_samples, round(_PROBE_S * rate_hz))
    if not wanted:
        return 0.0
    channels = StemReader(stem.parts).channels
    wave = read_stem(stem, (length_samples - wanted) // 2 / rate_hz, wanted, rate_hz, channels=channels)
    target = BytesIO()
    _write_vorbis(target, [wave], rate_hz, quality)
    return target.getbuffer().nbytes / (wanted / rate_hz)


def _write_vorbis(target: object, blocks: Iterable[np.ndarray], rate_hz: int, quality: int) -> None:
    """Encode blocks `[C, n]`."""
    file = None
    try:
        for block in blocks:
            if file is None:
                file = soundfile.SoundFile(
                    target,
                    "w",
                    rate_hz,
                    len(block),
                    format="OGG",
                    subtype="VORBIS",
                    compression_level=1.0 - quality / 10.0,
                )
            for start in range(0, block.shape[1], _BLOCK_SAMPLES):
                file.write(block[:, start : start + _BLOCK_SAMPLES].T)
    finally:
        if file is not None:
            file.close()


def encode(item: Ingredient, folder: Path, quality: int) -> int:
    """Write one stem, the sum of its files, as Ogg Vorbis.

    `quality`: Vorbis quality, one of `QUALITIES`. Returns the bytes written. Raises InputError if a file is gone,
    cannot be read or ends early; OSError if it cannot be written.
    """
    path = folder / item.root / item.track / f"{item.source}.ogg"
    path.parent.mkdir(parents=True, exist_ok=True)
    reader = StemReader(item.stem.parts)
    file = GuardedFile(path)
    try:
        _write_vorbis(file, reader.blocks(_READ_SAMPLES), reader.sample_rate_hz, quality)
        file.end()
    finally:
        file.drop()
    refuse_warnings(reader.warnings)
    return path.stat().st_size
