from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import soundfile
from safetensors.torch import load_file

import polyres.study.run.train as run_module
from polyres.core.errors import ConfigError, InputError, TrainingError
from polyres.separation.training.task import TrainConfig
from polyres.separation.training.validation import Cutting, score_tracks
from polyres.separation.weights import load_separator_weights
from polyres.study.run.train import run_training
from polyres.training.checkpoint import load_state

RECIPES = Path(__file__).resolve().parents[3] / "recipes"


def test_a_run_leaves_everything_and_its_weights_score_as_said(recipe, tmp_path, stems_dir, capsys):
    from polyres.datasets.stem_files import most_active_excerpt
    from polyres.datasets.tracks import load_track

    result = run_training(recipe, tmp_path / "run")
    assert result.finished
    assert result.step == 4
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"config.yaml", "run.json", "metrics.jsonl", "checkpoint.safetensors", "best.safetensors"}
    model = load_separator_weights(tmp_path / "run" / "best.safetensors").eval()
    stems = load_track(stems_dir / "valid" / "three", model.sources, 8000, 2)
    scores = score_tracks(
        lambda mix: model(mix).detach(), [most_active_excerpt(stems, 16000, 8000)], model.sources, Cutting(4000)
    )
    best = result.best["valid"]
    assert scores == pytest.approx({name: best[name] for name in scores}, abs=1e-4)
    assert {f"{source}@{n_fft}" for source in ("drums", "other", "vocals") for n_fft in (512, 1024)} <= set(best)
    printed = capsys.readouterr()
    assert printed.out == ""
    for words in ("parameters, n_fft 512 1024, head mask", "2 per epoch, until 2 epochs; at step 0", "best nSDR"):
        assert words in printed.err
    assert "@512" not in printed.err


@pytest.mark.slow
def test_one_seed_gives_the_same_weights_twice(recipe, tmp_path):
    for name in ("a", "b"):
        run_training(recipe, tmp_path / name)
    a, b = (load_file(tmp_path / name / "best.safetensors") for name in ("a", "b"))
    assert all(tensor.equal(b[name]) for name, tensor in a.items())


@pytest.mark.slow
def test_training_beats_equal_shares(recipe, tmp_path):
    result = run_training(recipe, tmp_path / "run", ["epochs=12", "optimiser.lr=8e-3", "valid.every=12"])
    assert result.best["score"] > 2  # a quarter of the mixture scores about 1.2


def start_until(words: str, command: list[str]) -> subprocess.Popen[str]:
    """Start a run in its own process group and return once it has printed the words."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            break
    return process


@pytest.mark.slow
def test_stop_and_go_on_in_another_process_equals_never_stopping(recipe, tmp_path):
    overrides = ["threads=1", "num_workers=1", "epochs=4", "valid.every=3"]
    command = [sys.executable, "-W", "error", "-m", "polyres", "train", str(recipe), "--out", str(tmp_path / "parts")]
    command += [word for override in (*overrides, "log_every_s=0.001") for word in ("--set", override)]
    with start_until("step 3 ", command) as process:
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert process.returncode == 128 + signal.SIGTERM, rest
    assert "go on with: polyres train --out" in rest
    stopped_at = load_state(tmp_path / "parts" / "checkpoint.safetensors")[1]["state"]["step"]
    assert 3 <= stopped_at < 8
    run_training(None, tmp_path / "parts", resume=True)
    run_training(recipe, tmp_path / "whole", overrides)
    for name in ("checkpoint.safetensors", "best.safetensors"):
        parts, whole = (load_file(tmp_path / run / name) for run in ("parts", "whole"))
        assert [key for key in whole if not whole[key].equal(parts[key])] == []


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs process groups")
def test_ctrl_c_to_the_whole_group_leaves_no_process(recipe, tmp_path):
    command = [sys.executable, "-m", "polyres", "train", str(recipe), "--out", str(tmp_path / "run")]
    command += ["--set", "num_workers=2", "--set", "epochs=1000", "--set", "log_every_s=0.001", "--set", "threads=1"]
    with start_until("step 2 ", command) as process:
        os.killpg(process.pid, signal.SIGINT)
        process.stderr.read()
    assert process.returncode == 128 + signal.SIGINT
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(process.pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    pytest.fail("processes of the run are still there")


def test_threads_are_set(recipe, tmp_path, monkeypatch):
    counts = []
    monkeypatch.setattr(run_module.torch, "set_num_threads", counts.append)
    run_training(recipe, tmp_path / "run", ["threads=2", "epochs=1"])
    assert counts == [2]


@pytest.mark.parametrize("rank", [0, 1])
def test_padded_stems_are_warned_of_by_the_first_process_alone(recipe, tmp_path, stems_dir, capsys, monkeypatch, rank):
    shutil.copytree(stems_dir / "train", tmp_path / "train")
    path = tmp_path / "train" / "two" / "bass.wav"
    wave, rate_hz = soundfile.read(path)
    soundfile.write(path, wave[:-2000], rate_hz, subtype="FLOAT")
    monkeypatch.setattr(run_module.Ranks, "is_first", rank == 0)
    run_training(recipe, tmp_path / "run", [f"data.roots=[{{path: '{tmp_path / 'train'}'}}]", "epochs=1"])
    lines = capsys.readouterr().err.splitlines()
    padded = "track 'two': shorter than its longest stem, padded with silence: bass.wav (bass) by 0.250 s"
    assert [line for line in lines if line.startswith("warning")] == [f"warning: {padded}"] * (rank == 0)
    if rank == 0:
        assert lines.index(f"warning: {padded}") == 1 + next(n for n, line in enumerate(lines) if line[:4] == "run ")


def test_user_errors_leave_nothing_behind(recipe, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(TrainingError, match=r"holds no run to resume; name a recipe"):
        run_training(None, out, resume=True)
    with pytest.raises(ConfigError, match=r"unknown key 'epoch'; did you mean 'epochs'"):
        run_training(recipe, out, ["epoch=3"])
    with pytest.raises(TrainingError, match=r"there is no folder .*nowhere"):
        run_training(recipe, out, ["data_dir=/nowhere"])
    assert not out.exists()


def test_unusable_data_leaves_nothing_behind(recipe, tmp_path, stems_dir):
    out = tmp_path / "run"
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no tracks in '.*empty'; each track is a folder with some of drums.wav"):
        run_training(recipe, out, [f"data.roots=[{{path: '{tmp_path / 'empty'}'}}]"])
    with pytest.raises(InputError, match=r"no tracks in '.*empty'; each track is a folder with some of drums.wav"):
        run_training(recipe, out, [f"valid.roots=['{tmp_path / 'empty'}']"])
    (tmp_path / "drums" / "song").mkdir(parents=True)
    shutil.copy(stems_dir / "train" / "one" / "drums.wav", tmp_path / "drums" / "song")
    with pytest.raises(ConfigError, match=r"no track has the source 'bass'; add a root with bass or drop the source"):
        run_training(recipe, out, [f"data.roots=[{{path: '{tmp_path / 'drums'}'}}]"])
    with pytest.raises(ConfigError, match=r"layout 'stems' has no split 'valid'; .*musdb18hq"):
        run_training(recipe, out, ["valid.split=valid"])
    assert not out.exists()


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_a_valid_config(path: Path):
    config = TrainConfig.from_yaml(path)
    assert TrainConfig.from_dict(config.to_dict()) == config
