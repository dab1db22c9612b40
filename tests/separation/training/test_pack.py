from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from polyres.audio.track_files import SOURCES, Part
from polyres.cli.main import main
from polyres.core.errors import InputError, OutputError, TrainingError
from polyres.datasets.layouts import find_tracks
from polyres.datasets.stem_files import StemFile
from polyres.datasets.stems import StemsDataset
from polyres.datasets.tracks import load_layout_track
from polyres.separation.model import Separator
from polyres.separation.training import pack as pack_module
from polyres.separation.training.contents import Ingredient, collect, folder_names, thin
from polyres.separation.training.pack import CODE_FOLDER, DATA_FOLDER, open_bundle, pack
from polyres.separation.training.task import SeparationTask, TrainConfig, load_start
from polyres.separation.weights import save_separator
from polyres.study.run.train import run_training
from polyres.training.task import resolve_roots
from tests.datasets.stem_folders import RATE_HZ, noise, write_slakh_track, write_stem_mp4, write_track
from tests.full_disk import at_most


def quiet(line: str) -> None:
    assert line


@pytest.fixture
def bundle(recipe, tmp_path):
    pack(TrainConfig.from_yaml(recipe), tmp_path / "bundle", report=quiet)
    return tmp_path / "bundle"


def test_a_bundle_trains_where_it_lies(bundle, tmp_path):
    moved = tmp_path / "elsewhere" / "box"
    moved.parent.mkdir()
    bundle.rename(moved)
    path, values = open_bundle(moved)
    result = run_training(path, tmp_path / "run", [f"{key}={value}" for key, value in values.items()])
    assert result.finished
    assert result.best is not None


def test_the_code_inside_runs_alone(bundle):
    environment = {**os.environ, "PYTHONPATH": str(bundle / CODE_FOLDER)}
    command = [sys.executable, "-c", "import polyres; print(polyres.__file__)"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=bundle, check=True)
    assert Path(done.stdout.strip()).is_relative_to(bundle)


def test_stems_keep_length_and_sound(recipe, bundle):
    config = TrainConfig.from_yaml(recipe)
    checked = 0
    for root in config.data.roots:
        folder = Path(config.data_dir or ".") / root.path
        for path in folder.rglob("*.wav"):
            packed = bundle / DATA_FOLDER / folder.name / path.relative_to(folder).with_suffix(".ogg")
            before, rate_hz = soundfile.read(path)
            after, packed_hz = soundfile.read(packed)
            assert packed_hz == rate_hz
            assert after.shape == before.shape
            error_db = 10 * np.log10(np.sum((before - after) ** 2) / np.sum(before**2))
            assert error_db < -6
            checked += 1
    assert checked


def test_the_facts_tell_what_is_inside(bundle):
    facts = json.loads((bundle / "bundle.json").read_text())
    on_disk = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    assert facts["stems"] == len(list((bundle / DATA_FOLDER).rglob("*.ogg")))
    assert facts["stems_left_out"] == 0
    assert facts["bytes"] <= on_disk <= facts["bytes"] + 20_000  # the recipe and the facts themselves


def _stem(root: str, track: int, length_s: float, validation: bool = False) -> Ingredient:
    stem = StemFile((Part(Path(f"{root}/{track}")),), 8000, round(8000 * length_s), np.zeros(0))
    return Ingredient(root, f"{track:03d}", "drums", stem, validation)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.73, 1.0])
def test_thinning_keeps_the_share_of_every_root(share):
    items = [_stem("a", n, 10.0) for n in range(50)] + [_stem("b", n, 1.0) for n in range(100)]
    items += [_stem("v", 0, 1000.0, validation=True)]
    kept = thin(items, share)
    assert sum(item.length_s for item in kept if item.root == "v") == 1000.0
    for root, total_s, most_s in (("a", 500.0, 10.0), ("b", 100.0, 1.0)):
        seconds = sum(item.length_s for item in kept if item.root == root)
        assert share * total_s - most_s <= seconds <= share * total_s


VALID_TRACK = "Actions - One Minute Smile"  # one of the 14 of MUSDB18's train for validation


@pytest.fixture
def musdb_dir(tmp_path):
    """A tree like that of MUSDB18-HQ; no two stems of it are as loud."""
    for number, name in enumerate(("train/A - Song", "train/B - Song", f"train/{VALID_TRACK}", "test/C - Song")):
        folder = write_track(tmp_path / "musdb" / name, SOURCES, length=12_000, with_mixture=True)
        for position, source in enumerate(SOURCES):
            wave = noise(12_000, 10 * number + position, 0.03 * 1.2 ** (4 * number + position))
            soundfile.write(folder / f"{source}.wav", wave.T, RATE_HZ, subtype="FLOAT")
    return tmp_path / "musdb"


def split_config(root, layout, **valid):
    model = {"n_fft": [512], "channels": 4, "wave_branch": False, "transformer": {"kind": "none"}, "head": "mask"}
    values = {
        "model": {**model, "segment_samples": 6000},
        "data": {"roots": [{"path": root.name, "layout": layout, "split": "train"}], "segment_samples": 6000},
        "valid": {"roots": [root.name], "layout": layout, "split": "valid", **valid},
        "data_dir": str(root.parent),
    }
    return TrainConfig.from_dict({**values, "epochs": 1, "device": "cpu"})


def packed_config(bundle):
    path, values = open_bundle(bundle)
    return TrainConfig.from_yaml(path, [f"{key}={value}" for key, value in values.items()])


def energies_db(config, root, layout, split):
    """Energy of every stem of every track in dB, by the track's name."""
    (folder,) = resolve_roots((root,), config.data_dir)
    return {
        track.name: 10 * load_layout_track(track, config.model.sources).double().square().sum((1, 2)).log10()
        for track in find_tracks(folder, layout, split, config.model.sources)
    }


def assert_same_energies(config, inside):
    before, after = config.data.roots[0], inside.data.roots[0]
    for old, new, old_root, new_root in (
        (before, after, before.path, after.path),
        (config.valid, inside.valid, config.valid.roots[0], inside.valid.roots[0]),
    ):
        assert (new.layout, new.split) == ("stems", "all")
        expected = energies_db(config, old_root, old.layout, old.split)
        packed = energies_db(inside, new_root, new.layout, new.split)
        assert list(packed) == list(expected)
        for name, energy_db in expected.items():
            assert packed[name].tolist() == pytest.approx(energy_db.tolist(), abs=0.5)


def test_only_the_splits_of_the_recipe_are_packed(musdb_dir, tmp_path):
    config = split_config(musdb_dir, "musdb18hq")
    facts = pack(config, tmp_path / "bundle", report=quiet)
    data = tmp_path / "bundle" / DATA_FOLDER
    packed = {path.parent.relative_to(data).as_posix() for path in data.rglob("*.ogg")}
    train = {"musdb_train/train/A - Song", "musdb_train/train/B - Song"}
    assert packed == {*train, f"musdb_valid/train/{VALID_TRACK}"}
    assert facts["stems"] == 12
    inside = packed_config(tmp_path / "bundle")
    assert_same_energies(config, inside)
    task = SeparationTask(inside)
    assert {track.name for tracks in task.build_source().sampler.tracks for track in tracks} == {"A - Song", "B - Song"}
    assert [track.name for track in task._valid_files] == [VALID_TRACK]
    assert isinstance(task.build_source(), StemsDataset)
    assert task.build_source()[0].shape == (4, 2, 6000)


def test_stem_files_are_packed_as_folders(tmp_path):
    for number, name in enumerate(("train/A - Song", f"train/{VALID_TRACK}", "test/C - Song")):
        waves = [noise(30_000, 5 * number + stream, 0.03 * 1.3**stream) for stream in range(5)]
        write_stem_mp4(tmp_path / "musdb" / f"{name}.stem.mp4", waves)
    config = split_config(tmp_path / "musdb", "musdb18")
    pack(config, tmp_path / "bundle", report=quiet)
    data = tmp_path / "bundle" / DATA_FOLDER
    assert (data / "musdb_train" / "train" / "A - Song" / "vocals.ogg").is_file()
    assert len(list(data.rglob("*.ogg"))) == 8
    assert_same_energies(config, packed_config(tmp_path / "bundle"))


def test_files_of_one_source_are_packed_as_their_sum(tmp_path):
    stems = {"S00": "Drums", "S01": "Bass", "S02": "Bass", "S03": "Piano", "S04": "Guitar"}
    for folder in ("train/Track00001", "validation/Track00002", "test/Track00003"):
        write_slakh_track(tmp_path / "slakh" / folder, stems, length=12_000)
    config = split_config(tmp_path / "slakh", "slakh2100")
    pack(config, tmp_path / "bundle", report=quiet)
    data = tmp_path / "bundle" / DATA_FOLDER
    bass, rate_hz = soundfile.read(data / "slakh_train" / "train" / "Track00001" / "bass.ogg")
    assert rate_hz == RATE_HZ
    expected = (noise(12_000, 1) + noise(12_000, 2)).T
    assert bass.shape == expected.shape
    assert 10 * np.log10(np.sum((bass - expected) ** 2) / np.sum(expected**2)) < -6
    assert sorted(path.parent.name for path in data.rglob("bass.ogg")) == ["Track00001", "Track00002"]


def test_roots_of_the_same_name_stay_apart(musdb_dir, tmp_path):
    config = split_config(musdb_dir, "musdb18hq")
    other = {"path": f"deep/{musdb_dir.name}"}
    whole = {"path": musdb_dir.name, "layout": "musdb18hq"}
    both = {"path": musdb_dir.name, "layout": "musdb18hq", "split": "valid"}
    roots = [root.to_dict() for root in config.data.roots]
    config = config.with_values({"data": {"roots": [*roots, other, whole, both, {"path": ".."}]}})
    assert list(folder_names(config).values()) == ["musdb_valid", "musdb_train", "musdb", "musdb_2", "root"]


def test_folders_without_tracks_are_refused(musdb_dir, tmp_path):
    config = split_config(musdb_dir, "musdb18hq")
    (musdb_dir / "test" / "C - Song" / "bass.wav").unlink()  # of no split that is packed
    assert len(collect(config, quiet)) == 12
    (musdb_dir / "train" / "B - Song" / "bass.wav").unlink()
    with pytest.raises(InputError, match=r"bass.wav' is missing from the track 'B - Song'"):
        pack(config, tmp_path / "bundle", report=quiet)
    with pytest.raises(TrainingError, match="the recipe's roots hold no track; nothing can be packed"):
        collect(config.with_values({"data": {"roots": []}, "valid": {"roots": []}}), quiet)


def test_too_small_a_limit_is_refused_and_leaves_nothing(recipe, tmp_path):
    with pytest.raises(TrainingError, match="--max-mb"):
        pack(TrainConfig.from_yaml(recipe), tmp_path / "bundle", max_mb=0.2, report=quiet)
    assert list(tmp_path.glob("*bundle*")) == []


def test_a_disk_that_is_full_is_told_and_leaves_nothing(recipe, tmp_path, monkeypatch):
    config = TrainConfig.from_yaml(recipe)
    with monkeypatch.context() as patch:
        patch.setattr(pack_module, "_write_code", lambda folder: 0)  # the largest file is then that of a stem
        with at_most(2000), pytest.raises(OutputError, match=r"bundle' \(File too large\); make room"):
            pack(config, tmp_path / "bundle", report=quiet)
    assert list(tmp_path.glob("*bundle*")) == []
    pack(config, tmp_path / "bundle", report=quiet)


def test_an_existing_folder_is_kept(recipe, tmp_path):
    (tmp_path / "bundle").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        pack(TrainConfig.from_yaml(recipe), tmp_path / "bundle", report=quiet)
    assert list((tmp_path / "bundle").iterdir()) == []


def test_other_folders_are_no_bundles(tmp_path):
    with pytest.raises(TrainingError, match="is no bundle"):
        open_bundle(tmp_path)
    (tmp_path / "bundle.json").write_text('{"format": 99}')
    with pytest.raises(TrainingError, match="another format"):
        open_bundle(tmp_path)


@pytest.mark.slow
def test_the_command_packs_and_trains(recipe, tmp_path, capsys):
    out = tmp_path / "bundle"
    assert main(["pack", str(recipe), "--out", str(out), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["format"] == 1
    assert main(["train", str(out)]) == 0
    assert (out / "run" / "best.safetensors").is_file()
    assert main(["train", str(out), "--resume", "--set", "epochs=3"]) == 0
    assert "at step 4" in capsys.readouterr().err


def test_what_is_made_is_packed_as_what_it_is_made_from(tmp_path, monkeypatch):
    data = tmp_path / "data"
    (data / "scores" / "deep").mkdir(parents=True)
    (data / "scores" / "deep" / "piece.mid").write_bytes(b"MThd")
    roots = [{"make": {"kind": "midi", "midi": "scores"}}, {"make": {"kind": "composed", "hours": 2, "seed": 1}}]
    values = {"data": {"roots": roots}, "valid": {"roots": [{"make": {"kind": "miniature"}}]}, "epochs": 1}
    config = TrainConfig.from_dict({**values, "data_dir": str(data)})
    monkeypatch.setattr("polyres.training.task.make_root", lambda *_, **__: pytest.fail("made when packed"))
    pack(config, tmp_path / "bundle", report=quiet)
    inside, where = open_bundle(tmp_path / "bundle")
    packed = TrainConfig.from_yaml(inside)
    assert [root.path for root in packed.data.roots] == [root.path for root in config.data.roots]
    assert packed.valid.roots == config.valid.roots
    assert (Path(where["data_dir"]) / "scores" / "deep" / "piece.mid").read_bytes() == b"MThd"
    for name, message in (
        ("nowhere", "there is no .*nowhere"),
        ("../data/scores", "cannot be packed; name it relative"),
    ):
        wrong = config.with_values({"data": {"roots": [{"make": {"kind": "midi", "midi": name}}]}})
        with pytest.raises(TrainingError, match=message):
            pack(wrong, tmp_path / "other", report=quiet)


@pytest.mark.slow
def test_weights_travel_with_the_bundle_whatever_named_them(recipe, tmp_path):
    run_training(recipe, tmp_path / "first", ["epochs=1"])
    teacher = Separator(TrainConfig.from_yaml(recipe).model, seed=9)
    with torch.no_grad():
        for parameter in teacher.parameters():
            parameter.copy_(parameter.half())
    save_separator(teacher, tmp_path / "teacher.safetensors")
    named = {"init": str(tmp_path / "first"), "distil": {"teacher": str(tmp_path / "teacher.safetensors")}}
    config = TrainConfig.from_yaml(recipe).with_values(named)
    pack(config, tmp_path / "bundle", report=quiet)
    path, values = open_bundle(tmp_path / "bundle")
    assert set(values) == {"data_dir", "init", "distil.teacher"}
    for key, name in (("init", tmp_path / "first"), ("distil.teacher", tmp_path / "teacher.safetensors")):
        before, inside = load_start(str(name), key).state_dict(), load_start(values[key], key).state_dict()
        assert all(tensor.equal(inside[name]) for name, tensor in before.items())
    sizes = [Path(values[key]).stat().st_size for key in ("distil.teacher", "init")]
    assert 1.5 < sizes[1] / sizes[0] < 2.5  # halves stay halves
    assert main(["train", str(tmp_path / "bundle"), "--set", "epochs=1"]) == 0
    for key in ("init", "distil.teacher"):
        Path(values[key]).rename(tmp_path / f"moved_{key}.safetensors")
    moved = f"distil.teacher='{tmp_path / 'moved_distil.teacher.safetensors'}'"
    words = ["train", str(path), str(tmp_path / "bundle" / "run"), "--resume", "--set", "epochs=2", "--set", moved]
    assert main([*words, "--data", values["data_dir"]]) == 0


def test_weights_that_are_not_there_cannot_be_packed(recipe, tmp_path):
    config = TrainConfig.from_yaml(recipe).with_values({"init": str(tmp_path / "gone.safetensors")})
    with pytest.raises(TrainingError, match=r"init is '.*gone.safetensors': there is no weight file"):
        pack(config, tmp_path / "bundle", report=quiet)
    assert not (tmp_path / "bundle").exists()
