"""One job at a time in the order they came, limits of room, and nothing left behind, whatever is dropped."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
import tracemalloc
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.studio.engines import Choice, Made, PolyresEngine, Progress
from polyres.studio.jobs import JobQueue
from polyres.studio.server import create_app
from polyres.studio.songs import FullError, StudioOptions, Work, size_bytes
from tests.studio.studios import QuickEngine, song, studio, tiny_weights
from tests.studio.test_api import ask, detail, done, drop

VISITOR = "visitor-0123456789abcdef"


@pytest.fixture
def engine() -> QuickEngine:
    return QuickEngine()


@pytest.fixture
def queue(engine: QuickEngine) -> Iterator[JobQueue]:
    opened = JobQueue(engine, StudioOptions())
    yield opened
    engine.go_on.set()
    opened.close()
    assert not opened.folder.exists()


def put(queue: JobQueue, path: Path, name: str = "a.wav") -> str:
    received = queue.room_for(1 << 20)
    shutil.copyfile(path, received)
    return queue.add_song(received, name, VISITOR).id


def over(work: Work) -> Work:
    for _ in range(3000):
        if not work.active:
            return work
        time.sleep(0.01)
    raise TimeoutError(work.state)


# -- the queue --------------------------------------------------------------------------------------------------------


def test_jobs_run_one_at_a_time_in_the_order_they_came(tmp_path: Path) -> None:
    running, most, order = 0, 0, []
    lock = threading.Lock()

    class CountingEngine(QuickEngine):
        def run(self, choice: Choice, song: Path, folder: Path, progress: Progress) -> Made:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
                order.append(choice.label)
            made = super().run(choice, song, folder, progress)
            with lock:
                running -= 1
            return made

    engine = CountingEngine()
    engine.go_on.clear()
    queue = JobQueue(engine, StudioOptions())
    try:
        songs = [put(queue, song(tmp_path / "a.wav", 0.1)) for _ in range(2)]
        wanted = [(songs[0], "sides"), (songs[1], "halves"), (songs[1], "sides"), (songs[0], "halves")]
        works = [queue.ask(song_id, f"separate:{label}") for song_id, label in wanted]
        assert engine.started.wait(10)
        assert [queue.ahead(work) for work in works] == [0, 1, 2, 3]
        queue.cancel(works[1].id)
        assert [queue.ahead(work) for work in works[2:]] == [1, 2]
        engine.go_on.set()
        assert [over(work).state for work in works] == ["done", "cancelled", "done", "done"]
        assert order == ["sides", "sides", "halves"]
        assert most == 1
    finally:
        engine.go_on.set()
        queue.close()


def test_progress_goes_up_and_tells_the_time_left(queue: JobQueue, engine: QuickEngine, tmp_path: Path) -> None:
    now = [100.0]
    queue._clock = lambda: now[0]
    engine.go_on.clear()
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    work = queue.ask(song_id, "separate:sides")
    assert engine.started.wait(10)
    while work.share < 0.45:  # the half of the engine's nine tenths
        time.sleep(0.01)
    now[0] = 109.0
    job_facts = queue.told(queue.song(song_id))["works"][0]
    assert (job_facts["state"], job_facts["share"], job_facts["seconds"]) == ("working", 0.45, 9.0)
    assert job_facts["left_s"] == 11.0
    engine.go_on.set()
    assert over(work).share == 1
    assert queue.told(queue.song(song_id))["works"][0]["left_s"] is None


def test_what_failed_can_be_tried_again(queue: JobQueue, engine: QuickEngine, tmp_path: Path) -> None:
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    first = over(queue.ask(song_id, "separate:broken"))
    assert (first.state, first.error) == ("failed", "a.wav: is not music")
    assert not first.folder.exists()
    second = over(queue.ask(song_id, "separate:broken"))
    assert [work["id"] for work in queue.told(queue.song(song_id))["works"]] == [second.id] != [first.id]
    assert engine.runs == 2


def test_a_real_separation_that_is_cancelled_in_the_middle_leaves_nothing(tmp_path: Path) -> None:
    engine = PolyresEngine([str(tiny_weights(tmp_path / "tiny.safetensors"))], [], "cpu")
    queue = JobQueue(engine, StudioOptions())
    try:
        song_id = put(queue, song(tmp_path / "a.wav", 20))
        work = queue.ask(song_id, "separate:tiny")
        while work.share < 0.1 and work.active:
            time.sleep(0.001)
        assert (work.state, any(work.folder.rglob("*"))) == ("working", True)
        queue.cancel(work.id)
        assert over(work).state == "cancelled"
        assert work.share < 0.9
        assert [path.name for path in (queue.folder / song_id).rglob("*")] == ["song.wav"]
        # The model still works for the next one.
        short = queue.ask(put(queue, song(tmp_path / "b.wav", 0.2)), "separate:tiny")
        assert over(short).state == "done"
    finally:
        queue.close()


def test_a_song_that_is_removed_while_it_is_worked_on_goes_with_all_its_files(
    queue: JobQueue, engine: QuickEngine, tmp_path: Path
) -> None:
    engine.go_on.clear()
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    work = queue.ask(song_id, "separate:sides")
    assert engine.started.wait(10)
    queue.remove_song(song_id)
    over(work)
    for _ in range(1000):
        if not (queue.folder / song_id).exists():
            break
        time.sleep(0.01)
    assert list(queue.folder.iterdir()) == []
    with pytest.raises(UnknownNameError, match="drop it again"):
        queue.song(song_id)
    with pytest.raises(UnknownNameError, match="drop the song again"):
        queue.work(work.id)


def test_only_finished_jobs_have_results(queue: JobQueue, engine: QuickEngine, tmp_path: Path) -> None:
    engine.go_on.clear()
    work = queue.ask(put(queue, song(tmp_path / "a.wav", 0.1)), "separate:sides")
    with pytest.raises(ConfigError, match="nothing to hear yet"):
        queue.finished(work.id)
    with pytest.raises(UnknownNameError, match="no 'separate:none' here; choose one of separate:sides, "):
        queue.ask(next(iter(queue._songs)), "separate:none")


# -- room -------------------------------------------------------------------------------------------------------------


def test_room_is_measured_while_files_come_and_go(queue: JobQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(20):
        (queue.folder / f"{number}").write_bytes(bytes(100))
    walk = os.walk

    def removing(folder: Path) -> Iterator[Any]:
        for entry in walk(folder):
            yield entry
            (queue.folder / "3").unlink(missing_ok=True)

    assert size_bytes(queue.folder, ()) == 2000
    monkeypatch.setattr(
        os, "walk", lambda folder: ((parent, names, [*files, "gone"]) for parent, names, files in removing(folder))
    )
    assert size_bytes(queue.folder, ()) == 2000


def test_a_file_that_is_announced_larger_than_the_room_is_not_received(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav", 0.5)
    # Room for one song as it comes and as it is decoded to 32 bits.
    with studio(options=StudioOptions(max_total_bytes=3 * path.stat().st_size + 100)) as http:
        queue = http.app.state.queue  # type: ignore[attr-defined]
        drop(http, path)
        assert size_bytes(queue.folder, ()) < 2.1 * path.stat().st_size
        refused = http.post("/api/songs", params={"name": "b.wav"}, content=path.read_bytes())
        assert "the studio's disk is full; remove a song" in detail(refused, 503)
        assert len(list(queue.folder.iterdir())) == 1


def test_a_disk_that_fills_up_while_a_song_comes_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class FullFile:
        def __enter__(self) -> FullFile:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def write(self, _: bytes) -> None:
            raise OSError(28, "No space left on device")

    opened = Path.open
    path = song(tmp_path / "a.wav", 0.1)
    with studio() as http:
        content = path.read_bytes()
        monkeypatch.setattr(Path, "open", lambda self, *a: FullFile() if self.name == "whole" else opened(self, *a))
        answer = http.post("/api/songs", params={"name": "a.wav"}, content=content)
        assert "could not keep this file (No space left on device)" in detail(answer, 503)
        monkeypatch.undo()
        assert list(http.app.state.queue.folder.iterdir()) == []  # type: ignore[attr-defined]


def test_a_large_song_is_never_whole_in_memory(tmp_path: Path) -> None:
    size = 24 << 20
    path = tmp_path / "a.wav"
    soundfile.write(path, np.zeros((size // 4, 2), np.int16), 44_100)
    app = create_app(QuickEngine(), StudioOptions(max_minutes=3))

    async def upload() -> int:
        with path.open("rb") as file:

            async def receive() -> dict[str, Any]:
                piece = file.read(1 << 16)
                return {"type": "http.request", "body": piece, "more_body": bool(piece)}

            return await post_song(app, [], receive)

    tracemalloc.start()
    status = asyncio.run(upload())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    app.state.queue.close()
    assert status == 201
    assert peak < size / 4


# -- what is dropped --------------------------------------------------------------------------------------------------

NAMES = st.one_of(
    st.text(max_size=300),
    st.sampled_from(
        ["../../etc/passwd", "..\\..\\x.wav", "a\"b'.wav", "a\r\nset-cookie: x.wav", "<b>.mp3", "con.wav", "/", "."]
    ),
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=NAMES.filter(lambda name: max(name, default=" ") < "\ud800" or min(name) > "\udfff"))
def test_whatever_a_song_is_called_it_lies_in_its_own_folder(queue: JobQueue, tmp_path: Path, name: str) -> None:
    path = tmp_path / "a.wav"
    if not path.exists():
        song(path, 0.05)
    kept = queue.song(put(queue, path, name))
    assert kept.path.parent.parent == queue.folder
    assert kept.path.name.startswith("song")
    assert "/" not in kept.name
    assert "\\" not in kept.name
    assert kept.name.isprintable() or kept.name
    assert len(kept.name.encode()) <= 120
    queue.remove_song(kept.id)
    assert list(queue.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["a\"b'.wav", "歌.wav", "a;b.wav", "a\r\nb.wav", "../a.wav", "100 %.wav"])
def test_results_of_odd_names_can_be_taken_away(tmp_path: Path, name: str) -> None:
    with studio() as http:
        work_id = ask(http, drop(http, song(tmp_path / "a.wav", 0.1), name))
        done(http, work_id)
        for what in ("stems.zip", "mix.wav?strips=low:0:0"):
            answer = http.get(f"/api/works/{work_id}/{what}")
            assert answer.status_code == 200
            assert "set-cookie" not in answer.headers
            assert answer.headers["content-disposition"].startswith("attachment")


def test_songs_that_are_cut_or_broken_say_so(tmp_path: Path) -> None:
    whole = song(tmp_path / "a.wav", 2)
    cut = tmp_path / "cut.wav"
    cut.write_bytes(whole.read_bytes()[:100_000])
    broken = tmp_path / "nan.wav"
    soundfile.write(broken, np.full((9000, 2), np.nan, np.float32), 44_100, subtype="FLOAT")
    engine = PolyresEngine([str(tiny_weights(tmp_path / "tiny.safetensors"))], [], "cpu")
    with studio(engine) as http:
        work = done(http, ask(http, drop(http, cut, "cut.wav"), "separate:tiny"))
        assert work["state"] == "done"
        assert work["warnings"] == ["cut.wav ends early: 0.57 s of 2.00 s could be read"]
        assert work["length_samples"] == 24_989
        refused = http.post("/api/songs", params={"name": "nan.wav"}, content=broken.read_bytes())
        assert detail(refused, 422).startswith("nan.wav holds a NaN sample at 0.000 s")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"ID3" + bytes(500), b"\x00" * 9999, b"fLaC" + bytes(99)])
def test_what_is_no_song_is_refused_and_removed(queue: JobQueue, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=r"x\.mp3"):
        put(queue, tmp_path / "x", "x.mp3")
    assert list(queue.folder.iterdir()) == []


def test_rooms_that_are_promised_count() -> None:
    queue = JobQueue(QuickEngine(), StudioOptions(max_total_bytes=1000, max_upload_bytes=300))
    first, *_ = [queue.room_for(300, VISITOR) for _ in range(3)]
    with pytest.raises(FullError, match="disk is full"):
        queue.room_for(101)
    first.write_bytes(bytes(200))  # part of what was promised, so it does not count twice
    queue.give_back(queue.room_for(100, VISITOR))
    queue.room_for(1, VISITOR)
    with pytest.raises(FullError, match="4 songs of yours are coming in already"):
        queue.room_for(1, VISITOR)
    queue.room_for(1, "another-0123456789abcdef")
    queue.give_back(first)
    queue.room_for(300, VISITOR)
    queue.close()


def test_one_visitor_takes_half_of_the_queue_at_most(tmp_path: Path, engine: QuickEngine) -> None:
    engine.go_on.clear()
    queue = JobQueue(engine, StudioOptions(max_waiting=4))
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    for label in ("sides", "halves"):
        queue.ask(song_id, f"separate:{label}")
    with pytest.raises(FullError, match="2 songs of yours are waiting already"):
        queue.ask(song_id, "separate:broken")
    received = queue.room_for(1 << 20)
    shutil.copyfile(tmp_path / "a.wav", received)
    queue.ask(queue.add_song(received, "b.wav", "another-0123456789abcdef").id, "separate:sides")
    queue.close()


async def post_song(app: Any, headers: list[tuple[bytes, bytes]], receive: Any) -> int:
    answers: list[Any] = []
    headers = [(b"x-studio-visitor", VISITOR.encode()), (b"host", b"localhost"), *headers]
    scope = {"type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http"}
    scope |= {"path": "/api/songs", "raw_path": b"/api/songs", "query_string": b"name=a.wav", "headers": headers}
    scope |= {"client": ("127.0.0.1", 1), "server": ("testserver", 80), "root_path": ""}

    async def send(message: Any) -> None:
        answers.append(message)

    await app(scope, receive, send)
    return int(answers[0]["status"])


@pytest.mark.parametrize("trickle", [False, True])
def test_an_upload_that_stands_still_or_trickles_gives_its_room_back(
    trickle: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyres.studio.api._SLOWEST_BYTES_PER_S", 1 << 20)
    app = create_app(QuickEngine(), StudioOptions(upload_pause_s=1.0))
    calls = iter(range(200))

    async def receive() -> dict[str, Any]:
        next(calls)  # at 20 ms each, far more than the pause
        await asyncio.sleep(0.02 if trickle else 60)
        return {"type": "http.request", "body": b"x", "more_body": True}

    length = str(app.state.queue.options.max_upload_bytes).encode()
    began_s = time.monotonic()
    assert asyncio.run(post_song(app, [(b"content-length", length)], receive)) == 408
    assert time.monotonic() - began_s < 20
    assert app.state.queue._room.promised_bytes == 0
    assert list(app.state.queue.folder.iterdir()) == []
    app.state.queue.close()


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ([(b"content-length", b"1")], 413),  # more than was said
        ([(b"content-length", b"1"), (b"transfer-encoding", b"chunked")], 422),
        ([(b"transfer-encoding", b"chunked")], 422),
        ([], 422),
        ([(b"content-length", b"\xb2")], 413),
        ([(b"content-length", b"9" * 5000)], 413),
    ],
    ids=str,
)
def test_what_is_said_of_a_size_does_not_pass_the_room(headers: list[tuple[bytes, bytes]], status: int) -> None:
    app = create_app(QuickEngine(), StudioOptions(max_upload_bytes=1000))
    promised: list[int] = []
    pieces = [b"x" * 100] * 4

    async def receive() -> dict[str, Any]:
        promised.append(app.state.queue._room.promised_bytes)
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    assert asyncio.run(post_song(app, headers, receive)) == status
    assert status == 413 or promised == [1000] * 4
    assert app.state.queue._room.promised_bytes == 0
    app.state.queue.close()


def test_downloads_need_room_and_give_it_back(tmp_path: Path) -> None:
    with studio() as http:
        queue = http.app.state.queue  # type: ignore[attr-defined]
        work_id = ask(http, drop(http, song(tmp_path / "a.wav", 0.1)))
        done(http, work_id)
        before = sorted(queue.folder.rglob("*"))
        room = queue._room
        room._most_bytes = size_bytes(queue.folder, ())
        for what in ("stems.zip", "mix.wav?strips=low:0:0"):
            assert "disk is full" in detail(http.get(f"/api/works/{work_id}/{what}"), 503)
        room._most_bytes += (1 << 20) + 200_000
        for what in ("stems.zip", "mix.wav?strips=low:0:0"):
            assert http.get(f"/api/works/{work_id}/{what}").status_code == 200
        assert http.get(f"/api/works/{work_id}/mix.wav").status_code == 422
        assert room.promised_bytes == 0
        assert sorted(queue.folder.rglob("*")) == before


def test_many_uploads_at_once_do_not_pass_the_limit_together(tmp_path: Path) -> None:
    content = song(tmp_path / "a.wav", 0.2).read_bytes()
    with studio(options=StudioOptions(max_total_bytes=5 * len(content))) as http:
        headers = {"content-length": str(len(content))}
        with ThreadPoolExecutor(8) as pool:
            sent = [pool.submit(http.post, "/api/songs", content=content, headers=headers) for _ in range(8)]
        codes = sorted(one.result().status_code for one in sent)
        queue = http.app.state.queue  # type: ignore[attr-defined]
        assert 503 in codes
        assert set(codes) <= {201, 503}
        assert size_bytes(queue.folder, ()) <= 5 * len(content)
        assert queue._room.promised_bytes == 0
        # Where all were under way at the same moment, each may have found the room promised to the others.
        assert 201 in codes or http.post("/api/songs", content=content, headers=headers).status_code == 201


# -- leaving ----------------------------------------------------------------------------------------------------------


def test_a_studio_that_ends_stops_its_job_and_removes_everything(tmp_path: Path) -> None:
    engine = QuickEngine()
    engine.go_on.clear()
    queue = JobQueue(engine, StudioOptions())
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    works = [queue.ask(song_id, "separate:sides"), queue.ask(song_id, "separate:halves")]
    assert engine.started.wait(10)
    queue.close()
    assert not queue.folder.exists()
    assert engine.runs == 1
    assert works[0].state == "cancelled"
