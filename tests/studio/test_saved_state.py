"""What is still there when a studio starts again."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyres.core.errors import ConfigError, InputError
from polyres.studio.engines import Choice, Made, PolyresEngine, Progress
from polyres.studio.jobs import JobQueue
from polyres.studio.saved_state import MEMORY_FILE
from polyres.studio.songs import StudioOptions, failure_message
from tests.full_disk import at_most
from tests.studio.studios import QuickEngine, song, tiny_weights
from tests.studio.test_jobs import VISITOR, over, put


def opened(folder: Path, engine: QuickEngine | None = None, **options: float) -> JobQueue:
    return JobQueue(engine or QuickEngine(), StudioOptions(folder=folder, **options))  # type: ignore[arg-type]


def test_songs_results_and_waiting_jobs_survive_a_restart(tmp_path: Path) -> None:
    folder, engine = tmp_path / "studio", QuickEngine()
    queue = opened(folder, engine)
    song_id = put(queue, song(tmp_path / "a.wav", 0.2), "Lied 歌.wav")
    queue.song(song_id).warnings = ("it ends early",)
    finished = over(queue.ask(song_id, "separate:sides"))
    engine.go_on.clear()
    working = queue.ask(song_id, "separate:halves")
    assert engine.started.wait(10)
    waiting = queue.ask(song_id, "reconstruct:echo")
    before = queue.told(queue.song(song_id))
    queue.close()

    queue = opened(folder)
    (found,) = queue.songs(VISITOR)
    assert (found.id, found.name, found.warnings) == (song_id, "Lied 歌.wav", ("it ends early",))
    for work in (working, waiting):
        assert over(queue.work(work.id)[1]).state == "done"
    after = queue.told(found)
    assert after["works"][0] == before["works"][0]
    assert queue.finished(finished.id)[1].lanes["low"].file.is_file()  # type: ignore[union-attr]
    assert [work["state"] for work in after["works"]] == ["done"] * 3
    queue.close()


def test_another_studio_does_not_take_the_folder(tmp_path: Path) -> None:
    queue = opened(tmp_path / "studio")
    with pytest.raises(ConfigError, match=r"another studio uses .*studio; end it, or choose another --folder"):
        opened(tmp_path / "studio")
    queue.close()
    opened(tmp_path / "studio").close()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot use the folder .*file"):
        opened(tmp_path / "file")


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", ["thesis.txt", "songs.json", ".lock", ".polyres-ab", "a/b.wav", f"{'0a' * 12}/x.wav"])
def test_a_folder_of_somebody_else_is_refused_and_stays_as_it_is(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "music"
    (folder / name).parent.mkdir(parents=True)
    (folder / name).write_text('["mine"]')
    with pytest.raises(ConfigError, match=r"music holds files that are not of a studio; choose an empty"):
        opened(folder)
    assert tree(folder) == {name: b'["mine"]'}


def test_files_of_the_user_in_the_folder_of_a_studio_stay(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "studio", tmp_path / "elsewhere"
    queue = opened(folder)
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    queue.close()
    own = ("notes.txt", "takes/a.wav", "0123456789abcdef.wav", f"{song_id}/notes.txt", f"{'0A' * 12}/x", "0a" * 12)
    for name in own:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    elsewhere.mkdir()
    (elsewhere / "b.wav").write_text("mine")
    (folder / ("0b" * 12)).symlink_to(elsewhere)
    (folder / ("0c" * 12)).mkdir()
    opened(folder).close()
    assert {name: tree(folder).get(name) for name in own} == dict.fromkeys(own, b"mine")
    assert (elsewhere / "b.wav").is_file()
    assert not (folder / ("0c" * 12)).exists()
    (folder / ".polyres-studio").unlink()  # a copy without what is hidden
    opened(folder).close()


@pytest.mark.parametrize(
    "change",
    [
        lambda text: "",
        lambda text: text[:-40],
        lambda text: text.replace('"format":', '"form":'),
        lambda text: text.replace("song.wav", "../../secret.wav"),
        lambda text: text.replace('"state": "done"', '"state": "won"'),
        lambda text: "[" * 100_000,
    ],
)
def test_a_damaged_memory_is_kept_aside_with_all_files(tmp_path: Path, change) -> None:  # type: ignore[no-untyped-def]
    secret = song(tmp_path / "secret.wav", 0.1)
    folder = tmp_path / "studio"
    queue = opened(folder)
    over(queue.ask(put(queue, song(tmp_path / "a.wav", 0.1)), "separate:sides"))
    queue.close()
    memory = folder / MEMORY_FILE
    text = memory.read_text(encoding="utf-8")
    changed = change(text)
    assert changed != text
    memory.write_text(changed, encoding="utf-8")
    queue = opened(folder)
    assert queue.songs(VISITOR) == []
    (left,) = [path for path in folder.iterdir() if path.is_dir()]
    queue.close()
    assert secret.is_file()
    (aside,) = folder.glob("songs-damaged-*.json")
    assert aside.read_text(encoding="utf-8") == changed
    opened(folder).close()
    assert (left / "song.wav").is_file()
    aside.unlink()
    opened(folder).close()
    assert not left.exists()


@pytest.mark.parametrize("entry", [{}, 7, None, {"id": "x"}])
def test_a_damaged_entry_takes_no_other_song_with_it(tmp_path: Path, entry: Any) -> None:
    folder = tmp_path / "studio"
    queue = opened(folder)
    first, second = (put(queue, song(tmp_path / "a.wav", 0.1)) for _ in range(2))
    queue.close()
    values = json.loads((folder / MEMORY_FILE).read_text(encoding="utf-8"))
    values["songs"][0] = entry
    (folder / MEMORY_FILE).write_text(json.dumps(values), encoding="utf-8")
    queue = opened(folder)
    assert [one.id for one in queue.songs(VISITOR)] == [second]
    queue.close()
    assert (folder / first / "song.wav").is_file()
    assert len(list(folder.glob("songs-damaged-*.json"))) == 1


@pytest.mark.parametrize("gain", [0.0, float("nan"), float("inf"), -1.0])
def test_odd_answers_of_an_engine_end_neither_worker_nor_memory(tmp_path: Path, gain: float) -> None:
    class OddEngine(QuickEngine):
        def run(self, choice: Choice, song: Path, folder: Path, progress: Progress) -> Made:
            if choice.label == "broken":
                raise InputError("a lone \udcff")
            return replace(super().run(choice, song, folder, progress), gain=gain, warnings=("odd \ud800\n",))

    queue = opened(tmp_path / "studio", OddEngine())
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    work = over(queue.ask(song_id, "separate:sides"))
    assert (work.state, work.warnings) == (("done", ("odd ??",)) if gain == 0 else ("failed", ()))
    assert over(queue.ask(song_id, "separate:broken")).error == "a lone ?"
    json.dumps(queue.told(queue.song(song_id)), allow_nan=False).encode()
    queue.close()
    queue = opened(tmp_path / "studio")
    assert len(queue.song(song_id).works) == 2
    queue.close()


def test_a_memory_that_cannot_be_written_does_not_end_the_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = opened(tmp_path / "studio")
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    monkeypatch.setattr("polyres.studio.jobs.save_state", lambda *_: [][0])
    works = [over(queue.ask(song_id, f"separate:{label}")) for label in ("sides", "halves")]
    assert [work.state for work in works] == ["done", "done"]
    monkeypatch.undo()
    queue.close()


def test_a_job_that_finds_no_room_says_so_and_can_be_asked_for_again(tmp_path: Path) -> None:
    class LargeEngine(QuickEngine):
        def run(self, choice: Choice, song: Path, folder: Path, progress: Progress) -> Made:
            (folder / "large").write_bytes(bytes(1 << 18))
            return super().run(choice, song, folder, progress)

    queue = opened(tmp_path / "studio", LargeEngine())
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    with at_most(1 << 17):
        work = over(queue.ask(song_id, "separate:sides"))
        assert "the studio cannot write (File too large); " in (work.error or "")
    assert not work.folder.exists()
    assert over(queue.ask(song_id, "separate:sides")).state == "done"
    queue.close()


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device"), "the studio cannot write (No space left on device); remove songs"),
        (OSError("no words"), "something went wrong in the studio (OSError); see its log"),
    ],
)
def test_what_a_visitor_is_told_of_a_failure(error: Exception, text: str) -> None:
    assert failure_message(error).startswith(text)


def test_jobs_that_a_restart_queues_again_have_room_or_say_so(tmp_path: Path) -> None:
    folder, engine = tmp_path / "studio", QuickEngine()
    engine.go_on.clear()
    queue = opened(folder, engine)
    song_id = put(queue, song(tmp_path / "a.wav", 0.5))
    work_id = queue.ask(song_id, "separate:sides").id
    queue.close()
    queue = opened(folder, engine)
    assert queue._room.promised_bytes == 6 * 3 * 2 * 22_050
    queue.close()
    queue = opened(folder, max_total_bytes=100_000)
    work = queue.work(work_id)[1]
    assert (work.state, "disk is full" in work.error) == ("failed", True)
    queue.close()


def test_results_of_a_real_engine_survive_a_restart(tmp_path: Path) -> None:
    engine = PolyresEngine([str(tiny_weights(tmp_path / "tiny.safetensors"))], [], "cpu")
    queue = opened(tmp_path / "studio", engine)  # type: ignore[arg-type]
    work = over(queue.ask(put(queue, song(tmp_path / "a.wav", 0.1)), "separate:tiny"))
    assert work.state == "done"
    queue.close()
    queue = opened(tmp_path / "studio")
    again = queue.finished(work.id)[1]
    assert (again.choice.label, list(again.lanes)) == ("tiny", list(work.lanes))
    queue.close()


def test_results_whose_files_are_gone_are_left_out_and_those_not_offered_any_more_stay(tmp_path: Path) -> None:
    folder = tmp_path / "studio"
    queue = opened(folder)
    song_id = put(queue, song(tmp_path / "a.wav", 0.1))
    gone, kept = (over(queue.ask(song_id, choice)) for choice in ("separate:sides", "separate:halves"))
    lost = put(queue, song(tmp_path / "b.wav", 0.1))
    queue.close()
    shutil.rmtree(gone.folder)
    (folder / lost / "song.wav").unlink()
    (folder / song_id / "0123abcd").mkdir()
    queue = opened(folder)
    (found,) = queue.songs(VISITOR)
    assert list(found.works) == [kept.id]
    assert sorted(path.name for path in (folder / song_id).iterdir()) == sorted(["song.wav", kept.folder.name])
    queue.close()

    class Fewer(QuickEngine):
        choices = ()  # type: ignore[assignment]

    queue = opened(folder, Fewer())
    (work,) = queue.songs(VISITOR)[0].works.values()
    assert (work.id, work.state, work.choice.label) == (kept.id, "done", "halves")
    queue.close()


def test_songs_that_nobody_used_are_removed_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "studio"
    queue = opened(folder)
    put(queue, song(tmp_path / "a.wav", 0.1))
    queue.close()
    values = json.loads((folder / MEMORY_FILE).read_text(encoding="utf-8"))
    values["songs"][0]["seen"] = time.time() - 7 * 3600
    (folder / MEMORY_FILE).write_text(json.dumps(values), encoding="utf-8")
    opened(folder, keep_hours=8).close()
    assert len([path for path in folder.iterdir() if path.is_dir()]) == 1
    opened(folder, keep_hours=6).close()
    assert [path for path in folder.iterdir() if path.is_dir()] == []


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no hard kill on this system")
def test_a_killed_studio_loses_nothing_that_was_finished(tmp_path: Path) -> None:
    folder, source = tmp_path / "studio", song(tmp_path / "a.wav", 0.1)
    code = (
        "import sys, time; from pathlib import Path; from tests.studio.test_saved_state import *\n"
        "queue = opened(Path(sys.argv[1])); id = put(queue, Path(sys.argv[2]))\n"
        "over(queue.ask(id, 'separate:sides')); queue.engine.go_on.clear(); queue.ask(id, 'separate:halves')\n"
        "time.sleep(0.2); print('ready', flush=True); time.sleep(60)"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(folder), str(source)], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    queue = opened(folder)
    (found,) = queue.songs(VISITOR)
    assert [over(work).state for work in found.works.values()] == ["done", "done"]
    queue.close()
