"""Account for disk space: files on disk, and reservations of uploads, jobs and downloads."""

from __future__ import annotations

import shutil
import threading
from dataclasses import dataclass, replace
from pathlib import Path

from polyres.core.errors import PolyresError
from polyres.studio.songs import size_bytes


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
