"""Songs, the jobs on them, and what comes out, as the studio remembers them."""

from __future__ import annotations

import os
import threading
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from polyres.core.errors import InputError
from polyres.data.audio import AudioInfo, AudioReader
from polyres.studio.engines import Choice
from polyres.studio.mixing import BLOCK_SAMPLES, played_rate_hz

State = Literal["queued", "working", "done", "failed", "cancelled"]


@dataclass
class Lane:
    """One sound of a result.

    Args:
        name: of the stem or version.
        file: as written, for downloads; None for the original, which the visitor has.
        played: copy that browsers play.
        view: JSON file with waveform and spectrogram.
    """

    name: str
    file: Path | None
    played: Path
    view: Path


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
    """One file that a visitor brought."""

    id: str
    visitor: str
    name: str
    path: Path
    info: AudioInfo
    length_samples: int
    seen_s: float
    works: dict[str, Work] = field(default_factory=dict)


def ending_of(name: str) -> str:
    """Return the ending of a name where it is plain, since some formats are told by it.

    Args:
        name: of a file.

    Returns:
        Such as ".wav"; empty where it is none.
    """
    ending = Path(name).suffix
    return ending if ending[1:].isalnum() and ending.isascii() and len(ending) <= 6 else ""


def facts_of(path: Path, max_minutes: float) -> tuple[AudioInfo, int]:
    """Read a file's head, and all of it where only that tells its length.

    Args:
        path: the file.
        max_minutes: the longest song.

    Returns:
        Facts, and its length in samples.

    Raises:
        InputError: if it is not audio, or too long.
    """
    with AudioReader(path) as reader:
        info = reader.info
        most = max_minutes * 60 * info.sample_rate_hz
        length = info.length_samples
        if length is None:
            length = 0
            for block in reader.blocks(BLOCK_SAMPLES):
                length += block.shape[1]
                if length > most:
                    break
    if length > most:
        raise InputError(f"{path} is longer than {max_minutes:g} minutes, the most this studio takes; cut it")
    return info, length


def told_work(work: Work, now_s: float, ahead: int, sample_rate_hz: int) -> dict[str, Any]:
    """Return a job as JSON-able values.

    Args:
        work: the job.
        now_s: time of the clock that it began by.
        ahead: jobs that come before it.
        sample_rate_hz: of its song.
    """
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
