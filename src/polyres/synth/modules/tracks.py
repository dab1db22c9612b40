"""Songs from tracker modules: instruments sorted into stems by their sound, rendered on reading."""

from __future__ import annotations

import csv
import json
from collections.abc import Generator, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from polyres.audio.resample import rechunk
from polyres.audio.track_files import (
    Entries,
    Layout,
    Part,
    TrackFiles,
    content_stamp,
    folders_under,
    load_measured,
    save_measured,
)
from polyres.core.errors import InputError
from polyres.synth.modules.classify import CLASSES, RATE_HZ, classify, note_facts, sound_facts
from polyres.synth.modules.openmpt import MODULE_SUFFIXES, TAPS, Module, Note, require_openmpt

SAMPLE_RATE_HZ = 44_100
LICENCES_FILE = "LICENCES.tsv"
SURE = 0.9
"""Instruments that are less sure are left out of every stem, and so of the mixture."""
MAX_LEFT_OUT = 0.12
"""A module that would lose more of its energy than this is not used."""
MAX_LENGTH_S = 600.0
_INDEX_NAME, _FORMAT = ".polyres_modules.json", 1
_HEARD_S, _LATE_HEARD_S = 100.0, 400.0
_LOOP_SHARE = 0.02
_OLD_FORMATS, _OLD_CHANNELS, _OLD_WIDTH_PERCENT = ("mod", "stm", "okt", "m15"), 8, 40


@dataclass(frozen=True)
class Variation:
    """Changes of one rendering of a module against the original."""

    tempo: float = 1.0  # factor of the tempo
    pitch: float = 1.0  # factor of all frequencies
    taps: int = 8  # interpolation, one of `TAPS`
    width: float = 1.0  # factor of the stereo width
    dropped: float = 0.0  # chance of each instrument to be silent; never all of a stem's
    seed: int = 0  # which ones are

    def kept(self, instruments: Sequence[int]) -> tuple[int, ...]:
        """Return the instruments of a stem that sound; an instrument's chance does not depend on the others."""
        kept = tuple(
            number for number in instruments if np.random.default_rng([self.seed, number]).random() >= self.dropped
        )
        return kept or tuple(instruments)


def draw_variation(rng: np.random.Generator) -> Variation:
    """Draw a variation: mostly another tempo and pitch, now and then another sampler, width or missing instruments."""
    changed = rng.random() < 0.75
    return Variation(
        tempo=float(rng.uniform(0.85, 1.18)) if changed else 1.0,
        pitch=float(2.0 ** (rng.uniform(-4.0, 4.0) / 12.0)) if changed else 1.0,
        taps=int(rng.choice(TAPS, p=(0.15, 0.15, 0.25, 0.45))),
        width=float(rng.uniform(0.4, 1.6)),
        dropped=0.15 if rng.random() < 0.5 else 0.0,
        seed=int(rng.integers(1 << 31)),
    )


AS_WRITTEN = Variation()


@dataclass(frozen=True)
class InstrumentVerdict:
    """Classification of one instrument."""

    number: int  # from 0
    name: str  # as its author called it
    stem: str | None  # its stem, None where it is left out
    confidence: float  # from 0 to 1; 1 where it was judged by hand
    share: float  # share of the energy of all instruments
    doubts: tuple[str, ...] = ()  # why it was left out although the class is clear


@dataclass(frozen=True)
class ModuleStems:
    """A module whose instruments have been given to stems."""

    path: Path
    length_s: float
    artist: str
    instruments: tuple[InstrumentVerdict, ...]

    @property
    def is_usable(self) -> bool:
        """Whether little enough is left out, and anything is kept."""
        left_out = sum(one.share for one in self.instruments if one.stem is None)
        return left_out <= MAX_LEFT_OUT and bool(self.stems)

    @property
    def stems(self) -> dict[str, tuple[int, ...]]:
        """Instruments by stem."""
        kept = [kind for kind in CLASSES if any(one.stem == kind for one in self.instruments)]
        return {kind: tuple(one.number for one in self.instruments if one.stem == kind) for kind in kept}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON holds it, without the path."""
        return {
            "length_s": self.length_s,
            "artist": self.artist,
            "instruments": [asdict(one) for one in self.instruments],
        }

    @classmethod
    def from_dict(cls, path: Path, values: dict[str, Any]) -> ModuleStems:
        """Read what `to_dict` returned."""
        instruments = [InstrumentVerdict(**{**one, "doubts": tuple(one["doubts"])}) for one in values["instruments"]]
        return cls(path, values["length_s"], values["artist"], tuple(instruments))


def render(
    path: Path,
    instruments: Sequence[int],
    length_samples: int,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    start_s: float = 0.0,
    variation: Variation = AS_WRITTEN,
) -> np.ndarray:
    """Render some instruments of a module from a fresh start, so that all stems run alike.

    Args:
        instruments: numbers of those that sound, from 0.
        start_s: where to begin, in seconds of the song as written.
        variation: how to differ from what is written.

    Returns:
        float32 `[2, length_samples]`; zeros behind the end of the song.

    Raises:
        InputError: if the file is no module or cannot be read.
    """
    result = np.zeros((2, length_samples), np.float32)
    position = 0
    for block in _blocks(path, instruments, length_samples, sample_rate_hz, start_s, variation):
        result[:, position : position + block.shape[1]] = block
        position += block.shape[1]
    return result


def _blocks(
    path: Path,
    instruments: Sequence[int],
    length_samples: int,
    sample_rate_hz: int,
    start_s: float,
    variation: Variation,
) -> Iterator[np.ndarray]:
    with Module(path) as module:
        old = module.format in _OLD_FORMATS and module.channels <= _OLD_CHANNELS
        width_percent = round(variation.width * (_OLD_WIDTH_PERCENT if old else 100))
        module.play_only(variation.kept(instruments))
        module.set_speed(variation.tempo, variation.pitch)
        yield from module.blocks(length_samples, sample_rate_hz, start_s, variation.taps, min(width_percent, 200))


class ModulePartReader:
    """Read the instruments of one stem of a module block by block, as written.

    Args:
        part: The module and its instruments.

    Raises:
        InputError: The file is no module or cannot be read.
    """

    sample_rate_hz = SAMPLE_RATE_HZ
    channels = 2

    def __init__(self, part: Part) -> None:
        self.warnings: list[str] = []
        self._part = part
        with Module(part.path) as module:
            self.length_samples = round(min(module.length_s, MAX_LENGTH_S) * SAMPLE_RATE_HZ)

    def blocks(self, block_samples: int) -> Generator[np.ndarray, None, None]:
        """Pass over the song once.

        Yields:
            float32 `[2, n]`.
        """
        part = self._part
        rendered = _blocks(part.path, part.instruments or (), self.length_samples, SAMPLE_RATE_HZ, 0.0, AS_WRITTEN)
        yield from rechunk(rendered, block_samples)


@cache
def _hand_labels() -> dict[str, dict[str, str]]:
    """Return the classes that were judged by listening: file name to number of the instrument to class."""
    text = (files("polyres.synth.modules") / "labels.json").read_text(encoding="utf-8")
    labels: dict[str, dict[str, str]] = json.loads(text)
    return labels


def judge(path: Path) -> ModuleStems:
    """Render every instrument of a module alone and assign it to a stem."""
    with Module(path) as module:
        length_s, artist, names = module.length_s, module.artist, module.instruments
        notes: dict[int, list[Note]] = {}
        for note in module.notes():
            if note.instrument < len(names):
                notes.setdefault(note.instrument, []).append(note)
    heard = {number: wave for number in sorted(notes) if (wave := _hear(path, number, length_s)) is not None}
    energies = {number: float(np.square(wave, dtype=np.float64).sum()) for number, wave in heard.items()}
    total = sum(energies.values()) or 1.0
    labels = _hand_labels().get(path.name, {})
    verdicts = []
    for number, wave in heard.items():
        sound = sound_facts(wave, length_s)
        if sound is not None:
            verdict = classify(names[number], note_facts(notes[number]), sound)
            share = energies[number] / total
            verdicts.append(
                _decide(number, names[number], verdict.kind, verdict.confidence, verdict.doubts, share, labels)
            )
    return ModuleStems(path, length_s, artist, tuple(verdicts))


def _decide(
    number: int, name: str, kind: str, confidence: float, doubts: tuple[str, ...], share: float, labels: dict[str, str]
) -> InstrumentVerdict:
    """Choose the stem: by hand, else the class that is sure and in no doubt."""
    if str(number) in labels:
        by_hand = labels[str(number)]
        return InstrumentVerdict(number, name, by_hand if by_hand in CLASSES[:-1] else None, 1.0, share)
    serious = tuple(doubt for doubt in doubts if doubt != "loop" or share > _LOOP_SHARE)
    kept = kind in CLASSES[:-1] and confidence >= SURE and not serious
    return InstrumentVerdict(number, name, kind if kept else None, confidence, share, serious)


def _hear(path: Path, number: int, length_s: float) -> np.ndarray | None:
    """Render an instrument alone in mono: the first 100 s, or more where it enters late; None if it is silent."""
    for limit_s, taps in ((_HEARD_S, 4), (_LATE_HEARD_S, 2)):
        length_samples = round(min(limit_s, length_s + 1.0) * RATE_HZ)
        wave = render(path, (number,), length_samples, RATE_HZ, variation=Variation(taps=taps)).mean(0)
        if len(wave) and np.abs(wave).max() >= 1e-3:
            return wave
    return None


class ModulesLayout(Layout):
    """A folder of tracker modules at any depth; the classification of their instruments is cached beside them.

    Artists come from `LICENCES.tsv` (columns `file` and `artist`) in the folder or the one above, else from the
    module, else from the name of its folder. Modules that are damaged or unclear are left out.
    """

    wanted: ClassVar[str] = "tracker modules (.mod, .s3m, .xm, .it)"

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the usable modules in the order of their paths."""
        artists = _artists(root)
        tracks = []
        for module in judge_folder(root):
            stems = {stem: (Part(module.path, None, numbers),) for stem, numbers in module.stems.items()}
            wanted = {stem: parts for stem, parts in stems.items() if stem in sources}
            if module.is_usable and wanted:
                artist = artists.get(module.path.name) or module.artist or module.path.parent.name
                tracks.append(TrackFiles(module.path.stem, module.path, wanted, artist=artist))
        return tracks


def list_modules(root: Path) -> list[Path]:
    """List the tracker modules under a folder, also those packed with gzip."""
    return sorted(
        path
        for folder in folders_under(root)
        for path in folder.iterdir()
        if (path.with_suffix("") if path.suffix == ".gz" else path).suffix.lower() in MODULE_SUFFIXES
    )


def judge_folder(root: Path) -> list[ModuleStems]:
    """Classify all modules under a folder; only new and changed ones are rendered."""
    known = load_measured(root, _INDEX_NAME, _FORMAT)
    entries: Entries = {}
    found = []
    for path in list_modules(root):
        key, stamp = path.relative_to(root).as_posix(), content_stamp(path)
        entry = known.get(key)
        if entry is None or entry["stamp"] != stamp:
            entry = {"stamp": stamp, "module": _judged_or_none(path)}
        entries[key] = entry
        if entry["module"] is not None:
            found.append(ModuleStems.from_dict(path, entry["module"]))
    if entries != known:
        save_measured(root, _INDEX_NAME, _FORMAT, entries)
    return found


def _judged_or_none(path: Path) -> dict[str, Any] | None:
    require_openmpt()
    try:
        return judge(path).to_dict()
    except InputError:
        return None


def _artists(root: Path) -> dict[str, str]:
    """Return the artist of each file by name, from a table of licences."""
    for folder in (root, root.parent):
        table = folder / LICENCES_FILE
        if table.is_file():
            with table.open(encoding="utf-8", newline="") as file:
                rows = list(csv.DictReader(file, delimiter="\t"))
            return {Path(row["file"]).name: row["artist"] for row in rows if row.get("file") and row.get("artist")}
    return {}
