"""Folders named after tracks and models."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.batch.jobs import MAX_FOLDER_BYTES, folder_name, model_folder, plan_jobs, plan_tracks, run_name
from polyres.batch.manifest import MANIFEST_NAME, InputId, Manifest, StemRecord, manifest_text
from polyres.core.errors import InputError
from polyres.separation.labels import model_label


@pytest.mark.parametrize("name", ["..", ".", "...", "", "a/b", "x" * 400, "日本語の歌" * 40])
def test_every_text_becomes_one_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / folder_name(name)
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()
    assert len(folder.name.encode()) <= MAX_FOLDER_BYTES


def test_a_model_is_labelled_by_its_name_or_file(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").touch()
    assert model_label("htdemucs_ft") == "htdemucs_ft"
    assert model_label(str(tmp_path / "other.safetensors")) == "other"
    assert model_label(str(tmp_path)) == folder_name(tmp_path.name)
    run = tmp_path / "run7"
    run.mkdir()
    (run / "best.safetensors").touch()
    assert model_label(str(run / "best.safetensors")) == "run7"
    (tmp_path / "linked").symlink_to(run)
    assert model_label(str(tmp_path / "linked" / "")) == "linked"
    for arm in ("base", "nn"):
        (tmp_path / arm / "seed42").mkdir(parents=True)
        (tmp_path / arm / "seed42" / "best.safetensors").touch()
        assert model_label(str(tmp_path / arm / "seed42")) == f"{arm}-seed42"
        assert run_name(tmp_path / arm / "seed42") == f"{arm}/seed42"
        assert model_label(str(tmp_path / arm / "seed42" / "best.safetensors")) == f"{arm}-seed42"
    assert model_label("default") == "polyres-small"
    assert model_label("someone/model") == "someone_model"


def make(root: Path, *names: str) -> list[Path]:
    paths = [root / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())
    return paths


def planned(inputs: list[Path], out: Path) -> dict[str, str]:
    return {job.input.name: job.folder.relative_to(out / "m").as_posix() for job in plan_jobs(inputs, out, "m")}


def finish(folder: Path, path: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MANIFEST_NAME).write_text(manifest_text(Manifest(InputId.of(path)), {}))


def test_a_folder_keeps_its_tree_and_leaves_out_what_is_no_audio(tmp_path: Path) -> None:
    music = tmp_path / "music"
    make(music, "b.mp3", "A/x/one.WAV", "A/two.flac", "cover.jpg", "notes.txt", ".hidden.wav", ".git/three.wav")
    assert planned([music], tmp_path / "out") == {"b.mp3": "b", "two.flac": "A/two", "one.WAV": "A/x/one"}


def test_a_named_file_may_have_any_ending(tmp_path: Path) -> None:
    assert planned(make(tmp_path, "song.dat", "voice"), tmp_path / "out") == {"song.dat": "song", "voice": "voice"}


def test_equal_names_get_folders_of_their_own(tmp_path: Path) -> None:
    files = make(tmp_path, "a.wav", "a.mp3", "A.flac", "x/a.mp3", "y/a.mp3")
    folders = [job.folder.name for job in plan_jobs(files, tmp_path / "out", "m")]
    assert folders == ["a", "a.mp3", "A.flac", "a.mp3-2", "a.mp3-3"]
    assert [job.folder.name for job in plan_jobs(files, tmp_path / "out", "m")] == folders


def test_a_file_given_twice_is_one_job(tmp_path: Path) -> None:
    (song,) = make(tmp_path, "music/a.wav")
    assert len(plan_jobs([song, song.parent, song.parent / ".." / "music" / "a.wav"], tmp_path / "out", "m")) == 1


def test_a_folder_on_disk_keeps_its_owner(tmp_path: Path) -> None:
    wav, mp3 = make(tmp_path, "a.wav", "a.mp3")
    out = tmp_path / "out"
    finish(out / "m" / "a", mp3)
    assert planned([wav], out) == {"a.wav": "a.wav"}
    assert planned([mp3], out) == {"a.mp3": "a"}
    assert planned([wav, mp3], out) == {"a.wav": "a.wav", "a.mp3": "a"}


def test_a_file_that_was_moved_or_changed_keeps_its_folder(tmp_path: Path) -> None:
    (song,) = make(tmp_path, "a.wav")
    out = tmp_path / "out"
    finish(out / "m" / "a", song)
    moved = tmp_path / "elsewhere" / "a.wav"
    moved.parent.mkdir()
    song.rename(moved)
    assert planned([moved], out) == {"a.wav": "a"}
    make(tmp_path, "a.wav")[0].write_bytes(b"another take")
    assert planned([song], out) == {"a.wav": "a"}


def test_results_are_never_taken_for_songs(tmp_path: Path) -> None:
    song, stem = make(tmp_path, "a.wav", "separated/m/a/drums.wav")
    assert planned([tmp_path], tmp_path / "separated") == {"a.wav": "a"}
    finish(stem.parent, song)
    assert planned([tmp_path], tmp_path) == {"a.wav": "a"}
    assert planned([tmp_path], tmp_path / "another") == {"a.wav": "a"}


def test_what_is_missing_is_reported_and_the_rest_goes_on(tmp_path: Path) -> None:
    (song,) = make(tmp_path, "a.wav")
    empty = tmp_path / "empty"
    empty.mkdir()
    jobs = plan_jobs([tmp_path / "gone.wav", empty, song], tmp_path / "out", "m")
    assert [type(job.error) for job in jobs] == [InputError, InputError, type(None)]
    assert str(jobs[0].error) == f"{tmp_path / 'gone.wav'} does not exist; check the path"
    assert "empty: no audio files in this folder; name a file or another folder" in str(jobs[1].error)
    assert jobs[2].folder == tmp_path / "out" / "m" / "a"


def test_models_of_one_name_and_other_weights_keep_apart(tmp_path: Path) -> None:
    (song,) = make(tmp_path, "a.wav")
    notes: list[str] = []

    def separated(weights_id: str, overwrite: bool = False) -> str:
        label = model_folder(tmp_path / "out", "m", weights_id, overwrite, notes.append)
        (job,) = plan_jobs([song], tmp_path / "out", label)
        record = StemRecord("bass", {"weights": weights_id}, 1.0)
        job.folder.mkdir(parents=True, exist_ok=True)
        (job.folder / MANIFEST_NAME).write_text(manifest_text(Manifest(InputId.of(song), {"bass.wav": record}), {}))
        return job.folder.relative_to(tmp_path / "out").as_posix()

    first, second = "1" * 16, "2" * 16
    assert separated(first) == separated(first) == "m/a"
    assert notes == []
    assert separated(second) == "m-22222222/a"
    assert notes == [f"{tmp_path / 'out' / 'm'} holds stems of other weights; these go to m-22222222 beside it"]
    assert [separated(one) for one in (first, second)] == ["m/a", "m-22222222/a"]
    assert separated("3" * 16, overwrite=True) == "m/a"
    assert separated("3" * 16) == "m/a"


def musdb(root: Path) -> Path:
    for name in ("test/A - b", "test/C.", "train/D"):
        make(root / name, "drums.wav", "mixture.wav")
    (root / "train" / "D" / "mixture.wav").unlink()
    return root


def test_mixtures_of_a_data_set_keep_its_parts(tmp_path: Path) -> None:
    root, out = musdb(tmp_path / "M"), tmp_path / "out"
    jobs = plan_tracks([root], out, "musdb18hq")
    assert [job.folder.relative_to(out).as_posix() for job in jobs] == ["train/D", "test/A - b", "test/C"]
    assert [job.input.relative_to(root).as_posix() for job in jobs[1:]] == [
        "test/A - b/mixture.wav",
        "test/C./mixture.wav",
    ]
    assert str(jobs[0].error) == f"{root / 'train' / 'D'} has no mixture; add mixture.wav"
    part = plan_tracks([root / "test", tmp_path / "gone"], out, "musdb18hq")
    assert [job.folder.relative_to(out).as_posix() for job in part[:2]] == ["A - b", "C"]
    assert str(part[2].error).startswith(f"no folder '{tmp_path / 'gone'}'")
    finish(out / "A - b", root / "test" / "C." / "mixture.wav")
    assert "holds stems of another file" in str(plan_tracks([root / "test"], out, "musdb18hq")[0].error)
    finish(out / "A - b", root / "test" / "A - b" / "mixture.wav")
    assert plan_tracks([root / "test"], out, "musdb18hq")[0].error is None


def test_names_cannot_leave_the_output_folder(tmp_path: Path) -> None:
    (song,) = make(tmp_path, "...wav")
    assert planned([song], tmp_path / "out") == {"...wav": "_"}
