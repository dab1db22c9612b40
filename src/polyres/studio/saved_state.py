"""Save and load songs, jobs and results of a studio in one file of its folder."""

from __future__ import annotations

import json
import logging
import re
import secrets
import shutil
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from filelock import FileLock, Timeout
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from polyres.audio.files import AudioReader
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.whole_files import remove_left_behind, write_whole
from polyres.studio.engines import Choice, Kind
from polyres.studio.songs import Lane, Song, State, Work

MEMORY_FILE = "songs.json"
_MARKER_FILE = ".polyres-studio"
_LOCK_FILE = ".lock"
_ASIDE = "songs-damaged-"
_MAX_BYTES = 64 << 20
_ID = r"^[0-9a-f]{24}$"
_FOLDER = r"^[0-9a-f]{8}$"
_LOG = logging.getLogger("polyres.studio")
_FILE = r"^[^/\\\x00-\x1f]{1,200}$"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def _inside(text: str) -> str:
    """Refuse a path that leads out of the folder it is in."""
    if not all(re.fullmatch(_FILE, part) and part not in (".", "..") for part in text.split("/")):
        raise ValueError("leads elsewhere")
    return text


class _Lane(_Strict):
    name: str = Field(min_length=1, max_length=200)
    file: Annotated[str, AfterValidator(_inside)] | None
    played: str = Field(pattern=_FILE)
    view: str = Field(pattern=_FILE)


class _Work(_Strict):
    id: str = Field(pattern=_ID)
    choice: str
    kind: Kind = "separate"
    label: str = ""
    folder: str = Field(pattern=_FOLDER)
    state: State
    seconds: float = Field(ge=0)
    error: str
    warnings: list[str]
    lanes: list[_Lane]
    length_samples: int = Field(ge=0)
    gain: float = Field(ge=0)


class _Song(_Strict):
    id: str = Field(pattern=_ID)
    visitor: str = Field(pattern=r"^[A-Za-z0-9_-]{16,64}$")
    name: str = Field(max_length=200)
    file: str = Field(pattern=_FILE)
    length_samples: int = Field(ge=0)
    seen: float = Field(ge=0)
    warnings: list[str] = Field(default_factory=list)
    works: list[_Work]


class _Memory(_Strict):
    format: int = Field(ge=1, le=1)
    songs: list[Any]


def hold_folder(folder: Path) -> FileLock:
    """Create a studio's folder and lock it for this process."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()) and not _is_a_studio(folder):
            raise ConfigError(
                f"{folder} holds files that are not of a studio; choose an empty or a new folder as --folder"
            )
        (folder / _MARKER_FILE).touch()
        lock = FileLock(folder / _LOCK_FILE)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ConfigError(f"another studio uses {folder}; end it, or choose another --folder") from error
    except OSError as error:
        raise ConfigError(f"cannot use the folder {folder} ({error.strerror}); choose another --folder") from error
    remove_left_behind(folder)
    return lock


def _is_a_studio(folder: Path) -> bool:
    """Whether a studio has used a folder: by its mark, or by its songs where the hidden mark was not copied along."""
    return (folder / _MARKER_FILE).is_file() or bool(_read(folder / MEMORY_FILE)[0])


def _remove_own(folder: Path, own: str, kept: Collection[str]) -> None:
    """Remove the studio's own folders, recognised by name; other files stay."""
    for path in folder.iterdir():
        if path.name not in kept and re.fullmatch(own, path.name) and path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def save_state(folder: Path, songs: Iterable[Song], clock: Callable[[], float]) -> None:
    """Save all songs and jobs, if the disk has room. `songs`: in the order they came."""
    offset_s = time.time() - clock()
    texts = []
    for song in songs:
        try:
            texts.append(_told(song, offset_s).model_dump_json(indent=1))
        except ValueError:
            _LOG.exception("the song %s cannot be written down", song.id)
    with suppress(OutputError):
        write_whole(folder / MEMORY_FILE, '{"format": 1, "songs": [' + ",\n".join(texts) + "]}\n")


def _told(song: Song, offset_s: float) -> _Song:
    return _Song(
        id=song.id,
        visitor=song.visitor,
        name=song.name,
        file=song.path.name,
        length_samples=song.length_samples,
        seen=song.seen_s + offset_s,
        warnings=list(song.warnings),
        works=[_written(work) for work in song.works.values() if not work.cancelled.is_set()],
    )


def _written(work: Work) -> _Work:
    lanes = [
        _Lane(
            name=lane.name,
            file=lane.file.relative_to(work.folder).as_posix() if lane.file else None,
            played=lane.played.name,
            view=lane.view.name,
        )
        for lane in work.lanes.values()
    ]
    return _Work(
        id=work.id,
        choice=work.choice.id,
        kind=work.choice.kind,
        label=work.choice.label,
        folder=work.folder.name,
        state=work.state,
        seconds=work.seconds,
        error=work.error,
        warnings=list(work.warnings),
        lanes=lanes if work.state == "done" else [],
        length_samples=work.length_samples,
        gain=work.gain,
    )


def load_state(folder: Path, choices: Sequence[Choice], clock: Callable[[], float]) -> list[Song]:
    """Load what `save_state` wrote; unlisted folders of the studio are removed."""
    found, whole = _read(folder / MEMORY_FILE)
    if not whole:
        _set_aside(folder / MEMORY_FILE)
    known = {choice.id: choice for choice in choices}
    recalled = (_recalled(folder, told, known, clock() - time.time()) for told in found)
    songs = [song for song in recalled if song is not None]
    if not any(folder.glob(f"{_ASIDE}*.json")):
        _remove_own(folder, _ID, {song.id for song in songs})
    return songs


def _read(path: Path) -> tuple[list[_Song], bool]:
    """Read the valid songs; return also whether all were valid."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return [], False
        entries = _Memory.model_validate_json(path.read_bytes()).songs
    except FileNotFoundError:
        return [], True
    except (OSError, ValidationError):
        return [], False
    songs = []
    for entry in entries:
        with suppress(ValidationError):
            songs.append(_Song.model_validate_json(json.dumps(entry)))
    return songs, len(songs) == len(entries)


def _set_aside(path: Path) -> None:
    """Rename an unreadable file, so that it can be repaired."""
    aside = path.with_name(f"{_ASIDE}{secrets.token_hex(4)}.json")
    try:
        shutil.copyfile(path, aside)
    except OSError as error:
        raise ConfigError(f"cannot read {path} ({error.strerror}); mend it, or choose another --folder") from error
    _LOG.warning(
        "%s is damaged; a copy is kept as %s, and all files of its songs stay until you remove it", path, aside
    )


def _recalled(folder: Path, told: _Song, choices: dict[str, Choice], offset_s: float) -> Song | None:
    path = folder / told.id / told.file
    try:
        with AudioReader(path) as reader:
            info = reader.info
    except InputError:
        return None
    song = Song(
        told.id, told.visitor, told.name, path, info, told.length_samples, told.seen + offset_s, tuple(told.warnings)
    )
    for one in told.works:
        place = path.parent / one.folder
        if one.state == "cancelled":
            continue
        lanes = {
            lane.name: Lane(lane.name, place / lane.file if lane.file else None, place / lane.played, place / lane.view)
            for lane in one.lanes
        }
        files = [file for lane in lanes.values() for file in (lane.file, lane.played, lane.view) if file is not None]
        if one.state == "done" and not (files and all(file.is_file() for file in files)):
            continue
        choice = choices.get(one.choice) or Choice(one.choice, one.kind, one.label or one.choice)
        work = Work(one.id, choice, place, "queued" if one.state == "working" else one.state)
        work.seconds, work.error, work.warnings = one.seconds, one.error, tuple(one.warnings)
        if work.active and one.choice not in choices:
            work.state, work.error = "failed", f"this studio does not offer {choice.label} any more; choose another"
        work.lanes, work.length_samples, work.gain = lanes, one.length_samples, one.gain
        work.share = float(work.state == "done")
        song.works[work.id] = work
    _remove_own(path.parent, _FOLDER, {work.folder.name for work in song.works.values() if work.state == "done"})
    return song
