"""`polyres runs`."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from polyres.cli.main import main
from polyres.cli.runs import duration_text


def make_run(path: Path, seed: int, scores: list[float]) -> Path:
    path.mkdir(parents=True)
    roots = "data: {roots: [{path: train}]}"
    (path / "config.yaml").write_text(f"{roots}\nepochs: {len(scores)}\nseed: {seed}\n", encoding="utf-8")
    rows, best = [], None
    for epoch, score in enumerate(scores, 1):
        valid = {"raw": {"score": score, "drums": score + 1, "vocals": score - 1, "drums@512": 9.87}}
        best = {
            "score": max(scores[:epoch]),
            "weights": "raw",
            "epoch": epoch,
            "step": 10 * epoch,
            "valid": valid["raw"],
        }
        row = {"epoch": epoch, "step": 10 * epoch, "elapsed_s": 60.5 * epoch, "valid": valid, "best": best}
        rows.append(json.dumps({**row, "progress": epoch / len(scores)}))
    (path / "metrics.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    make_run(tmp_path / "first [a]", 1, [1.25, 2.5])
    make_run(tmp_path / "second", 2, [1.0, 3.75, 3.0])
    return tmp_path


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00:00"), (59.6, "0:01:00"), (3725, "1:02:05"), (360000, "100:00:00")]
)
def test_durations(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


def test_list(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", str(runs)]) == 0
    head, first, second = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head == ["run", "state", "step", "time", "parameters", "best", "drums", "vocals", "weights"]
    assert first == ["first", "[a]", "finished", "20", "0:02:01", "–", "2.50", "3.50", "1.50", "raw"]
    assert second[:6] == ["second", "finished", "30", "0:03:02", "–", "3.75"]


def test_list_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "list", str(runs), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(run["name"], run["state"], run["best"]["score"]) for run in found] == [
        ("first [a]", "finished", 2.5),
        ("second", "finished", 3.75),
    ]


def test_broken_runs_say_why(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "second" / "config.yaml").write_text("epochs: [", encoding="utf-8")
    assert main(["runs", "list", str(runs)]) == 0
    text = capsys.readouterr().out
    assert "second" in text
    assert "broken" in text
    assert "not valid YAML" in text.splitlines()[-1]


def test_compare(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "compare", str(runs / "first [a]"), str(runs / "second")]) == 0
    text = capsys.readouterr().out
    lines = [line.split() for line in text.splitlines()]
    assert ["epochs", "2", "3"] in lines
    assert ["seed", "1", "2"] in lines
    assert ["20", "2.50", "3.75"] in lines
    assert ["0:02:01", "2.50", "3.75"] in lines
    for title in ("Best nSDR in dB", "Settings that differ", "after equal steps", "after equal times"):
        assert title in text


def test_compare_as_json(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", "compare", str(runs / "first [a]"), str(runs / "second"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["differences"]["seed"] == [1, 2]
    assert found["by_step"][-1] == {"step": 20, "best": [2.5, 3.75]}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["list", "gone"], "error: there is no folder gone; give the folder that holds runs"),
        (["compare", "gone", "gone"], "error: gone holds no run (config.yaml is missing)"),
        (["compare", "gone"], "error: 1 run given; name two or more to compare"),
        (["list"], "error: Missing argument 'DIR' (polyres runs list --help shows what is allowed)"),
    ],
)
def test_errors_are_one_line(words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(message)


def test_importing_the_command_loads_no_torch() -> None:
    code = "import sys, polyres.cli.runs; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
