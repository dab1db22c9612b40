"""`polyres data`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyres.audio.track_files import SOURCES
from polyres.cli.main import main
from tests.datasets.stem_folders import RATE_HZ, noise, write_moises_track, write_track, write_wave


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_track(tmp_path / "songs" / "First [live]", SOURCES, RATE_HZ, with_mixture=True)
    write_track(tmp_path / "songs" / "Second", ("vocals",), 2 * RATE_HZ)
    return tmp_path / "songs"


def test_a_clean_folder_ends_with_0(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(root)]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert next(line for line in lines if line.startswith("First [live]")).split()[2:5] == ["0:01.0", "44100", "2"]
    assert next(line for line in lines if line.startswith("Second")).rstrip().endswith("lacks drums, bass, other")
    assert lines[-1] == "2 tracks, 3.0 s, layout stems: no problems"
    assert captured.err == ""


def test_problems_end_with_1_and_are_listed(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (root / "Second" / "vocals.wav").write_text("no audio")
    assert main(["data", "check", str(root), "--layout", "stems"]) == 1
    lines = capsys.readouterr().out.splitlines()
    problem = next(line for line in lines if line.startswith("problem: "))
    assert problem.startswith("problem: Second: ")
    assert "vocals.wav cannot be read as audio" in problem
    assert lines[-1] == "2 tracks, 1.0 s, layout stems: 1 problems in 1 tracks"


def test_json_has_the_same_status_and_nothing_else_on_the_output(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["data", "check", str(root), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["total"]["tracks"] == 2
    (root / "Second" / "vocals.wav").write_text("no audio")
    assert main(["data", "check", str(root), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["total"]["problems"] == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no tracks in"),
        (["--layout", "slakh2100"], "no tracks of layout 'slakh2100'"),
        (["--layout", "musdb"], "unknown layout 'musdb'; did you mean 'musdb18'?"),
        (["--layout", "stems", "--split", "valid"], "layout 'stems' has no split 'valid'"),
        (["--split", "dev"], "'dev' is not one of 'all', 'train', 'valid', 'test'"),
        (["--sources", " , "], "--sources is ' , '; name at least one stem"),
    ],
)
def test_what_cannot_be_checked_ends_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["data", "check", str(tmp_path), *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert message in captured.err
    assert len(captured.err.splitlines()) == 1


def test_the_layout_is_found_out_and_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_moises_track(tmp_path / "x", {"vocals": ["v"], "guitar": ["g"]})
    assert main(["data", "check", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "1 tracks, 0.0 s, layout moisesdb: no problems"


def test_help_tells_the_exit_status(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", "--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "0 without problems, 1 with problems, 2 if there is no track at all" in text


def test_index_measures_once_and_sums_up(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wave(root / "First [live]" / "bass.wav", noise(RATE_HZ // 2))
    assert main(["data", "index", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert sum(line.startswith("measuring ") for line in lines) == 5
    warnings = [line for line in lines if line.startswith("warning: ")]
    assert len(warnings) == 1
    assert "bass.wav (bass) by 0.500 s" in warnings[0]
    assert lines[-1] == "2 tracks, 0.00 h, layout stems"
    assert next(line for line in lines if line.startswith("vocals: ")).startswith("vocals: 2 stems, 0.00 h active")
    assert main(["data", "index", str(root), "--sources", "drums,piano"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("measuring ")]
    assert "piano: in no track" in lines
