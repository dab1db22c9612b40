from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.core.errors import OutputError, TrainingError
from polyres.training.pack import CODE_FOLDER, DATA_FOLDER, Ingredient, _thin, open_bundle, pack
from polyres.training.run import run_training
from polyres.training.separation import TrainConfig


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
    return Ingredient(root, f"{track:03d}", "drums", Path(f"{root}/{track}"), length_s, validation)


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.73, 1.0])
def test_thinning_keeps_the_share_of_every_root(share):
    items = [_stem("a", n, 10.0) for n in range(50)] + [_stem("b", n, 1.0) for n in range(100)]
    items += [_stem("v", 0, 1000.0, validation=True)]
    kept = _thin(items, share)
    assert sum(item.length_s for item in kept if item.root == "v") == 1000.0
    for root, total_s, most_s in (("a", 500.0, 10.0), ("b", 100.0, 1.0)):
        seconds = sum(item.length_s for item in kept if item.root == root)
        assert share * total_s - most_s <= seconds <= share * total_s


def test_too_small_a_limit_is_refused_and_leaves_nothing(recipe, tmp_path):
    with pytest.raises(TrainingError, match="--max-mb"):
        pack(TrainConfig.from_yaml(recipe), tmp_path / "bundle", max_mb=0.2, report=quiet)
    assert list(tmp_path.glob("*bundle*")) == []


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
    monkeypatch.setattr("polyres.training.separation.make_root", lambda *_, **__: pytest.fail("made when packed"))
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
