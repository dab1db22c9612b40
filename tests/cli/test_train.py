from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from polyres.cli.main import main
from polyres.cli.train import quoted, seconds_of
from polyres.core.errors import ConfigError
from polyres.training.progress import TrainResult


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("90m", 5400), ("1.5h", 5400), ("600", 600), (" 2 M ", 120), (".5s", 0.5)]
)
def test_durations(text: str, seconds: float):
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "-5m", "0", "5 days", "1h30m"])
def test_what_is_no_duration(text: str):
    with pytest.raises(ConfigError, match=r"--time-budget is .*; write a duration such as 45s, 90m or 1.5h"):
        seconds_of(text)


@pytest.mark.parametrize("text", ["plain", "it's", "a: b", "#x", "null", "C:\\songs", "{}"])
def test_quoted_text_is_read_back(text: str):
    assert yaml.safe_load(quoted(text)) == text


@pytest.fixture
def calls(monkeypatch):
    """Record what the command asks for instead of training."""
    found = []

    def record(recipe, out, overrides, resume):
        found.append((recipe, out, overrides, resume))
        return TrainResult(True, None, 1, 1, 1.0, None)

    monkeypatch.setattr("polyres.study.run.train.run_training", record)
    return found


def test_options_become_overrides(calls, monkeypatch):
    monkeypatch.setenv("POLYRES_DATA", "it's here")
    words = "train r.yaml --out run --set epochs=3 --set optimiser.lr=1e-4 --time-budget 2m --init w.safetensors"
    assert main(words.split()) == 0
    overrides = [
        "epochs=3",
        "optimiser.lr=1e-4",
        "time_budget_s=120.0",
        "data_dir='it''s here'",
        "init='w.safetensors'",
    ]
    assert calls == [(Path("r.yaml"), Path("run"), overrides, False)]


def test_data_option_beats_the_environment(calls, monkeypatch):
    monkeypatch.setenv("POLYRES_DATA", "there")
    assert main(["train", "r.yaml", "--out", "run", "--data", "here"]) == 0
    assert calls[0][2] == ["data_dir='here'"]


def test_resume_needs_no_recipe(calls):
    assert main(["train", "--out", "run", "--resume"]) == 0
    assert calls == [(None, Path("run"), [], True)]


@pytest.mark.parametrize("words", ["r.yaml --resume run", "r.yaml run --resume", "r.yaml --out run --resume run"])
def test_the_run_to_resume_may_follow_the_option(calls, words: str):
    assert main(["train", *words.split()]) == 0
    assert calls == [(Path("r.yaml"), Path("run"), [], True)]


def test_a_run_folder_can_be_gone_on_with_by_its_name_alone(calls, tmp_path):
    for name in ("config.yaml", "run.json"):
        (tmp_path / name).touch()
    assert main(["train", "--resume", str(tmp_path)]) == 0
    assert calls == [(None, tmp_path, [], True)]


def test_two_folders_for_one_run(calls, capsys):
    assert main(["train", "r.yaml", "here", "--out", "there"]) == 2
    assert "error: two folders for the run, here and there; name one" in capsys.readouterr().err
    assert calls == []


def test_neither_recipe_nor_resume(calls, capsys):
    assert main(["train", "--out", "run"]) == 2
    assert "error: no recipe given; name a YAML file, or add --resume" in capsys.readouterr().err
    assert calls == []


def test_a_stopped_run_says_so_by_its_status(monkeypatch):
    result = TrainResult(False, 15, 1, 1, 1.0, None)
    monkeypatch.setattr("polyres.study.run.train.run_training", lambda *arguments: result)
    assert main(["train", "r.yaml", "--out", "run"]) == 143


def test_missing_recipe_is_one_line(tmp_path, capsys):
    assert main(["train", str(tmp_path / "none.yaml"), "--out", str(tmp_path / "run")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "no such config file" in line
    assert list(tmp_path.iterdir()) == []


def test_importing_the_command_loads_no_torch():
    code = "import sys, polyres.cli.train; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
