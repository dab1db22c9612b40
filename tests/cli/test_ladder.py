from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main

QUICK = ["--codec", "audioldm2_tiny", "--seconds", "0.5", "--device", "cpu"]
FEW = [part for name in ("R0", "R1", "R5", "R6") for part in ("--rung", name)]


def song(path: Path, seed: int = 5) -> Path:
    t = np.arange(8000) / 16000
    noise = np.random.default_rng(seed).standard_normal(len(t))
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 440 * t) + 0.05 * noise, 16000)
    return path


def test_page_table_and_rows_and_finished_files_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = song(tmp_path / "a.wav"), song(tmp_path / "b <i>.wav", 6)
    out = tmp_path / "o"
    arguments = ["ladder", str(first), str(second), *QUICK, *FEW, "--golden", str(first), "--out", str(out)]
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert "invalid here" in shown
    assert "above 4 kHz: R" in shown
    assert "golden file: does not pass unharmed" in shown
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert {row["rung"] for row in rows} == {"identity", "silence", "noise", "R0", "R1", "R5", "R6"}
    assert len({(r["file"], r["golden"], r["rung"], r["metric"]) for r in rows}) == len(rows)
    (silence,) = {r["value"] for r in rows if r["rung"] == "silence" and r["metric"] == "snr"}
    assert silence == 0
    table = (out / "ladder.md").read_text()
    assert "| identity | control | ∞ |" in table
    assert "## What loses most" in table
    page = (out / "ladder.html").read_text()
    assert page.count("<audio") == page.count("<img") == 3 * 6
    assert "src='data:audio/flac;base64," in page
    assert "http" not in page
    assert "<i>" not in page
    sounds = {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")}
    assert main(arguments) == 0
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")} == sounds
    assert (out / "ladder.html").read_text() == page
    song(second, 9)
    assert main(arguments) == 2
    assert "02_b _i_ was made of another file or with other settings; --overwrite" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in out.rglob("*.wav")} == sounds
    assert main([*arguments, "--overwrite"]) == 0
    assert all(path.stat().st_mtime_ns != sounds[path] for path in sounds)


def test_rungs_that_are_left_out_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["ladder", str(song(tmp_path / "a.wav")), *QUICK, *FEW, "--rung", "R10", "--out", str(tmp_path / "o")]
    assert main(arguments) == 0
    assert "R10 is left out: no trained generator" in capsys.readouterr().out
    assert main([*arguments, "--json"]) == 0
    assert all(json.loads(line)["codec"] == "audioldm2_tiny" for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no audio to climb the ladder; name files or folders"),
        (["nowhere.wav"], "nowhere.wav does not exist; check the path"),
        (["a.wav", "--rung", "R77"], "unknown rung 'R77'"),
        (["a.wav", "--codec", "nonsense"], "unknown codec 'nonsense'"),
        (["a.wav", "--seconds", "0.2"], "0.20 s are too short for audioldm2_tiny; 0.32 s or more"),
    ],
)
def test_errors_are_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    song(tmp_path / "a.wav")
    codec = [] if "--codec" in arguments else ["--codec", "audioldm2_tiny"]
    assert main(["ladder", *arguments, *codec, "--device", "cpu"]) == 2
    shown = capsys.readouterr().err.strip().splitlines()
    assert shown[-1].startswith("error: ")
    assert message in shown[-1]
