"""`polyres study` as a user types it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from polyres.cli.main import main
from tests.study.cases import STUDY, Inline, write_study

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has been carried out in `out`."""
    place = tmp_path_factory.mktemp("study")
    write_study(place)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("polyres.cli.study._backend", lambda plan, jobs, ray: Inline())
        assert main(["study", str(place / "study.yaml"), "--out", str(place / "out"), "--seeds", "1"]) == 0
    return place


def test_tables_of_what_is_done(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(root / "study.yaml"), "--out", str(root / "out"), "--seeds", "1", "--markdown"]) == 0
    shown = capsys.readouterr()
    assert "2 of 2 runs are done already" in shown.err
    text = (root / "out" / "report.md").read_text()
    assert text == shown.out
    for title in ("Tiny: nsdr in dB, higher is better", "Against the reference.", "Cost and quality", "nsdr by style"):
        assert f"**{title}" in text
    assert "| arm | drums | bass | other | vocals | all | ± seeds | seeds | tracks |" in text
    assert "| undecided |" in text
    assert "| steps | one | two |" in text
    assert "10 W per busy core" in text


def test_the_folder_of_a_study_prints_its_tables(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(root / "out"), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [score["arm"] for score in values["scores"]] == ["one", "two"]
    assert values["scores"][0]["deviation"] is None
    (difference,) = values["differences"]
    assert (difference["arm"], difference["verdict"], difference["found"]["tracks"]) == ("two", "undecided", 3)
    assert "fewer than 3 seeds" in difference["doubts"]
    assert [cost["arm"] for cost in values["costs"]] == ["one", "two"]
    assert 0 < values["costs"][0]["macs_per_s"] < values["costs"][1]["macs_per_s"]
    assert {score["style"] for score in values["styles"]} == {"tones", "more"}
    assert values["after_equal_steps"][-1]["at"] == 4


def test_arms_and_runs_are_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["study", str(root / "study.yaml"), "--out", str(root / "out"), "--set", "optimiser.lr=0.001"]
    assert main([*words, "--list"]) == 0
    shown = capsys.readouterr().out
    assert "Tiny: Does it work?" in shown
    assert "model.n_fft=[512]" in shown
    assert "all arms: optimiser.lr=0.001, over tiny.yaml" in shown
    assert main([*words, "--dry-run", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert [(run["run"], run["state"], run["steps"]) for run in runs] == [
        ("one/seed1", "done", 4), ("two/seed1", "done", 4), ("one/seed2", "new", 4), ("two/seed2", "new", 4)
    ]  # fmt: skip
    assert 1000 < runs[0]["parameters"] < runs[1]["parameters"]
    assert main([*words, "--dry-run"]) == 0
    assert " new" in capsys.readouterr().out


def test_studies_of_a_folder_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study", str(RECIPES / "studies"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"main_cpu", "debug", "resolutions"} <= set(found)
    assert main(["study", str(RECIPES / "studies")]) == 0
    assert "Which of the five resolutions can be left out?" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["{root}/gone.yaml"], "no such config file"),
        (["{root}/train"], "holds neither a study (study.json) nor study files"),
        (["{root}/study.yaml", "--seeds", "a"], "--seeds a are no numbers; write them as 1,2,3"),
        (["{root}/study.yaml", "--arms", "tow"], "there is no arm 'tow'; the arms are one, two"),
        (["{root}/study.yaml", "--set", "optimiser"], "override 'optimiser' cannot be read"),
        (["{root}/study.yaml", "--set", "model.chanels=8"], "did you mean 'model.channels'"),
        (["{root}/study.yaml", "--set", "model.n_fft=[1024]"], "the arms one and two have the same settings"),
        (["{root}/study.yaml", "--dry-run", "--data", "{root}/out"], "arm one: there is no folder"),
        (["{root}/study.yaml", "--set", "model.channels=8"], "holds a run with other settings (model.channels"),
        (["{root}/study.yaml", "--set", "study.name=b"], "holds the study 'study'; choose another --out for 'b'"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    root: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    before = (root / "out" / "study.json").read_text()
    assert main(["study", *(word.format(root=root) for word in words), "--out", str(root / "out")]) == 2
    error = capsys.readouterr().err.strip()
    assert text in error
    assert error.startswith("error: ")
    assert "\n" not in error
    assert (root / "out" / "study.json").read_text() == before


def test_a_run_that_fails_shows_in_the_exit_status(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyres.cli.study._backend", lambda plan, jobs, ray: Inline())
    shutil.copytree(root, tmp_path / "copy", ignore=shutil.ignore_patterns("out"))
    text = STUDY.replace("two: {}", "two: {init: nowhere.safetensors}")
    study = write_study(tmp_path / "copy", text)
    assert main(["study", str(study), "--out", str(tmp_path / "out"), "--seeds", "1"]) == 1
    error = capsys.readouterr().err
    assert "2/2  two/seed1  failed: init is 'nowhere.safetensors'" in error
    assert "failed: two/seed1 (exit status 2): init is 'nowhere.safetensors'" in error
    assert "seed1.log" in error


@pytest.mark.slow
def test_the_debug_study_from_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POLYRES_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    assert main(["study", str(RECIPES / "studies" / "debug.yaml"), "--jobs", "2", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert [(score["arm"], score["seeds"], score["tracks"]) for score in values["scores"]] == [
        ("one", [1, 2], 3), ("two", [1, 2], 3)
    ]  # fmt: skip
    assert (tmp_path / "studies" / "debug" / "runs" / "two" / "seed2" / "best.safetensors").is_file()
