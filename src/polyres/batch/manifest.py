"""Manifests and work folders: what results were made from, so that finished work is not done twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from polyres.core.json_text import json_file
from polyres.core.whole_files import make_scratch_folder

MANIFEST_NAME = "separation.json"
MANIFEST_FORMAT = 1


@dataclass(frozen=True)
class InputId:
    """What tells one input file from another."""

    path: str
    size_bytes: int
    mtime_ns: int

    @classmethod
    def of(cls, path: Path) -> InputId:
        """Look at a file that exists."""
        stat = path.stat()
        return cls(os.path.realpath(path), stat.st_size, stat.st_mtime_ns)

    def same_content(self, other: InputId) -> bool:
        """Whether both are most likely the same recording, moved or not."""
        same_name = Path(self.path).name == Path(other.path).name
        return same_name and (self.size_bytes, self.mtime_ns) == (other.size_bytes, other.mtime_ns)

    def same_track(self, other: InputId) -> bool:
        """Whether both belong into one folder: the same content, or the same place with new content."""
        return self.path == other.path or self.same_content(other)


@dataclass(frozen=True)
class StemRecord:
    """How one file was made."""

    stem: str
    settings: Mapping[str, Any]  # everything that has an influence on its samples
    gain: float  # factor shared by all stems that were written with it


@dataclass
class Manifest:
    """All files of one track folder."""

    input: InputId  # the input file the folder belongs to
    files: dict[str, StemRecord] = field(default_factory=dict)


def read_manifest(folder: Path) -> Manifest | None:
    """Read the manifest of a track folder.

    `folder`: folder with the stems of a track; need not exist. Returns the manifest; None when there is none or it
    cannot be understood.
    """
    try:
        data = json_file(folder / MANIFEST_NAME)
        files = {
            name: StemRecord(entry["stem"], dict(entry["settings"]), float(entry["gain"]))
            for name, entry in data["files"].items()
        }
        return Manifest(InputId(**data["input"]), files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def manifest_text(manifest: Manifest, facts: Mapping[str, Any]) -> str:
    """Write a manifest as JSON.

    `facts`: further facts for readers, such as rate and warnings; they are not read back.
    """
    files = {name: {"stem": r.stem, "settings": dict(r.settings), "gain": r.gain} for name, r in manifest.files.items()}
    data = {"format": MANIFEST_FORMAT, "input": vars(manifest.input), **facts, "files": files}
    return json.dumps(data, indent=2) + "\n"


def changed_settings(old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    """Name the settings that differ, as "shifts 0, now 2"; those about the input in words."""
    keys = [key for key in new if old.get(key) != new[key]]
    texts = [f"{key} {old.get(key)}, now {new[key]}" for key in keys if not key.startswith("input_")]
    if len(texts) < len(keys):
        texts.append("the input file has changed since")
    return "; ".join(texts)


@contextmanager
def work_folder(folder: Path) -> Iterator[Path]:
    """Give a hidden folder beside another; afterwards it is gone, and so are parents made for it that stay empty.

    `folder`: where the results will be; may be missing, as may its parents.
    """
    made = [one for one in (folder.parent, *folder.parent.parents) if not one.exists()]
    work: Path | None = None
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = make_scratch_folder(folder.parent)
        work.chmod(0o755)
        yield work
    finally:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for one in made:
            with suppress(OSError):  # not empty: something was written, or another process works there
                one.rmdir()


def publish_folder(work: Path, folder: Path) -> None:
    """Put a finished folder in its place; what was there before goes only then.

    `work`: of `work_folder`, with everything in it. Raises OSError when it cannot be moved; what was there before is
    then there still.
    """
    if not folder.exists():
        work.rename(folder)
        return
    old = make_scratch_folder(folder.parent)
    try:
        folder.rename(old / "old")
    except OSError:
        old.rmdir()
        raise
    try:
        work.rename(folder)
    except OSError:
        (old / "old").rename(folder)
        old.rmdir()
        raise
    shutil.rmtree(old, ignore_errors=True)
