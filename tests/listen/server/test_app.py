"""A server that starts, serves, refuses what it must, and ends."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
import soundfile
import sqlalchemy as sa

from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.listen.design.files import STUDY_NAME, load_study
from polyres.listen.server.app import create_app, run
from polyres.listen.server.state import ServerOptions, StudyAudio
from tests.full_disk import at_most
from tests.listen.served import Client, serving, state_of, write_page, write_study, write_tone


def shelf(folder: Path) -> StudyAudio:
    return StudyAudio(load_study(folder), folder, folder / "copies")


def test_parts_of_a_sound_can_be_asked_for(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.2, pages=1)
    with serving(folder) as http:
        client = Client(http).join()
        client.visit()
        whole = client.call("GET", "/api/audio/0/1")
        assert whole.headers["accept-ranges"] == "bytes"
        part = client.call("GET", "/api/audio/0/1", headers={"range": "bytes=100-199"})
        assert (part.status_code, part.content) == (206, whole.content[100:200])
        end = client.call("GET", "/api/audio/0/1", headers={"range": "bytes=-10"})
        assert end.content == whole.content[-10:]
        beyond = client.call("GET", "/api/audio/0/1", headers={"range": "bytes=99999999-"})
        assert beyond.status_code == 416
        assert http.get("/api/health").json() == {"status": "ok"}


@pytest.mark.parametrize("strips", [True, False])
def test_a_proxy_path_works_whether_it_is_stripped_or_not(tmp_path: Path, strips: bool) -> None:
    options = {"root_path": "/lab/listen", "public_url": "https://lab.example/lab/listen/"}
    prefix = "" if strips else "/lab/listen"
    with serving(write_study(tmp_path / "study", seconds=0.05, pages=1), options) as http:
        assert http.get(f"{prefix}/").text.startswith("<!doctype html>")
        assert http.get(f"{prefix}/static/app.js").status_code == 200
        made = http.post(f"{prefix}/api/join", json={}).json()
        assert made["link"] == f"https://lab.example/lab/listen/#{made['token']}"
        assert state_of(http).admin_link().startswith("https://lab.example/lab/listen/admin#")
        bare = http.get("/lab/listen", follow_redirects=False)
        assert bare.headers["location"] == "/lab/listen/"


def test_sounds_that_would_tell_by_their_size_are_sent_as_copies(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.1, pages=1)
    study = json.loads((folder / STUDY_NAME).read_text())
    audio = study["pages"][0]["audio"]
    samples, rate_hz = soundfile.read(folder / audio["c1"])
    soundfile.write(folder / "audio/p0-1.flac", samples, rate_hz, subtype="PCM_16")
    audio["c1"] = "audio/p0-1.flac"
    (folder / STUDY_NAME).write_text(json.dumps(study))
    sounds = shelf(folder)
    paths = [sounds.path("p0", name) for name in ("c0", "c1", "c2", "reference")]
    assert len({path.stat().st_size for path in paths}) == 1
    assert {path.suffix for path in paths} == {".wav"}
    copied, _ = soundfile.read(paths[1])
    assert (copied == samples).all()
    before = [path.stat().st_mtime_ns for path in paths]
    assert [shelf(folder).path("p0", "c1").stat().st_mtime_ns] == before[1:2]
    with pytest.raises(InputError, match="page 'p0' has no sound 'c9'"):
        sounds.path("p0", "c9")
    assert not list((folder / "copies").glob(".*"))


def test_sounds_that_do_not_fit_together_are_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.1, pages=1)
    odd = folder / "audio/p0-1.wav"
    write_tone(odd, 440, 0.1, rate_hz=48_000)
    with pytest.raises(InputError, match="has 48000 Hz, but the study 44100 Hz"):
        shelf(folder)
    write_tone(odd, 440, 0.2)
    with pytest.raises(InputError, match=r"sounds of page 'p0' differ: .* 4410 samples .* 8820"):
        shelf(folder)
    write_tone(odd, 440, 0.1, channels=1)
    with pytest.raises(InputError, match="in 2 channels"):
        shelf(folder)
    odd.write_text("no audio")
    with pytest.raises(InputError, match="cannot be read as audio"):
        shelf(folder)
    write_tone(odd, 440, 0)
    with pytest.raises(InputError, match=r"lasts 0.0 s; allowed are up to 120 s"):
        shelf(folder)
    outside = tmp_path / "outside.wav"
    write_tone(outside, 440, 0.1)
    odd.unlink()
    odd.symlink_to(outside)
    with pytest.raises(InputError, match="leads out of the study folder"):
        shelf(folder)


def test_copies_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.1, pages=1)
    samples, rate_hz = soundfile.read(folder / "audio/p0-1.wav")
    soundfile.write(folder / "audio/p0-1.wav", samples, rate_hz, subtype="PCM_24")
    (folder / "copies").write_text("in the way")
    with pytest.raises(OutputError, match=r"cannot be written .*copies|copies.* cannot be written"):
        shelf(folder)


def test_a_copy_that_finds_no_room_leaves_nothing(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.1, pages=1)
    samples, rate_hz = soundfile.read(folder / "audio/p0-1.wav")
    soundfile.write(folder / "audio/p0-1.wav", samples, rate_hz, subtype="PCM_24")
    for size in (0, 1000):
        with at_most(size), pytest.raises(OutputError, match=r"wav cannot be written \(File too large\); choose anoth"):
            shelf(folder)
        assert not list((folder / "copies").iterdir())
    shelf(folder)


def test_a_study_that_changed_after_its_first_listener_is_refused(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05)
    with serving(folder) as http:
        Client(http).join()
    write_study(folder, seconds=0.05, changes={"title": "Other words are welcome"})
    with serving(folder):
        pass
    write_study(folder, seconds=0.05, pages=3)
    with pytest.raises(ConfigError, match="have changed since its first listener"):
        create_app(folder)


def test_impossible_options_are_refused() -> None:
    with pytest.raises(ConfigError, match="port 70000 does not exist"):
        ServerOptions(port=70_000)
    for path in ("listen", "/listen/"):
        with pytest.raises(ConfigError, match="must begin with '/'"):
            ServerOptions(root_path=path)


def test_a_taken_port_is_named(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"cannot listen on 127.0.0.1 port {port}"):
            run(folder, ServerOptions(port=port))


def test_links_of_ipv6_hosts_have_brackets(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "study", seconds=0.05, pages=1)
    with serving(folder, {"host": "::1", "port": 80}) as http:
        assert state_of(http).base_url == "http://[::1]:80"


def test_a_failing_database_asks_the_page_to_try_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(write_study(tmp_path / "study", seconds=0.05, pages=1)) as http:
        client = Client(http).join()
        client.visit()

        def full(*_: object) -> None:
            raise sa.exc.OperationalError("INSERT", {}, Exception("disk is full"))

        monkeypatch.setattr(state_of(http).store, "save_ratings", full)
        answer = client.rate(trial=0, slot=0, value=5)
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")


def test_training_pages_come_first_and_are_marked(tmp_path: Path) -> None:
    folder = tmp_path / "study"
    training = [write_page(folder, "t0", 3, True, 0.05)]
    with serving(write_study(folder, seconds=0.05, changes={"training": training})) as http:
        client = Client(http).join()
        assert [trial["training"] for trial in client.visit()["trials"]] == [True, False, False]
        client.rate(trial=0, slot=0, value=5)
        assert state_of(http).store.ratings() == []
        assert len(state_of(http).store.ratings(training=True)) == 1
