"""Uploaded songs, their jobs, and the worker thread."""

from __future__ import annotations

import json
import logging
import math
import queue
import secrets
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from polyres.audio.file_names import safe_name, shown
from polyres.audio.files import probe
from polyres.core.errors import ConfigError, InputError, PolyresError, UnknownNameError
from polyres.core.whole_files import make_scratch_folder
from polyres.studio.engines import Engine
from polyres.studio.mixing import copy_to_play, view_of
from polyres.studio.saved_state import hold_folder, load_state, save_state
from polyres.studio.songs import (
    DiskSpace,
    FullError,
    Lane,
    Song,
    State,
    StudioOptions,
    Work,
    decode_upload,
    failure_message,
    job_facts,
)

ORIGINAL = "original"
_SWEEP_S = 60.0
_LOG = logging.getLogger("polyres.studio")


class _CancelledError(Exception):
    """The job was cancelled."""


class JobQueue:
    """Hold songs and jobs within the limits and remove expired ones; all files lie below one folder."""

    def __init__(self, engine: Engine, options: StudioOptions, clock: Callable[[], float] = time.monotonic) -> None:
        self.engine = engine
        self.options = options
        self._held = None if options.folder is None else hold_folder(options.folder)
        self.folder = make_scratch_folder() if options.folder is None else options.folder
        self._clock = clock
        self._songs: dict[str, Song] = {}
        self._room = DiskSpace(self.folder, options.max_total_bytes, options.max_uploads)
        self._closed = False
        self._lock = threading.RLock()
        self._queue: queue.Queue[tuple[Song, Work] | None] = queue.Queue()
        if self._held is not None:
            self._songs = {song.id: song for song in load_state(self.folder, engine.choices, clock)}
            for song in self._songs.values():
                for work in song.works.values():
                    if work.state == "queued":
                        self._again(song, work)
            self.sweep()
            self._save()
        self._worker = threading.Thread(target=self._run, name="studio-worker", daemon=True)
        self._worker.start()

    def close(self) -> None:
        """Stop the jobs and wait for the worker; remove all files unless a folder keeps them."""
        with self._lock:
            self._save()
            self._closed = True
            for song in self._songs.values():
                for work in song.works.values():
                    work.cancelled.set()
            self._songs.clear()
        self._queue.put(None)
        self._worker.join(timeout=30)
        if self._held is None:
            shutil.rmtree(self.folder, ignore_errors=True)
        else:
            self._held.release()

    def _save(self) -> None:
        """Save the state for a restart; a failed save is not an error."""
        if self._held is not None and not self._closed:
            try:
                save_state(self.folder, self._songs.values(), self._clock)
            except Exception:
                _LOG.exception("the songs could not be written down")

    def _again(self, song: Song, work: Work) -> None:
        """Queue a job that a restart interrupted."""
        try:
            self._reserve(song, work)
        except FullError as error:
            work.state, work.error = "failed", str(error)
            return
        self._queue.put((song, work))

    # -- songs --------------------------------------------------------------------------------------------------------

    def room_for(self, size_bytes: int, visitor: str = "") -> Path:
        """Reserve disk space and return the path of a new file for an upload or a download."""
        self.sweep()
        folder = self.folder / secrets.token_hex(12)
        self._room.reserve(folder.name, size_bytes, folder, visitor)
        folder.mkdir()
        return folder / "whole"

    def give_back(self, path: Path) -> None:
        """Remove a file that has not become a song, and release its space."""
        shutil.rmtree(path.parent, ignore_errors=True)
        self._room.give_back(path.parent.name)

    def add_song(self, received: Path, name: str, visitor: str) -> Song:
        """Add an uploaded file as a song; an unusable file is removed."""
        clean = safe_name(name.replace("\\", "/").rpartition("/")[2], 120)
        try:
            sent_bytes = received.stat().st_size
            path, warnings = decode_upload(
                received, clean, self.options, lambda more: self._room.resize(received.parent.name, sent_bytes + more)
            )
            info = probe(path)
        except BaseException:
            self.give_back(received)
            raise
        length = info.length_samples or 0
        song = Song(received.parent.name, visitor, clean, path, info, length, self._clock(), tuple(warnings))
        with self._lock:
            self._room.give_back(song.id)
            self._songs[song.id] = song
            self._save()
        return song

    def songs(self, visitor: str) -> list[Song]:
        """Return the songs of a visitor, in the order they came; they count as used now."""
        with self._lock:
            found = [song for song in self._songs.values() if secrets.compare_digest(song.visitor, visitor)]
            for song in found:
                song.seen_s = self._clock()
            return found

    def song(self, song_id: str) -> Song:
        """Return a song."""
        with self._lock:
            if song_id not in self._songs:
                raise UnknownNameError("this song is not here any more; drop it again")
            song = self._songs[song_id]
            song.seen_s = self._clock()
            return song

    def remove_song(self, song_id: str) -> None:
        """Cancel the jobs of a song and remove it."""
        with self._lock:
            song = self.song(song_id)
            del self._songs[song_id]
            self._save()
            for work in song.works.values():
                work.cancelled.set()
            # The worker removes what it still writes into.
            if not any(work.state == "working" for work in song.works.values()):
                shutil.rmtree(song.path.parent, ignore_errors=True)

    def sweep(self) -> int:
        """Remove songs that nobody used for the time that is kept; return how many."""
        oldest = self._clock() - self.options.keep_hours * 3600
        with self._lock:
            old = [
                song.id
                for song in self._songs.values()
                if song.seen_s < oldest and not any(work.active for work in song.works.values())
            ]
            for song_id in old:
                self.remove_song(song_id)
        return len(old)

    # -- jobs ---------------------------------------------------------------------------------------------------------

    def ask(self, song_id: str, choice_id: str) -> Work:
        """Queue a job; an equal job of the song is reused unless it failed."""
        choice = next((one for one in self.engine.choices if one.id == choice_id), None)
        if choice is None:
            names = ", ".join(one.id for one in self.engine.choices)
            raise UnknownNameError(f"there is no {choice_id[:80]!r} here; choose one of {names}")
        with self._lock:
            song = self.song(song_id)
            for work in song.works.values():
                if work.choice == choice and (work.active or work.state == "done") and not work.cancelled.is_set():
                    return work
            self._check_queue(song.visitor)
            work = Work(secrets.token_hex(12), choice, song.path.parent / secrets.token_hex(4))
            self._reserve(song, work)
            for failed in [one.id for one in song.works.values() if one.choice == choice and one.state == "failed"]:
                del song.works[failed]
            song.works[work.id] = work
            self._save()
        self._queue.put((song, work))
        return work

    def _check_queue(self, visitor: str) -> None:
        asked = [one.visitor for one in self._songs.values() for work in one.works.values() if work.active]
        if len(asked) >= self.options.max_waiting:
            raise FullError(f"{len(asked)} songs are waiting already; try again when some are done")
        if (own := asked.count(visitor)) >= max(1, self.options.max_waiting // 2):
            raise FullError(f"{own} songs of yours are waiting already; try again when some are done")

    def work(self, work_id: str) -> tuple[Song, Work]:
        """Return a job and its song."""
        with self._lock:
            for song in self._songs.values():
                if work_id in song.works:
                    song.seen_s = self._clock()
                    return song, song.works[work_id]
        raise UnknownNameError("this result is not here any more; drop the song again")

    def cancel(self, work_id: str) -> None:
        """Cancel a waiting or running job; remove a finished one."""
        with self._lock:
            song, work = self.work(work_id)
            work.cancelled.set()
            if work.state == "queued":
                work.state = "cancelled"
            if not work.active:
                del song.works[work_id]
                self._room.give_back(work_id)
                shutil.rmtree(work.folder, ignore_errors=True)
            self._save()

    def finished(self, work_id: str) -> tuple[Song, Work]:
        """Return a job that is done, and its song."""
        song, work = self.work(work_id)
        if work.state != "done":
            raise ConfigError(f"this job is {work.state}, not done; there is nothing to hear yet")
        return song, work

    def ahead(self, work: Work) -> int:
        """Return the number of jobs ahead of this one."""
        with self._lock:
            pending = [one for one, _ in self._pending()]
            running = sum(each.state == "working" for song in self._songs.values() for each in song.works.values())
            return running + pending.index(work.id) if work.id in pending else 0

    def _pending(self) -> list[tuple[str, State]]:
        with self._queue.mutex:
            entries = [entry for entry in self._queue.queue if entry is not None]
        return [(work.id, work.state) for _, work in entries if work.state == "queued"]

    def _reserve(self, song: Song, work: Work) -> None:
        # Three stems' worth of 24 bit, and as much again for what is in between.
        self._room.reserve(work.id, 6 * 3 * song.length_samples * song.info.channels, work.folder)

    # -- the worker ---------------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            try:
                entry = self._queue.get(timeout=_SWEEP_S)
            except queue.Empty:
                self.sweep()
                with self._lock:
                    self._save()
                continue
            if entry is None:
                return
            try:
                self._do(*entry)
            except Exception:  # such as one of a full disk; the next job may fare better
                _LOG.exception("a job could not be ended")

    def _do(self, song: Song, work: Work) -> None:
        with self._lock:
            if work.cancelled.is_set():
                self._room.give_back(work.id)
                return
            work.state, work.began_s = "working", self._clock()
        try:
            self._make(song, work)
            state: State = "done"
        except _CancelledError:
            state = "cancelled"
        except PolyresError as error:
            state, work.error = "failed", shown(str(error).replace(str(song.path), song.name))
        except Exception as error:
            _LOG.exception("a job failed")
            state, work.error = "failed", failure_message(error)
        with self._lock:
            self._room.give_back(work.id)
            work.seconds = self._clock() - work.began_s
            work.state = "cancelled" if work.cancelled.is_set() else state
            if work.state != "done":
                shutil.rmtree(work.folder, ignore_errors=True)
            if work.state == "cancelled":
                song.works.pop(work.id, None)
            self._save()
            if song.id not in self._songs and not self._closed:
                shutil.rmtree(song.path.parent, ignore_errors=True)

    def _make(self, song: Song, work: Work) -> None:
        """Run the engine, then prepare what the page shows and plays."""

        def tell(share: float) -> None:
            if work.cancelled.is_set():
                raise _CancelledError
            work.share = max(work.share, min(1.0, share))

        work.folder.mkdir()
        made = self.engine.run(work.choice, song.path, work.folder, lambda share: tell(0.9 * share))
        if not 0 <= made.gain < math.inf:
            raise InputError(f"{work.choice.label} gave a level of {made.gain}, which no sound has; try another model")
        files: dict[str, Path | None] = {shown(name)[:200] or "_": file for name, file in made.files.items()}
        if ORIGINAL not in files:
            files[ORIGINAL] = None
        for number, (name, file) in enumerate(files.items()):
            tell(0.9 + 0.1 * number / len(files))
            played = work.folder / f"play-{number}.flac"
            length = copy_to_play(file or song.path, played, 1.0 if file else made.gain)
            view = work.folder / f"view-{number}.json"
            view.write_text(json.dumps(view_of(played, length)), encoding="ascii")
            work.lanes[name] = Lane(name, file, played, view)
            work.length_samples = max(work.length_samples, length)
        work.gain = made.gain
        work.warnings = *song.warnings, *(shown(line.replace(str(song.path), song.name)) for line in made.warnings)
        tell(1.0)

    # -- what the page is told ----------------------------------------------------------------------------------------

    def told(self, song: Song) -> dict[str, Any]:
        """Return a song and its jobs as JSON-able values."""
        with self._lock:
            return {
                "id": song.id,
                "name": song.name,
                "seconds": song.length_samples / song.info.sample_rate_hz,
                "works": [
                    job_facts(work, self._clock(), self.ahead(work), song.info.sample_rate_hz)
                    for work in song.works.values()
                ],
            }
