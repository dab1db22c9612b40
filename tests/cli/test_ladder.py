from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.codec.networks import build_network, save_network

QUICK = ["--codec", "audioldm2_tiny", "--seconds", "0.5", "--device", "cpu"]
FEW = [part for name in ("R0", "R1", "R5", "R6") for part in ("--rung", name)]


def song(path: Path, seed: int = 5) -> Path:
    t = np.arange(8000) / 16000
    noise = np.random.default_rng(seed).standard_normal(len(t))
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 440 * t) + 0.05 * noise, 16000)
    return path


@pytest.mark.slow
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
    assert page.count("<audio") == page.count("<img src=") == 3 * 6
    assert page.count("<img class='chart'") == 1
    assert "mel of the golden file" in page
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


@pytest.mark.slow
def test_a_rung_without_weights_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("polyres.codec.staged.config.EMBEDDED_BAND_FILE", tmp_path / "none.safetensors")
    few = ["--rung", "R6", "--rung", "R10", "--out", str(tmp_path / "o")]
    arguments = ["ladder", str(song(tmp_path / "a.wav")), *QUICK, *few]
    assert main(arguments) == 0
    assert "R10 is left out: no weights" in capsys.readouterr().out
    assert "| R10 | bandwidth extension (no weights) |" in (tmp_path / "o" / "ladder.md").read_text()
    assert main([*arguments, "--json"]) == 0
    assert all(json.loads(line)["codec"] == "audioldm2_tiny" for line in capsys.readouterr().out.splitlines())


@pytest.mark.parametrize("embedded", [False, True])
def test_a_rung_appears_with_its_weights(embedded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network("bandwidth", {"width": 4, "depth": 1, "n_fft": 256})
    weights = save_network("bandwidth", network, tmp_path / "band.safetensors")
    given = [] if embedded else ["--bandwidth", str(weights)]
    monkeypatch.setattr("polyres.codec.staged.config.EMBEDDED_BAND_FILE", weights if embedded else tmp_path / "none")
    out = tmp_path / "o"
    arguments = ["ladder", str(song(tmp_path / "a.wav")), *QUICK, "--rung", "R6", "--rung", "R10", *given]
    assert main([*arguments, "--out", str(out)]) == 0
    rows = [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]
    assert {row["take"] for row in rows if row["rung"] == "R10"} == {"without", "extended"}
    assert (out / "files" / "01_a" / "R10_extended.wav").is_file()


@pytest.mark.slow
def test_what_the_default_codec_made_itself_passes_nearly_unharmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    t = np.arange(5 * 16000) / 16000
    tones = [
        np.sin(2 * np.pi * hz * t * (1 + 0.001 * np.sin(5 * t))) / n for n, hz in enumerate((220, 440, 661, 880), 1)
    ]
    noise = np.random.default_rng(0).standard_normal(len(t))
    soundfile.write(tmp_path / "a.wav", 0.2 * sum(tones) * (1 + np.sin(9 * t)) / 2 + 0.01 * noise, 16000)
    few = ["--rung", "R0", "--rung", "R6", "--device", "cpu", "--seconds", "5"]
    first = ["ladder", str(tmp_path / "a.wav"), *few, "--out", str(tmp_path / "one")]
    assert main(first) == 0
    made = tmp_path / "one" / "files" / "01_a" / "R6.wav"
    capsys.readouterr()
    assert main(["ladder", str(tmp_path / "a.wav"), *few, "--golden", str(made), "--out", str(tmp_path / "two")]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("golden file")]
    assert "passes nearly unharmed" in line


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


def test_the_band_above_is_made_by_the_weights_of_the_package(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    noise = 0.1 * np.random.default_rng(1).standard_normal(22050)
    soundfile.write(tmp_path / "a.wav", noise, 44100)
    assert (
        main(["ladder", str(tmp_path / "a.wav"), *QUICK, "--rung", "R10", "--out", str(tmp_path / "o"), "--json"]) == 0
    )
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    distance = {row["take"]: row["value"] for row in rows if row["rung"] == "R10" and row["metric"] == "lsd"}
    assert distance["extended"] < distance["without"] - 1
