"""From a dropped song to stems, mixes and archives, and everything that may go wrong on the way."""

from __future__ import annotations

import io
import time
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

import numpy as np
import pytest
import soundfile
from fastapi.testclient import TestClient

from polyres.studio.engines import Choice, Made, Progress
from polyres.studio.jobs import JobQueue
from polyres.studio.songs import StudioOptions
from tests.studio.studios import RATE_HZ, STEMS, QuickEngine, song, studio


def queue_of(http: TestClient) -> JobQueue:
    queue: JobQueue = http.app.state.queue  # type: ignore[attr-defined]
    return queue


def drop(http: TestClient, path: Path, name: str = "song.wav") -> str:
    answer = http.post("/api/songs", params={"name": name}, content=path.read_bytes())
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


def ask(http: TestClient, song_id: str, choice: str = "separate:sides") -> str:
    answer = http.post(f"/api/songs/{song_id}/works", json={"choice": choice})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def told(http: TestClient, work_id: str) -> dict[str, Any] | None:
    works = [work for one in http.get("/api/songs").json() for work in one["works"]]
    return next((work for work in works if work["id"] == work_id), None)


def done(http: TestClient, work_id: str) -> dict[str, Any]:
    for _ in range(2000):
        work = told(http, work_id)
        if work is None or work["state"] not in ("queued", "working"):
            break
        time.sleep(0.01)
    assert work is not None
    return work


def detail(answer: Any, status: int) -> str:
    assert answer.status_code == status, answer.text
    text = str(answer.json()["detail"])
    assert text
    assert "\n" not in text
    return text


def test_from_a_song_to_its_stems(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav")
    with studio() as http:
        work_id = ask(http, drop(http, path, "../../my: song.wav"))
        work = done(http, work_id)
        assert (work["state"], work["lanes"], work["error"]) == ("done", [*STEMS, "original"], "")
        assert work["warnings"] == ["my_ song.wav: a warning"]
        assert work["share"] == 1
        views = http.get(f"/api/works/{work_id}/views").json()
        assert set(views) == {*STEMS, "original"}
        assert abs(views["low"]["peak"] - 0.3) < 0.01
        truth, _ = soundfile.read(path, dtype="float64")
        heard, rate_hz = soundfile.read(io.BytesIO(http.get(f"/api/works/{work_id}/audio/low").content))
        assert rate_hz == RATE_HZ
        assert np.abs(heard - truth * [1, 0]).max() <= 2**-15
        answer = http.get(f"/api/works/{work_id}/stems.zip")
        assert "filename" in answer.headers["content-disposition"]
        archive = zipfile.ZipFile(io.BytesIO(answer.content))
        assert archive.namelist() == [f"my_ song - sides/{name}.wav" for name in STEMS]
        stem, _ = soundfile.read(io.BytesIO(archive.read(archive.namelist()[1])))
        assert np.abs(stem - truth * [0, 1]).max() <= 2**-22
        assert [one.name for one in queue_of(http).finished(work_id)[1].folder.glob("send-*")] == []


def test_a_mix_is_the_sum_at_the_chosen_levels_and_places(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav")
    truth, _ = soundfile.read(path)
    with studio() as http:
        work_id = ask(http, drop(http, path))
        done(http, work_id)
        url = f"/api/works/{work_id}/mix.wav"
        mixed, _ = soundfile.read(io.BytesIO(http.get(url, params={"strips": "low:0:0,high:0:0"}).content))
        assert np.abs(mixed - truth).max() < 1e-6
        query = {"strips": "low:-6.0206:0,high:0:-1", "start_s": 0.1, "end_s": 0.3}
        mixed, _ = soundfile.read(io.BytesIO(http.get(url, params=query).content))
        part = truth[4410:13230]
        assert mixed.shape == part.shape
        assert np.abs(mixed[:, 0] - (0.5 * part[:, 0] + part[:, 1])).max() < 1e-5
        assert np.abs(mixed[:, 1]).max() < 1e-6
        assert "switch a stem on" in detail(http.get(url), 422)
        assert "no 'x' in this result" in detail(http.get(url, params={"strips": "x:0:0"}), 404)
        assert "is no strip" in detail(http.get(url, params={"strips": "low:loud"}), 422)
        assert "choose -120 to 12" in detail(http.get(url, params={"strips": "low:nan:0"}), 422)
        assert "choose -1 (left)" in detail(http.get(url, params={"strips": "low:0:7"}), 422)
        wrong = {"strips": "low:0:0", "start_s": 3, "end_s": 2}
        assert "no part of a song" in detail(http.get(url, params=wrong), 422)
        wrong = {"strips": "low:0:0", "start_s": 3, "end_s": 4}
        assert "holds no samples" in detail(http.get(url, params=wrong), 422)


@pytest.mark.parametrize("rate_hz", [4000, 192_000])
def test_the_original_goes_into_a_mix_at_its_own_rate_as_loud_as_the_stems(tmp_path: Path, rate_hz: int) -> None:
    class HalfEngine(QuickEngine):
        def run(self, choice: Choice, song: Path, folder: Path, progress: Progress) -> Made:
            return replace(super().run(choice, song, folder, progress), gain=0.5)

    path = song(tmp_path / "a.wav", rate_hz=rate_hz)
    truth, _ = soundfile.read(path)
    with studio(HalfEngine()) as http:
        work_id = ask(http, drop(http, path))
        assert done(http, work_id)["gain"] == 0.5
        answer = http.get(f"/api/works/{work_id}/mix.wav", params={"strips": "low:0:0,original:-6.0206:0"})
        mixed, found_hz = soundfile.read(io.BytesIO(answer.content))
        assert found_hz == rate_hz
        assert np.abs(mixed - truth * [1.25, 0.25]).max() < 1e-5


def test_reconstruction_gives_versions_and_the_original_once(tmp_path: Path) -> None:
    with studio() as http:
        work_id = ask(http, drop(http, song(tmp_path / "a.wav")), "reconstruct:echo")
        assert done(http, work_id)["lanes"] == ["original", "codec", "difference"]


def test_two_models_on_one_song_and_no_work_twice(tmp_path: Path) -> None:
    engine = QuickEngine()
    with studio(engine) as http:
        song_id = drop(http, song(tmp_path / "a.wav"))
        first, second = ask(http, song_id), ask(http, song_id, "separate:halves")
        done(http, second)
        assert ask(http, song_id) == first != second
        assert engine.runs == 2


def test_jobs_wait_in_line_and_can_be_cancelled(tmp_path: Path) -> None:
    engine = QuickEngine()
    engine.go_on.clear()
    with studio(engine, StudioOptions(max_waiting=4)) as http:
        song_id = drop(http, song(tmp_path / "a.wav"))
        running, waiting = ask(http, song_id), ask(http, song_id, "separate:halves")
        assert engine.started.wait(10)
        assert "2 songs of yours are waiting" in detail(
            http.post(f"/api/songs/{song_id}/works", json={"choice": "reconstruct:echo"}), 503
        )
        work = told(http, waiting)
        assert work is not None
        assert (work["state"], work["ahead"]) == ("queued", 1)
        assert "working, not done" in detail(http.get(f"/api/works/{running}/views"), 422)
        assert http.delete(f"/api/works/{waiting}").status_code == 204
        assert told(http, waiting) is None
        assert http.delete(f"/api/works/{running}").status_code == 204
        for _ in range(1000):
            if told(http, running) is None:
                break
            time.sleep(0.01)
        assert told(http, running) is None
        assert not engine.seen[0].exists()
        assert engine.runs == 1
        engine.go_on.set()
        assert done(http, ask(http, song_id))["state"] == "done"


def test_failures_are_one_clear_line(tmp_path: Path) -> None:
    with studio() as http:
        song_id = drop(http, song(tmp_path / "a.wav"), "tune.wav")
        work = done(http, ask(http, song_id, "separate:broken"))
        assert (work["state"], work["error"]) == ("failed", "tune.wav: is not music")
        work = done(http, ask(http, song_id, "separate:crash"))
        assert work["error"] == "something went wrong in the studio (RuntimeError); see its log"
        assert done(http, ask(http, song_id))["state"] == "done"  # the worker lives on
        wrong = http.post(f"/api/songs/{song_id}/works", json={"choice": "separate:/etc/passwd"})
        assert "choose one of separate:sides" in detail(wrong, 404)
        assert "extra" in detail(http.post(f"/api/songs/{song_id}/works", json={"choice": "x", "y": 1}), 422).lower()


@pytest.mark.parametrize(
    ("content", "name", "expected"),
    [(b"", "empty.wav", "empty.wav"), (b"not audio at all" * 99, "text.mp3", "text.mp3"), (b"RIFF", "", "_")],
)
def test_what_is_not_audio_is_refused_and_leaves_nothing(content: bytes, name: str, expected: str) -> None:
    with studio() as http:
        text = detail(http.post("/api/songs", params={"name": name}, content=content), 422)
        assert expected in text
        assert str(queue_of(http).folder) not in text
        assert list(queue_of(http).folder.iterdir()) == []


def test_limits_of_size_length_and_disk(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav")
    limits = {
        "larger than 0.01 MiB": StudioOptions(max_upload_bytes=10_486),
        "longer than 0.001 minutes": StudioOptions(max_minutes=0.001),
        "disk is full": StudioOptions(max_total_bytes=300_000),
    }
    for text, options in limits.items():
        with studio(options=options) as http:
            answers = [http.post("/api/songs", params={"name": "a.wav"}, content=path.read_bytes())]
            if "larger" in text:  # streamed, so that nothing is announced
                pieces = (path.read_bytes()[n : n + 4096] for n in range(0, 80_000, 4096))
                answers.append(http.post("/api/songs", params={"name": "a.wav"}, content=pieces))
            if "disk" in text:
                wish = http.post(f"/api/songs/{answers[0].json()['id']}/works", json={"choice": "separate:sides"})
                answers = [wish]
            for answer in answers:
                assert text in str(answer.json()["detail"])
                assert answer.status_code in (413, 422, 503)
            if "disk" not in text:
                assert list(queue_of(http).folder.iterdir()) == []


def test_nothing_outside_is_reached(tmp_path: Path) -> None:
    with studio() as http:
        work_id = ask(http, drop(http, song(tmp_path / "a.wav")))
        done(http, work_id)
        for path in (
            f"/api/works/{work_id}/audio/..%2f..%2fsong.wav",
            f"/api/works/{work_id}/audio/%2e%2e",
            "/api/works/..%2f..%2f/views",
            "/static/..%2f..%2fserver.py",
            "/static/%2e%2e/server.py",
        ):
            answer = http.get(path)
            assert answer.status_code == 404, path
            assert b"import" not in answer.content


def test_other_visitors_and_other_sites_see_nothing(tmp_path: Path) -> None:
    with studio() as http:
        song_id = drop(http, song(tmp_path / "a.wav"))
        other = {"x-studio-visitor": "another-0123456789abcdef"}
        assert http.get("/api/songs", headers=other).json() == []
        work_id = ask(http, song_id)
        done(http, work_id)
        asked = [("DELETE", f"songs/{song_id}"), ("POST", f"songs/{song_id}/works"), ("DELETE", f"works/{work_id}")]
        asked += [("GET", f"works/{work_id}/views"), ("GET", f"works/{work_id}/audio/low")]
        for method, what in asked:
            body = {"choice": "separate:halves"} if method == "POST" else None
            assert http.request(method, f"/api/{what}", headers=other, json=body).status_code == 404
        sound = http.get(f"/api/works/{work_id}/audio/low")
        assert (sound.status_code, sound.headers["cache-control"]) == (200, "private, no-store")
        assert http.get("/api/songs", headers={"x-studio-visitor": "short"}).status_code == 422
        foreign = http.delete(f"/api/songs/{song_id}", headers={"origin": "https://evil.example"})
        assert foreign.status_code == 403
        page = http.get("/")
        assert "script-src 'self'" in page.headers["content-security-policy"]
        assert "no-store" in http.get("/api/songs").headers["cache-control"]


def test_everything_is_removed_at_last(tmp_path: Path) -> None:
    path = song(tmp_path / "a.wav")
    with studio() as http:
        queue = queue_of(http)
        first = drop(http, path)
        work_id = ask(http, first)
        done(http, work_id)
        assert http.delete(f"/api/songs/{first}").status_code == 204
        assert list(queue.folder.iterdir()) == []
        assert "drop the song again" in detail(http.get(f"/api/works/{work_id}/views"), 404)
        assert "drop it again" in detail(http.delete(f"/api/songs/{first}"), 404)
        drop(http, path)
        folder = queue.folder
    assert not folder.exists()


def test_unused_songs_go_after_their_time(tmp_path: Path) -> None:
    with studio(options=StudioOptions(keep_hours=1)) as http:
        queue = queue_of(http)
        now = [0.0]
        queue._clock = lambda: now[0]
        drop(http, song(tmp_path / "a.wav"))
        now[0] = 3599.0
        assert queue.sweep() == 0
        http.get("/api/songs")  # seen again
        now[0] = 3599.0 + 3601
        assert queue.sweep() == 1
        assert list(queue.folder.iterdir()) == []


def test_it_works_below_a_path_whether_the_proxy_strips_it_or_not() -> None:
    with studio(options=StudioOptions(root_path="/studio")) as http:
        assert http.get("/studio", follow_redirects=False).headers["location"] == "/studio/"
        assert http.get("/studio/api/studio").json() == http.get("/api/studio").json()
        assert b'src="static/' in http.get("/studio/").content


@pytest.mark.parametrize(
    "visitor", ["", "short", "v" * 65, "visitor-0123456789abcdé", "visitor 0123456789abcdef", "visitor-0123456789\x7f"]
)
def test_a_strange_visitor_is_turned_away_and_others_notice_nothing(tmp_path: Path, visitor: str) -> None:
    content = song(tmp_path / "a.wav", 0.1).read_bytes()
    with studio() as http:
        headers = {"x-studio-visitor": visitor.encode("latin-1")}
        assert http.post("/api/songs", content=content, headers=headers).status_code == 422
        assert http.get("/api/songs", headers=headers).status_code == 422
        assert http.get("/api/songs").json() == []


@pytest.mark.parametrize("name", ["\ud800.wav", "a\x00b.wav", "../../x.wav", "x" * 10_000, "\n\r\t", "", "con.wav"])
def test_a_strange_name_breaks_nothing(tmp_path: Path, name: str) -> None:
    content = song(tmp_path / "a.wav", 0.1).read_bytes()
    with studio() as http:
        query = quote_from_bytes(name.encode("utf-8", "surrogatepass"))
        assert http.post(f"/api/songs?name={query}", content=content).status_code in (201, 422)
        assert http.get("/api/songs").status_code == 200
        assert all(path.is_relative_to(queue_of(http).folder) for path in queue_of(http).folder.rglob("*"))
