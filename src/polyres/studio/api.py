"""What the page asks of the studio."""

from __future__ import annotations

import json
import math
import secrets
import zipfile
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request
from fastapi.responses import FileResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.background import BackgroundTask
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response

from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.data.names import safe_name
from polyres.studio.desk import Desk, FullError
from polyres.studio.mixing import Strip, mix
from polyres.studio.songs import Song, Work

router = APIRouter(prefix="/api")


def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


DeskOf = Annotated[Desk, Depends(_desk)]
Visitor = Annotated[str, Header(alias="x-studio-visitor", pattern=r"^[A-Za-z0-9_-]{16,64}$")]


class Ask(BaseModel):
    """A wish for a job."""

    model_config = ConfigDict(extra="forbid")
    choice: str = Field(max_length=300)


@router.get("/studio")
def studio(desk: DeskOf) -> dict[str, Any]:
    """Tell what can be done here, and the limits."""
    options = desk.options
    return {
        "choices": [vars(choice) for choice in desk.engine.choices],
        "max_upload_bytes": options.max_upload_bytes,
        "max_minutes": options.max_minutes,
        "keep_hours": options.keep_hours,
    }


@router.get("/songs")
def songs(desk: DeskOf, visitor: Visitor) -> list[dict[str, Any]]:
    """Tell a visitor about their songs and the jobs on them."""
    return [desk.told(song) for song in desk.songs(visitor)]


@router.post("/songs", status_code=201)
async def add_song(request: Request, desk: DeskOf, visitor: Visitor, name: str = "song") -> Response:
    """Receive a song: the bytes of the file as the body."""
    most = desk.options.max_upload_bytes
    announced = request.headers.get("content-length", "0")
    if not announced.isdigit() or int(announced) > most:
        return _too_large(most)
    path = await run_in_threadpool(desk.room_for_upload, int(announced))
    received, complete = 0, False
    try:
        with path.open("wb") as file:
            async for chunk in request.stream():
                received += len(chunk)
                if received > most:
                    return _too_large(most)
                file.write(chunk)
        complete = True
    except ClientDisconnect:
        return Response(status_code=400)
    except OSError as error:
        raise FullError(f"the studio could not keep this file ({error.strerror}); try again later") from error
    finally:
        if not complete:
            desk.refuse_upload(path)
    song = await run_in_threadpool(desk.add_song, path, name, visitor)
    return JSONResponse(desk.told(song), status_code=201)


def _too_large(most: int) -> Response:
    detail = f"this file is larger than {most / 2**20:.4g} MiB, the most this studio takes"
    # The rest of the body is not read.
    return JSONResponse({"detail": detail}, status_code=413, headers={"connection": "close"})


@router.delete("/songs/{song_id}", status_code=204)
def remove_song(song_id: str, desk: DeskOf) -> None:
    """Remove a song and everything made of it."""
    desk.remove_song(song_id)


@router.post("/songs/{song_id}/works", status_code=202)
def ask(song_id: str, wish: Ask, desk: DeskOf) -> dict[str, str]:
    """Queue a job."""
    return {"id": desk.ask(song_id, wish.choice).id}


@router.delete("/works/{work_id}", status_code=204)
def cancel(work_id: str, desk: DeskOf) -> None:
    """Cancel a job, or remove its result."""
    desk.cancel(work_id)


@router.get("/works/{work_id}/views")
def views(work_id: str, desk: DeskOf) -> dict[str, Any]:
    """Give waveforms and spectrograms."""
    _, work = desk.finished(work_id)
    return {name: json.loads(_read(lane.view)) for name, lane in work.lanes.items()}


@router.get("/works/{work_id}/audio/{name}")
def audio(work_id: str, name: str, desk: DeskOf) -> Response:
    """Give the copy of a lane that browsers play."""
    _, work = desk.finished(work_id)
    if name not in work.lanes:
        raise UnknownNameError(f"there is no {name[:40]!r} in this result; it has {', '.join(work.lanes)}")
    return FileResponse(work.lanes[name].played, media_type="audio/flac", headers={"cache-control": "private"})


@router.get("/works/{work_id}/stems.zip")
def stems_zip(work_id: str, desk: DeskOf) -> Response:
    """Give all files of a result as one archive."""
    song, work = desk.finished(work_id)
    target = work.folder / f"send-{secrets.token_hex(6)}.zip"
    name = _download_name(song, work)
    try:
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for lane in work.lanes.values():
                if lane.file is not None:
                    archive.write(lane.file, f"{name}/{safe_name(lane.name)}{lane.file.suffix}")
    except OSError as error:
        target.unlink(missing_ok=True)
        raise UnknownNameError("this result is not here any more; drop the song again") from error
    return _sent(target, f"{name}.zip", "application/zip")


@router.get("/works/{work_id}/mix.wav")
def mix_wav(
    work_id: str, desk: DeskOf, strips: str = "", start_s: float | None = None, end_s: float | None = None
) -> Response:
    """Give a mix: `strips` is `name:level_db:pan`, comma-separated."""
    song, work = desk.finished(work_id)
    chosen: dict[Path, Strip] = {}
    for part in filter(None, strips[:4000].split(",")):
        path, strip = _strip(part, song, work)
        chosen[path] = strip
    target = work.folder / f"send-{secrets.token_hex(6)}.wav"
    span = None if start_s is None or end_s is None else (start_s, end_s)
    if span is not None and not 0 <= span[0] < span[1] < 1e6:
        raise ConfigError(f"{span[0]:g} to {span[1]:g} s is no part of a song; choose 0 <= start < end")
    mix(chosen, target, span)
    return _sent(target, f"{_download_name(song, work)} mix.wav", "audio/wav")


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
    return song.path, Strip(max(-120.0, level_db + 20 * math.log10(work.gain)), pan)


def _sent(path: Path, name: str, media_type: str) -> Response:
    """Send a file that is made for this answer alone, and remove it."""
    task = BackgroundTask(path.unlink, missing_ok=True)
    return FileResponse(path, media_type=media_type, filename=name, background=task)


def _download_name(song: Song, work: Work) -> str:
    return safe_name(f"{Path(song.name).stem} - {work.choice.label}", 150)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii")
    except OSError as error:
        raise InputError("this result is not here any more; drop the song again") from error
