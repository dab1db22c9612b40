"""Data classes of songs, jobs and results."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from polyres.audio.apart import Room, decode_apart
from polyres.audio.file_names import shown
from polyres.audio.files import AudioInfo
from polyres.core.errors import InputError
from polyres.studio.engines import Choice
from polyres.studio.mixing import played_rate_hz
from polyres.studio.options import StudioOptions

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
