"""Files of a command: which are found, each run once, whole results or none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from polyres.batch import manifest as work_folder_module
from polyres.batch.search import AUDIO_ENDINGS
from polyres.cli.shared.audio_jobs import (
    DONE_FILE,
    FileJob,
    audio_files,
    file_job,
    file_mark,
    find_files,
    run_files,
    write_sound,
)
from polyres.core.errors import InputError, OutputError, WeightsError


def test_folders_hold_what_any_other_command_would_find_there(tmp_path: Path) -> None:
    names = [f"x.{ending}" for ending in sorted(AUDIO_ENDINGS)]
    for name in (*names, "cover.jpg", ".hidden.wav", "out/done.wav", "deep/er/song.WAV"):
        path = tmp_path / "in" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    found = find_files([tmp_path / "in", tmp_path / "in" / "x.wav"], tmp_path / "in" / "out")
    assert sorted(path.relative_to(tmp_path / "in").as_posix() for path, _ in found) == sorted(
        [*names, "deep/er/song.WAV"]
    )


def test_what_is_missing_or_empty_is_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nowhere\.wav does not exist; check the path"):
        audio_files([tmp_path / "nowhere.wav"])
    with pytest.raises(InputError, match="no audio files in this folder"):
        audio_files([tmp_path])
    job = file_job((tmp_path / "gone.wav", None), None, [])
    assert str(job.error).startswith(f"{tmp_path / 'gone.wav'} cannot be read (No such file")
    with pytest.raises(WeightsError, match=r"cannot read .*none\.safetensors \(No such file"):
        file_mark(tmp_path / "none.safetensors")


def make_two(job: FileJob, folder: Path | None, report: object) -> dict[str, object]:
    """Write one sound, then fail for bad files."""
    if folder is not None:
        write_sound(folder / "a.wav", torch.full((1, 8), 0.5), 8000)
    if "bad" in job.input.name:
        raise InputError("this one is\nbad")
    return {"rows": [len(job.input.name)]}


def jobs_of(tmp_path: Path, *names: str, settings: object = 1) -> list[FileJob]:
    for name in names:
        (tmp_path / name).write_text(name)
    return [file_job((tmp_path / name, None), tmp_path / "o" / Path(name).stem, settings) for name in names]


def test_a_bad_file_stops_no_other_and_leaves_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = jobs_of(tmp_path, "bad.wav", "good.wav")
    assert run_files(jobs, make_two, overwrite=False) == [(jobs[1], {"rows": [8]})]
    assert capsys.readouterr().err == "error: this one is bad\n"
    assert [path.name for path in (tmp_path / "o").iterdir()] == ["good"]
    samples, _ = soundfile.read(tmp_path / "o" / "good" / "a.wav")
    np.testing.assert_array_equal(samples, 0.5)


def test_a_file_that_is_missing_or_goes_away_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (good,) = jobs_of(tmp_path, "good.wav")
    found = find_files([tmp_path / "gone.wav", tmp_path / "good.wav"])
    missing = file_job(found[0], tmp_path / "o" / "1", 1)

    def vanish(job: FileJob, folder: Path | None, report: object) -> dict[str, object]:
        raise FileNotFoundError(2, "No such file or directory")

    assert run_files([missing, good], make_two, overwrite=False) == [(good, {"rows": [8]})]
    assert capsys.readouterr().err == f"error: {tmp_path / 'gone.wav'} does not exist; check the path\n"
    assert run_files([FileJob(good.input, None, "x")], vanish, overwrite=False) == []
    assert "good.wav cannot be read (No such file or directory); check its name" in capsys.readouterr().err


def test_finished_files_are_read_and_others_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    jobs = jobs_of(tmp_path, "good.wav")
    first = run_files(jobs, make_two, overwrite=False)

    def never(job: FileJob, folder: Path | None, report: object) -> dict[str, object]:
        raise AssertionError("made again")

    assert run_files(jobs, never, overwrite=False) == first
    other = [FileJob(job.input, job.folder, "another") for job in jobs]
    assert run_files(other, never, overwrite=False) == []
    assert "was made of another file or with other settings; --overwrite makes it again" in capsys.readouterr().err
    assert len(run_files(other, make_two, overwrite=True)) == 1
    (tmp_path / "o" / "good" / "a.wav").unlink()
    assert len(run_files(other, make_two, overwrite=False)) == 1
    assert (tmp_path / "o" / "good" / "a.wav").is_file()


def test_what_is_there_stays_when_the_new_one_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = jobs_of(tmp_path, "bad.wav")
    folder = tmp_path / "o" / "bad"
    folder.mkdir(parents=True)
    (folder / DONE_FILE).write_text(json.dumps({"key": "old", "sounds": [], "facts": {}}))
    (folder / "old.wav").write_text("old")
    assert run_files(jobs, make_two, overwrite=True) == []
    assert sorted(path.name for path in (tmp_path / "o").rglob("*")) == ["bad", DONE_FILE, "old.wav"]
    (folder / DONE_FILE).unlink()
    assert run_files(jobs, make_two, overwrite=True) == []
    assert "is there and holds something else; choose another --out" in capsys.readouterr().err
    (folder / DONE_FILE).write_text(json.dumps({"key": "old"}))

    def full(work: Path, place: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(work_folder_module, "publish_folder", full)
    good = [FileJob(tmp_path / "good.wav", folder, "new")]
    assert run_files(good, make_two, overwrite=True) == []
    assert "cannot be written (No space left on device); choose another --out or make room" in capsys.readouterr().err
    assert (folder / "old.wav").read_text() == "old"


def test_the_old_folder_comes_back_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, work = tmp_path / "f", tmp_path / "w"
    for folder in (old, work):
        folder.mkdir()
        (folder / "name").write_text(folder.name)
    rename = Path.rename

    def refuse(self: Path, target: Path) -> Path:
        if self == work:
            raise OSError(5, "Input/output error")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(OSError, match="Input/output error"):
        work_folder_module.publish_folder(work, old)
    assert (old / "name").read_text() == "f"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f", "w"]
    monkeypatch.undo()
    work_folder_module.publish_folder(work, old)
    assert (old / "name").read_text() == "w"
    assert [path.name for path in tmp_path.iterdir()] == ["f"]


def test_a_sound_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        write_sound(tmp_path / "file" / "a.wav", torch.zeros(1, 8), 8000)
