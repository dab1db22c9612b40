"""Uploads that are meant to do harm, against the studio with its decoders in processes of their own."""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from polyres.audio import apart
from polyres.studio.songs import StudioOptions
from tests.studio.studios import QuickEngine, song, studio
from tests.studio.test_api import detail

HANGING = [sys.executable, "-S", "-c", "import time; time.sleep(60)"]


@pytest.fixture(autouse=True)
def decode_apart(monkeypatch: pytest.MonkeyPatch, decode_here: None) -> None:
    monkeypatch.setattr("polyres.studio.songs.decode_apart", apart.decode_apart)


def test_a_song_is_decoded_in_a_process_of_its_own_and_a_playlist_refused(tmp_path: Path) -> None:
    secret = song(tmp_path / "secret.wav", 0.2)
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret.as_uri()}\n"
    with studio() as http:
        for name in ("a.m3u8", "a.wav"):
            refused = http.post("/api/songs", params={"name": name}, content=playlist.encode())
            assert detail(refused, 422) == (
                f"{name} is an M3U or HLS playlist, which points to other files; give the sound itself"
            )
        assert http.post("/api/songs", params={"name": "b.wav"}, content=secret.read_bytes()).status_code == 201
        assert len(list(http.app.state.queue.folder.iterdir())) == 1  # type: ignore[attr-defined]


def test_decoders_that_hang_are_killed_and_others_are_served_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apart, "_COMMAND", HANGING)
    content = song(tmp_path / "a.wav", 0.1).read_bytes()
    # Starlette has 40 threads for all requests together.
    options = StudioOptions(max_decode_s=0.3, max_decoders=12, max_waiting=50, max_uploads=48)
    running: list[int] = [0]

    def counted(source: Path, target: Path, max_minutes: float, room: apart.Room, max_s: float) -> list[str]:
        running.append(http.app.state.decoders.statistics().borrowed_tokens)  # type: ignore[attr-defined]
        return apart.decode_apart(source, target, max_minutes, room, max_s)

    monkeypatch.setattr("polyres.studio.songs.decode_apart", counted)
    with studio(QuickEngine(), options) as http, ThreadPoolExecutor(48) as pool:
        sent = [pool.submit(http.post, "/api/songs", params={"name": "a.wav"}, content=content) for _ in range(48)]
        waits_s = []
        while not all(one.done() for one in sent):
            began_s = time.monotonic()
            assert http.get("/api/songs").json() == []
            waits_s.append(time.monotonic() - began_s)
            time.sleep(0.05)
        assert max(waits_s) < 5.0
        assert max(running) == 12
        for one in sent:
            assert detail(one.result(), 422) == (
                "a.wav cannot be read as audio (took longer than 0.3 s); convert it to wav or flac"
            )
        queue = http.app.state.queue  # type: ignore[attr-defined]
        assert list(queue.folder.iterdir()) == []
        assert queue._room.promised_bytes == 0


def test_more_uploads_than_may_wait_are_turned_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart, "_COMMAND", HANGING)
    content = song(tmp_path / "a.wav", 0.1).read_bytes()
    options = StudioOptions(max_decode_s=1.5, max_decoders=1, max_waiting=1)
    with studio(QuickEngine(), options) as http, ThreadPoolExecutor(2) as pool:
        sent = [pool.submit(http.post, "/api/songs", content=content) for _ in range(2)]
        limit_s = time.monotonic() + 20
        while http.app.state.decoders.statistics().tasks_waiting < 1:  # type: ignore[attr-defined]
            assert time.monotonic() < limit_s
            time.sleep(0.01)
        refused = http.post("/api/songs", content=content)
        assert detail(refused, 503) == "too many songs arrive at once; try again in a minute"
        assert [one.result().status_code for one in sent] == [422, 422]
