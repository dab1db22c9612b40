"""HTTP API of the studio's page."""

from __future__ import annotations

import asyncio
import json
import math
import secrets
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from anyio import CapacityLimiter, to_thread
from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from polyres.audio.file_names import safe_name
from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.listen.server.security import announced_bytes
from polyres.studio.jobs import JobQueue
from polyres.studio.mixing import Strip, mix
from polyres.studio.songs import FullError, Song, Work

router = APIRouter(prefix="/api")
_SLOWEST_BYTES_PER_S = 4096
_HEADS_BYTES = 1 << 20


def _queue(request: Request) -> JobQueue:
    queue: JobQueue = request.app.state.queue
    return queue


QueueOf = Annotated[JobQueue, Depends(_queue)]
Visitor = Annotated[str, Header(alias="x-studio-visitor", pattern=r"^[A-Za-z0-9_-]{16,64}$")]


def _own_song(song_id: str, queue: QueueOf, visitor: Visitor) -> Song:
    song = queue.song(song_id)
    if not secrets.compare_digest(song.visitor, visitor):
        raise UnknownNameError("this song is not here any more; drop it again")
    return song


def _own_work(work_id: str, queue: QueueOf, visitor: Visitor) -> Work:
    song, work = queue.work(work_id)
    if not secrets.compare_digest(song.visitor, visitor):
        raise UnknownNameError("this result is not here any more; drop the song again")
    return work


OwnSong = Annotated[Song, Depends(_own_song)]
OwnWork = Annotated[Work, Depends(_own_work)]


class Ask(BaseModel):
    """A wish for a job."""

    model_config = ConfigDict(extra="forbid")
    choice: str = Field(max_length=300)


@router.get("/studio")
def studio(queue: QueueOf) -> dict[str, Any]:
    """Return the choices and the limits."""
    options = queue.options
    return {
        "choices": [vars(choice) for choice in queue.engine.choices],
        "max_upload_bytes": options.max_upload_bytes,
        "max_minutes": options.max_minutes,
        "keep_hours": options.keep_hours,
    }


@router.get("/songs")
def songs(queue: QueueOf, visitor: Visitor) -> list[dict[str, Any]]:
    """Return the visitor's songs and jobs."""
    return [queue.told(song) for song in queue.songs(visitor)]


@router.post("/songs", status_code=201)
async def add_song(request: Request, queue: QueueOf, visitor: Visitor, name: str = "song") -> Response:
    """Receive a song: the bytes of the file as the body."""
    most = queue.options.max_upload_bytes
    announced = announced_bytes(request.headers)
    if announced is None or announced > most:
        return _too_large(most)
    decoders: CapacityLimiter = request.app.state.decoders
    if decoders.statistics().tasks_waiting >= queue.options.max_waiting:
        raise FullError("too many songs arrive at once; try again in a minute")
    # A streamed body may be of any length, whatever else the request says.
    room = most if "transfer-encoding" in request.headers else announced or most
    path = await run_in_threadpool(queue.room_for, room, visitor)
    complete = False
    try:
        if not await _received(request, path, room, queue.options.upload_pause_s):
            return _too_large(most)
        # Uploads wait for a decoder among themselves, so that the threads of all other requests stay free.
        song = await to_thread.run_sync(queue.add_song, path, name, visitor, limiter=decoders)
        complete = True
    except ClientDisconnect:
        return Response(status_code=400)
    except TimeoutError:
        detail = "the song came too slowly and was not kept; send it again"
        return JSONResponse({"detail": detail}, status_code=408, headers={"connection": "close"})
    except OSError as error:
        raise FullError(f"the studio could not keep this file ({error.strerror}); try again later") from error
    finally:
        if not complete:
            queue.give_back(path)
    return JSONResponse(queue.told(song), status_code=201)


async def _received(request: Request, path: Path, most: int, pause_s: float) -> bool:
    """Write a body to a file; return whether it fits the reservation."""
    received, began_s = 0, time.monotonic()
    chunks = aiter(request.stream())
    with path.open("wb") as file:
        while True:
            late_s = began_s + pause_s + received / _SLOWEST_BYTES_PER_S - time.monotonic()
            async with asyncio.timeout(max(0.0, min(pause_s, late_s))):
                chunk = await anext(chunks, None)
            if chunk is None:
                return True
            received += len(chunk)
            if received > most:
                return False
            file.write(chunk)


def _too_large(most: int) -> Response:
    detail = f"this file is larger than {most / 2**20:.4g} MiB, the most this studio takes"
    # The rest of the body is not read.
    return JSONResponse({"detail": detail}, status_code=413, headers={"connection": "close"})


@router.delete("/songs/{song_id}", status_code=204)
def remove_song(song: OwnSong, queue: QueueOf) -> None:
    """Remove a song and its results."""
    queue.remove_song(song.id)


@router.post("/songs/{song_id}/works", status_code=202)
def ask(song: OwnSong, wish: Ask, queue: QueueOf) -> dict[str, str]:
    """Queue a job."""
    return {"id": queue.ask(song.id, wish.choice).id}


@router.delete("/works/{work_id}", status_code=204)
def cancel(work: OwnWork, queue: QueueOf) -> None:
    """Cancel a job, or remove its result."""
    queue.cancel(work.id)


@router.get("/works/{work_id}/views")
def views(work: OwnWork, queue: QueueOf) -> dict[str, Any]:
    """Give waveforms and spectrograms."""
    queue.finished(work.id)
    return {name: json.loads(_read(lane.view)) for name, lane in work.lanes.items()}


@router.get("/works/{work_id}/audio/{name}")
def audio(work: OwnWork, name: str, queue: QueueOf) -> Response:
    """Send the playable copy of a stem."""
    queue.finished(work.id)
    if name not in work.lanes:
        raise UnknownNameError(f"there is no {name[:40]!r} in this result; it has {', '.join(work.lanes)}")
    headers = {"cache-control": "private, no-store"}
    return FileResponse(work.lanes[name].played, media_type="audio/flac", headers=headers)


# Downloads are links, which carry no header: the random name of the result is their key.
@router.get("/works/{work_id}/stems.zip")
def stems_zip(work_id: str, queue: QueueOf) -> Response:
    """Send all files of a result as one archive."""
    song, work = queue.finished(work_id)
    files = {lane.name: lane.file for lane in work.lanes.values() if lane.file is not None}
    name = _download_name(song, work)
    try:
        target = queue.room_for(sum(file.stat().st_size for file in files.values()) + _HEADS_BYTES)
        with _given_back_on_error(queue, target), zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for lane, file in files.items():
                archive.write(file, f"{name}/{safe_name(lane)}{file.suffix}")
    except OSError as error:
        raise UnknownNameError("this result is not here any more; drop the song again") from error
    return _Once(queue, target, f"{name}.zip", "application/zip")


@router.get("/works/{work_id}/mix.wav")
def mix_wav(
    work_id: str, queue: QueueOf, strips: str = "", start_s: float | None = None, end_s: float | None = None
) -> Response:
    """Send a mix: `strips` is `name:level_db:pan`, comma-separated."""
    song, work = queue.finished(work_id)
    chosen: dict[Path, Strip] = {}
    for part in filter(None, strips[:4000].split(",")):
        path, strip = _strip(part, song, work)
        chosen[path] = strip
    span = None if start_s is None or end_s is None else (start_s, end_s)
    if span is not None and not 0 <= span[0] < span[1] < 1e6:
        raise ConfigError(f"{span[0]:g} to {span[1]:g} s is no part of a song; choose 0 <= start < end")
    # Two channels of 24 bit, of a song whose length is known; a codec may add a little at its end.
    target = queue.room_for(6 * max(song.length_samples, work.length_samples) + _HEADS_BYTES).with_suffix(".wav")
    with _given_back_on_error(queue, target):
        mix(chosen, target, span)
    return _Once(queue, target, f"{_download_name(song, work)} mix.wav", "audio/wav")


def _strip(part: str, song: Song, work: Work) -> tuple[Path, Strip]:
    name, _, rest = part.partition(":")
    if name not in work.lanes:
        raise UnknownNameError(f"there is no {name[:40]!r} in this result; it has {', '.join(work.lanes)}")
    try:
        level_db, pan = (float(value) for value in rest.split(":"))
        strip = Strip(level_db, pan)
    except ValueError:
        raise ConfigError(f"{part[:60]!r} is no strip; write name:level_db:pan, such as drums:-3:0") from None
    file = work.lanes[name].file
    if file is not None:
        return file, strip
    # The original at its own rate, as loud as the stems; the copy to play may be of another rate.
    return song.path, Strip(max(-120.0, level_db + 20 * math.log10(max(work.gain, 1e-6))), pan)


@contextmanager
def _given_back_on_error(queue: JobQueue, path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        queue.give_back(path)
        raise


class _Once(FileResponse):
    """A temporary file, removed when it was sent or the connection closed."""

    def __init__(self, queue: JobQueue, path: Path, name: str, media_type: str) -> None:
        super().__init__(path, media_type=media_type, filename=name)
        self._queue = queue

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._queue.give_back(Path(self.path))


def _download_name(song: Song, work: Work) -> str:
    return safe_name(f"{Path(song.name).stem} - {work.choice.label}", 150)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InputError("this result is not here any more; drop the song again") from error
