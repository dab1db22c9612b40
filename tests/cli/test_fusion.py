"""`polyres fusion`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from polyres.cli.main import main
from polyres.separation.weights import save_separator
from tests.separation.fusion_report.runs import small, write_run, write_tracks


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, str]:
    root = tmp_path_factory.mktemp("fusion")
    write_run(root / "run", [small(seed=0), small(seed=1)], {"ema_0.9": small(seed=2)})
    return str(root / "run"), str(write_tracks(root / "tracks", (4000,)))


def test_a_report_with_tracks_and_figures(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, tracks = folders
    assert main(["fusion", run, "--data", tracks, "--out", str(tmp_path / "report"), "--device", "cpu"]) == 0
    said = capsys.readouterr()
    assert "output: source_weights, explicit weights, learned" in said.out
    assert "Raw against ema_0.9: largest difference" in said.out
    assert said.err.splitlines() == ["1/1 track 0: 8 passes", f"14 files in {tmp_path / 'report'}"]
    names = {path.name for path in (tmp_path / "report").iterdir()}
    assert len(names) == 14
    assert {"report.md", "report.json", "output_heat_map.pdf", "divergence_over_epochs.png"} <= names
    values = json.loads((tmp_path / "report" / "report.json").read_text(encoding="utf-8"))
    assert values["n_fft"] == [512, 1024, 2048]
    assert len(values["data"]["shapley_db"]) == 3
    assert (tmp_path / "report" / "report.md").read_text(encoding="utf-8").startswith("# Fusion of ")


def test_json_and_choice_of_weights(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fusion", folders[0], "--weights", "ema_0.9", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert values["chosen"] == "ema_0.9"
    assert values["data"] is None
    assert main(["fusion", folders[0], "--weights", "ema_0.5"]) == 2
    assert "has no weights 'ema_0.5'; there are: best, raw, ema_0.9" in capsys.readouterr().err


def test_markdown_without_coalitions(folders: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--no-shapley", "--max-tracks", "1", "--seconds", "0.25", "--markdown"]
    assert main(["fusion", folders[0], "--data", folders[1], *options]) == 0
    said = capsys.readouterr()
    assert "**What each resolution does**" in said.out
    assert "5 passes" in said.err


def test_a_track_that_cannot_be_read_is_told_and_left_out(
    folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tracks = write_tracks(tmp_path / "tracks", (4000, 4000, 4000))
    good = write_tracks(tmp_path / "good", (4000,))
    (tracks / "track 1" / "drums.wav").write_bytes(b"RIFF")
    (tracks / "track 2" / "vocals.wav").write_bytes(b"")
    options = ["--no-shapley", "--json"]
    assert main(["fusion", folders[0], "--data", str(tracks), *options]) == 2
    said = capsys.readouterr()
    wrong = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert [name in line for name, line in zip(("track 1", "track 2"), wrong, strict=True)] == [True, True]
    assert main(["fusion", folders[0], "--data", str(good), *options]) == 0
    assert json.loads(said.out)["data"] == json.loads(capsys.readouterr().out)["data"]
    (tracks / "track 0" / "vocals.wav").write_bytes(b"")
    assert main(["fusion", folders[0], "--data", str(tracks), *options]) == 2
    assert capsys.readouterr().out == ""


def test_without_matplotlib(
    folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert main(["fusion", folders[0], "--out", str(tmp_path / "out")]) == 2
    assert "figures need matplotlib" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    assert main(["fusion", folders[0], "--out", str(tmp_path / "out"), "--no-figures"]) == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"report.md", "report.json"}


def test_what_cannot_be_analysed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fusion", str(tmp_path)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: {tmp_path} is no run: it has no config.yaml; give a folder that polyres train made\n"
    )
    one = save_separator(small({"n_fft": [512]}), tmp_path / "one.safetensors")
    assert main(["fusion", str(one)]) == 2
    assert "so there is nothing to fuse" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    two = save_separator(small(), tmp_path / "two.safetensors")
    assert main(["fusion", str(two), "--no-figures", "--out", str(tmp_path / "file")]) == 2
    assert "error: cannot make the folder" in capsys.readouterr().err
