"""Data sets with a file per instrument: Slakh2100 and MoisesDB, their instruments summed to the sources wanted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from polyres.core.errors import InputError
from polyres.core.json_text import bounded_bytes
from polyres.core.yaml_files import yaml_value
from polyres.data.names import shown
from polyres.data.track_files import (
    Layout,
    Part,
    TrackFiles,
    first_file,
    folders_under,
    missing_file,
    mixture_of,
    read_json,
)

REST = "other"
_SLAKH_FOLDERS = {"train": "train", "valid": "validation", "test": "test"}


class SlakhLayout(Layout):
    """Slakh2100: `TrackXXXXX/metadata.yaml` and `TrackXXXXX/stems/SXX.flac`.

    Stems of the class Drums are drums, of the class Bass bass; others go to a source of the name of their class
    (guitar, piano …) where that is wanted, and else to `other`. The folder `omitted`, which repeats songs, is left out.

    Source: Manilow et al., "Cutting Music Source Separation Some Slakh", WASPAA 2019.
    """

    splits = ("all", "train", "valid", "test")
    wanted: ClassVar[str] = "ROOT/train/Track00001/metadata.yaml and stems/S00.flac, ROOT/validation, ROOT/test"

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the tracks of a split; a root without the folders of the splits is one split, `all`."""
        folders = [root / name for key, name in _SLAKH_FOLDERS.items() if split in ("all", key)]
        if split == "all":
            folders.append(root)
        tracks = [
            sub
            for folder in folders
            if folder.is_dir()
            for sub in folder.iterdir()
            if (sub / "metadata.yaml").is_file()
        ]
        return [_slakh_track(folder, sources) for folder in sorted(tracks)]


def _slakh_track(folder: Path, sources: Sequence[str]) -> TrackFiles:
    try:
        listed = _slakh_stems(folder / "metadata.yaml")
    except InputError as error:
        return TrackFiles(folder.name, folder, {}, mixture_of(folder), (str(error),))
    stems: dict[str, tuple[Part, ...]] = {}
    problems = []
    for name, facts in sorted(listed.items()):
        source = "drums" if facts.get("is_drum") is True else source_of(str(facts.get("inst_class")), sources)
        rendered = facts.get("audio_rendered")
        if source not in sources or rendered is False:
            continue
        path = first_file(folder / "stems", name)
        if path is not None:
            stems[source] = (*stems.get(source, ()), Part(path))
        elif rendered:
            problems.append(missing_file(folder / "stems" / f"{name}.flac", folder.name))
    return TrackFiles(folder.name, folder, stems, mixture_of(folder), tuple(problems))


def _slakh_stems(path: Path) -> dict[str, Mapping[str, Any]]:
    """Read the stems of a metadata file."""
    try:
        content = yaml_value(bounded_bytes(path).decode())
    except (OSError, ValueError) as error:
        raise InputError(f"'{shown(path)}' cannot be read as YAML; copy it again") from error
    stems = content.get("stems") if isinstance(content, Mapping) else None
    if not isinstance(stems, Mapping) or not all(isinstance(facts, Mapping) for facts in stems.values()):
        raise InputError(f"'{shown(path)}' lists no stems; copy it again")
    return {str(name): facts for name, facts in stems.items()}


class MoisesLayout(Layout):
    """MoisesDB: a folder per track, at any depth, with `data.json` and `STEM/ID.wav`.

    Vocals, bass and drums keep their names and percussion joins the drums; others go to a source of their own name
    (guitar, piano …) where that is wanted, and else to `other`.

    Source: Pereira et al., "MoisesDB: a dataset for source separation beyond 4-stems", ISMIR 2023.
    """

    wanted: ClassVar[str] = "folders with data.json and STEM/ID.wav"

    def find(self, root: Path, sources: Sequence[str], split: str = "all") -> list[TrackFiles]:
        """List the tracks in the order of their folders."""
        folders = sorted(folder for folder in folders_under(root) if (folder / "data.json").is_file())
        return [_moises_track(folder, sources) for folder in folders]


def _moises_track(folder: Path, sources: Sequence[str]) -> TrackFiles:
    try:
        name, listed = _moises_files(folder)
    except InputError as error:
        return TrackFiles(folder.name, folder, {}, None, (str(error),))
    stems: dict[str, tuple[Part, ...]] = {}
    problems = []
    for instrument, path in listed:
        source = "drums" if instrument == "percussion" else source_of(instrument, sources)
        if source not in sources:
            continue
        if os.path.isfile(path):  # a name may be too long to be one
            stems[source] = (*stems.get(source, ()), Part(path))
        else:
            problems.append(missing_file(path, name))
    return TrackFiles(name, folder, stems, mixture_of(folder), tuple(problems))


def _moises_files(folder: Path) -> tuple[str, list[tuple[str, Path]]]:
    """Read the name of a track, and the instrument and path of each of its files, in the order of `data.json`."""
    path = folder / "data.json"
    content = read_json(path)
    try:
        files = [
            (str(stem["stemName"]), folder / str(stem["stemName"]) / f"{track['id']}.{track['extension']}")
            for stem in content["stems"]
            for track in stem["tracks"]
        ]
        song = " - ".join(str(content[key]) for key in ("artist", "song") if content.get(key))
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{shown(path)}' lists no stems with tracks; copy it again") from error
    for _, file in files:
        if file.parent.parent != folder or file.parent.name in ("", ".."):
            raise InputError(f"'{shown(path)}' names {str(file)[:80]!r}, which is outside its folder; copy it again")
    return song or folder.name, files


def source_of(instrument: str, sources: Sequence[str]) -> str:
    """Return the source that an instrument belongs to.

    Args:
        instrument: name of a class or stem, in any case; spaces count as underscores.
        sources: stems that are wanted.

    Returns:
        `drums`, `bass` or `vocals` for these; the instrument's own name where that is wanted; else `other`.
    """
    name = instrument.strip().lower().replace(" ", "_")
    return name if name in ("drums", "bass", "vocals") or name in sources else REST
