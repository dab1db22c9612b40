"""Find results in folders by song and model, and measure them against true stems."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from polyres.audio.file_names import shown
from polyres.audio.files import probe, read_audio
from polyres.audio.track_files import SUBSETS, track_folder
from polyres.batch.manifest import MANIFEST_NAME, read_manifest
from polyres.codec.track import REPORT_NAME
from polyres.core.errors import InputError
from polyres.core.json_text import json_file
from polyres.metrics.track_score import nsdr
from polyres.studio.engines import Kind

REFERENCE = "reference"
VERSIONS = ("original", "codec", "enhanced")
_AUDIO = (".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus")
_MIXTURES = ("mixture", "original")


@dataclass(frozen=True)
class Result:
    """Files that sound together: the stems of a separation, or the versions of a reconstruction."""

    label: str  # what made it, or `REFERENCE`
    kind: Kind  # "separate" or "reconstruct"
    files: dict[str, Path] = field(default_factory=dict)  # name to file
    gain: float = 1.0  # factor that is on all files but the mixture of a separation, so that none of them clips
    is_truth: bool = False  # whether these are true stems


def find_results(folder: Path) -> dict[str, list[Result]]:
    """Find all results below a folder."""
    if not folder.is_dir():
        raise InputError(f"{shown(folder)} is not a folder; give what polyres separate wrote")
    marks = {path.parent for name in (MANIFEST_NAME, REPORT_NAME) for path in folder.rglob(name)}
    songs: dict[str, list[Result]] = {}
    for one in sorted(marks):
        songs.setdefault(one.resolve().name, []).append(_read(one))
    if not songs:
        raise InputError(f"{shown(folder)}: no folder here was written by polyres separate or reconstruct; give one")
    return dict(sorted(songs.items()))


def true_stems(track: str, results: Sequence[Result], folder: Path) -> Result | None:
    """Find the true stems of a song.

    `folder`: with `TRACK/STEM.wav`, and `TRACK/mixture.wav` where that is to be heard; returns the stems that the
    results have too; None where no result is a separation.
    """
    names = list(dict.fromkeys(name for one in results if one.kind == "separate" for name in one.files))
    if not names:
        return None
    found = _present(track_folder(folder, track), names)
    if not set(found) - set(_MIXTURES):
        raise InputError(f"{shown(folder / track)}: no true stems of this song ({', '.join(names)}); check --reference")
    return Result(REFERENCE, "separate", found, is_truth=True)


def sdr_db(result: Result, truth: Result, name: str, start_s: float, length_s: float) -> float | None:
    """Return the SDR of a stem against the true one, over an excerpt.

    Returns the SDR of `polyres.metrics.nsdr` in dB; None where there is nothing to compare: no such true stem, another
    rate, other channels, or silence as the truth.
    """
    if name not in truth.files or name in _MIXTURES or probe(truth.files[name]).sample_rate_hz != _rate(result, name):
        return None
    rate_hz = _rate(result, name)
    span = round(start_s * rate_hz), max(1, round(length_s * rate_hz))
    waves = [read_audio(path, *span)[0] for path in (truth.files[name], result.files[name])]
    if waves[0].shape != waves[1].shape or not waves[0].any():
        return None
    true, given = (wave.astype(np.float64)[None] for wave in waves)
    return float(nsdr(true, given / result.gain)[0])


def _rate(result: Result, name: str) -> int:
    return probe(result.files[name]).sample_rate_hz


def _read(folder: Path) -> Result:
    """Read the model of a result folder, and its files."""
    parent = folder.resolve().parent
    label = parent.name
    if (folder / REPORT_NAME).is_file():
        return _checked(folder, Result(label, "reconstruct", _present(folder, VERSIONS), _report_gain(folder)))
    manifest = read_manifest(folder)
    if manifest is None:
        raise InputError(f"{shown(folder / MANIFEST_NAME)} cannot be read; separate the song again")
    found = {record.stem: folder / name for name, record in manifest.files.items() if (folder / name).is_file()}
    models = [str(record.settings.get("model")) for record in manifest.files.values()]
    if parent.name in SUBSETS and models:  # DIR/test/SONG has no folder of the model
        label = models[-1]
    gain = min((record.gain for record in manifest.files.values()), default=1.0)
    mixture = Path(manifest.input.path)
    if mixture.is_file() and "mixture" not in found:
        found["mixture"] = mixture
    return _checked(folder, Result(label, "separate", found, gain))


def _present(folder: Path, names: Sequence[str]) -> dict[str, Path]:
    """Return the files of these names that are there, in any format."""
    paths = {name: [folder / f"{name}{end}" for end in _AUDIO] for name in names}
    return {name: found for name, some in paths.items() if (found := next(filter(Path.is_file, some), None))}


def _checked(folder: Path, result: Result) -> Result:
    if not set(result.files) - set(_MIXTURES):
        raise InputError(f"{shown(folder)}: its audio files are gone; make them again")
    return result


def _report_gain(folder: Path) -> float:
    """Read the factor that reconstruct put on all versions; 1 where it cannot be read."""
    try:
        return float(json_file(folder / REPORT_NAME, special=True)["gain"])
    except (OSError, ValueError, KeyError, TypeError):
        return 1.0
