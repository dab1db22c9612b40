"""Songs, jobs and results of the studio, its options, and the disk space that it gives them."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from polyres.audio.apart import Room, decode_apart
from polyres.audio.file_names import shown
from polyres.audio.files import AudioInfo
from polyres.core.errors import ConfigError, InputError, PolyresError
from polyres.listen.server.web_options import WebOptions
from polyres.studio.engines import Choice
from polyres.studio.mixing import played_rate_hz

_MIB = 1 << 20


@dataclass(frozen=True)
class StudioOptions(WebOptions):
    """Options of the studio's server."""

    port: int = 8766
    max_upload_bytes: int = 512 * _MIB  # largest file
    max_total_bytes: int = 8192 * _MIB  # most that uploads and results may take on disk together
    max_minutes: float = 20.0  # longest song
    max_waiting: int = 20  # most jobs that wait at once; half of them, and at least one, of one visitor
    max_uploads: int = 4  # most songs that one visitor sends at once
    upload_pause_s: float = 30.0  # longest time in which nothing of a song arrives
    max_decode_s: float = 60.0  # longest that decoding an upload may take
    # most uploads that are decoded at once, each in a process of its own; `max_waiting` more may wait
    max_decoders: int = 4
    keep_hours: float = 6.0  # after this time without use a song and its results are removed
    folder: Path | None = None  # where songs and results lie, also over a restart; None is a temporary folder

    def __post_init__(self) -> None:
        """Validate the options."""
        super().__post_init__()
        limits = {
            "max_upload_bytes": self.max_upload_bytes,
            "max_total_bytes": self.max_total_bytes,
            "max_minutes": self.max_minutes,
            "max_waiting": self.max_waiting,
            "max_uploads": self.max_uploads,
            "upload_pause_s": self.upload_pause_s,
            "max_decode_s": self.max_decode_s,
            "max_decoders": self.max_decoders,
            "keep_hours": self.keep_hours,
        }
        for name, value in limits.items():
            if not value > 0:
                raise ConfigError(f"{name} {value} lets nothing in; choose more than 0")


State = Literal["queued", "working", "done", "failed", "cancelled"]


@dataclass
class Lane:
    """One stem or version of a result."""

    name: str  # of the stem or version
    file: Path | None  # as written, for downloads; None for the original, which the visitor has
    played: Path  # copy that browsers play
    view: Path  # JSON file with waveform and spectrogram


@dataclass
class Work:
    """One job."""

    id: str
    choice: Choice
    folder: Path
    state: State = "queued"
    share: float = 0.0
    began_s: float = 0.0
    seconds: float = 0.0
    error: str = ""
    warnings: tuple[str, ...] = ()
    lanes: dict[str, Lane] = field(default_factory=dict)
    length_samples: int = 0
    gain: float = 1.0
    cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def active(self) -> bool:
        """Whether it waits or runs."""
        return self.state in ("queued", "working")


@dataclass
class Song:
    """One uploaded file."""

    id: str
    visitor: str
    name: str
    path: Path
    info: AudioInfo
    length_samples: int
    seen_s: float
    warnings: tuple[str, ...] = ()
    works: dict[str, Work] = field(default_factory=dict)


def ending_of(name: str) -> str:
    """Return the plain extension of a file name, which some formats need."""
    ending = Path(name).suffix
    return ending if ending[1:].isalnum() and ending.isascii() and len(ending) <= 6 else ""


def decode_upload(received: Path, name: str, options: StudioOptions, room: Room) -> tuple[Path, list[str]]:
    """Decode an upload in a separate process and remove the original."""
    path = received.with_name(f"sent{ending_of(name)}")
    received.rename(path)
    decoded = path.with_name("song.wav")
    try:
        warnings = decode_apart(path, decoded, options.max_minutes, room, options.max_decode_s)
    except InputError as error:
        raise InputError(str(error).replace(str(path), shown(name))) from error
    path.unlink()
    return decoded, [line.replace(str(path), shown(name)) for line in warnings]


def job_facts(work: Work, now_s: float, ahead: int, sample_rate_hz: int) -> dict[str, Any]:
    """Return a job as JSON-able values."""
    passed_s = now_s - work.began_s if work.state == "working" else work.seconds
    left_s = passed_s * (1 - work.share) / work.share if work.state == "working" and work.share > 0.02 else None
    return {
        "id": work.id,
        "choice": work.choice.id,
        "kind": work.choice.kind,
        "label": work.choice.label,
        "state": "cancelled" if work.cancelled.is_set() else work.state,
        "share": round(work.share, 4),
        "seconds": round(passed_s, 1),
        "left_s": None if left_s is None else round(left_s, 1),
        "ahead": ahead if work.state == "queued" else 0,
        "error": work.error,
        "warnings": list(work.warnings),
        "gain": work.gain,
        "lanes": list(work.lanes) if work.state == "done" else [],
        "rate_hz": played_rate_hz(sample_rate_hz),
        "length_samples": work.length_samples,
    }


def size_bytes(folder: Path, apart: Collection[Path]) -> int:
    """Add up the files below a folder while others come and go, all but those in the folders apart."""
    total = 0
    for parent, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if Path(parent, name) not in apart]
        for name in names:
            with suppress(OSError):
                total += os.stat(os.path.join(parent, name)).st_size
    return total


def failure_message(error: Exception) -> str:
    """Describe an unexpected failure of a job for the visitor."""
    if isinstance(error, OSError) and error.strerror:
        return f"the studio cannot write ({error.strerror}); remove songs to make room, or ask its host"
    return f"something went wrong in the studio ({type(error).__name__}); see its log"


class FullError(PolyresError):
    """The disk space or a limit of the studio is used up."""


@dataclass(frozen=True)
class _Promise:
    size_bytes: int
    folder: Path
    visitor: str


class DiskSpace:
    """Count used and reserved bytes of a folder."""

    def __init__(self, folder: Path, most_bytes: int, most_uploads: int) -> None:
        self._folder = folder
        self._most_bytes = most_bytes
        self._most_uploads = most_uploads
        self._lock = threading.Lock()
        self._promised: dict[str, _Promise] = {}

    @property
    def promised_bytes(self) -> int:
        """Reserved bytes."""
        with self._lock:
            return sum(promise.size_bytes for promise in self._promised.values())

    def reserve(self, owner: str, more_bytes: int, folder: Path, visitor: str = "") -> None:
        """Reserve space; bytes already written count as part of it."""
        with self._lock:
            sent = sum(promise.visitor == visitor != "" for promise in self._promised.values())
            if sent >= self._most_uploads:
                raise FullError(f"{sent} songs of yours are coming in already; send more when they are here")
            self._promise(owner, _Promise(more_bytes, folder, visitor))

    def resize(self, owner: str, size_bytes: int) -> None:
        """Resize a reservation."""
        with self._lock:
            self._promise(owner, replace(self._promised[owner], size_bytes=size_bytes))

    def _promise(self, owner: str, wanted: _Promise) -> None:
        others = {name: promise for name, promise in self._promised.items() if name != owner}
        used = size_bytes(self._folder, {promise.folder for promise in (*others.values(), wanted)})
        free = shutil.disk_usage(self._folder).free
        promised = sum(promise.size_bytes for promise in others.values()) + wanted.size_bytes
        if used + promised > self._most_bytes or promised > free:
            raise FullError("the studio's disk is full; remove a song, or try again later")
        self._promised[owner] = wanted

    def give_back(self, owner: str) -> None:
        """Release a reservation; an unknown owner is ignored."""
        with self._lock:
            self._promised.pop(owner, None)
