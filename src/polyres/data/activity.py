"""Activity: how loud each second of each stem file is, measured once and kept beside the tracks."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polyres.data.audio import AudioReader

INDEX_NAME = ".polyres_index.json"
FLOOR_DB = -120.0
_FORMAT = 1
_ACTIVE_RANGE_DB = 30.0
_ACTIVE_FLOOR_DB = -60.0


@dataclass(frozen=True)
class StemFile:
    """One stem file with its RMS level in dBFS for every full or begun second."""

    path: Path
    sample_rate_hz: int
    length_samples: int
    levels_db: np.ndarray

    @property
    def length_s(self) -> float:
        """Length in seconds."""
        return self.length_samples / self.sample_rate_hz

    @property
    def active(self) -> np.ndarray:
        """Bool per second: at most 30 dB below the loud seconds of the file and above -60 dBFS."""
        if len(self.levels_db) == 0:
            return np.zeros(0, bool)
        loud_db = float(np.percentile(self.levels_db, 95))
        return np.asarray(self.levels_db > max(_ACTIVE_FLOOR_DB, loud_db - _ACTIVE_RANGE_DB))

    @property
    def active_level_db(self) -> float:
        """RMS over the active seconds in dBFS; -120 when there are none."""
        levels_db = self.levels_db[self.active]
        if len(levels_db) == 0:
            return FLOOR_DB
        return float(10.0 * np.log10(np.mean(10.0 ** (levels_db / 10.0))))


def measure(path: Path) -> StemFile:
    """Read a file once, second by second, and note its levels.

    Raises:
        InputError: if the file cannot be read, is empty or holds NaN or infinite samples.
    """
    levels_db = []
    length_samples = 0
    with AudioReader(path) as reader:
        rate_hz = reader.info.sample_rate_hz
        for block in reader.blocks(rate_hz):
            samples = block.reshape(-1)
            power = float(np.dot(samples, samples)) / len(samples)
            levels_db.append(max(FLOOR_DB, 10.0 * np.log10(max(power, 1e-12))))
            length_samples += block.shape[1]
    return StemFile(path, rate_hz, length_samples, np.round(np.asarray(levels_db), 1))


def index_files(root: Path, paths: Iterable[Path]) -> dict[Path, StemFile]:
    """Measure stem files, reading only those that are new or changed since the last time.

    The index is kept as `.polyres_index.json` in the root, or in the user's cache folder when the root is read-only.

    Args:
        root: folder that holds all files.
        paths: files to measure.

    Returns:
        Path to measurement, in the given order.

    Raises:
        InputError: if a file cannot be read.
    """
    known = _load_index(root)
    entries: dict[str, dict[str, object]] = {}
    files: dict[Path, StemFile] = {}
    changed = False
    for path in paths:
        name = path.relative_to(root).as_posix()
        status = path.stat()
        stamp = [status.st_size, status.st_mtime_ns]
        entry = known.get(name)
        if entry is None or entry["stamp"] != stamp:
            file = measure(path)
            entry = {"stamp": stamp, "rate_hz": file.sample_rate_hz, "length_samples": file.length_samples}
            entry["levels_db"] = file.levels_db.tolist()
            changed = True
        entries[name] = entry
        files[path] = StemFile(path, entry["rate_hz"], entry["length_samples"], np.asarray(entry["levels_db"], float))
    if changed:
        _save_index(root, {**known, **entries})
    return files


def _index_places(root: Path) -> tuple[Path, Path]:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
    return root / INDEX_NAME, cache / "polyres" / "index" / f"{digest}.json"


def _load_index(root: Path) -> dict:
    for place in _index_places(root):
        try:
            content = json.loads(place.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(content, dict) and content.get("format") == _FORMAT:
            return content["files"]
    return {}


def _save_index(root: Path, entries: dict) -> None:
    text = json.dumps({"format": _FORMAT, "files": entries})
    for place in _index_places(root):
        temporary = place.with_name(f"{place.name}.part{os.getpid()}")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            temporary.write_text(text)
            os.replace(temporary, place)
        except OSError:
            if temporary.is_file():
                temporary.unlink()
            continue
        return
