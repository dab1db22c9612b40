from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.codec.networks import build_network, save_network


def song(path: Path, seconds: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    t = np.arange(round(seconds * 16000)) / 16000
    noise = np.random.default_rng(0).standard_normal(len(t))
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 440 * t) + 0.05 * noise, 16000)
    return path


TINY = ["--codec", "audioldm2_tiny", "--seconds", "0.64", "--steps", "2", "--device", "cpu"]


def test_tuning_writes_sounds_rows_and_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = song(tmp_path / "in" / "a.wav").parent
    song(folder / "b.flac")
    names = ["--enhancer", "contrast", "--enhancer", "gain_match"]
    assert (
        main(["enhance", str(folder), *TINY, *names, "--tune", "--strength", "0.5,1", "--out", str(tmp_path / "o")])
        == 0
    )
    shown = capsys.readouterr().out
    assert "audioldm2_tiny, 2 files" in shown
    assert "contrast" in shown
    assert "* no other that has not seen the original is better" in shown
    assert "silence would beat it" in shown
    rows = [json.loads(line) for line in (tmp_path / "o" / "enhance.jsonl").read_text().splitlines()]
    assert len(rows) == 2 * (1 + 2 * 2)
    assert (tmp_path / "o" / "pareto.png").stat().st_size > 1000
    sounds = sorted(path.name for path in (tmp_path / "o" / "01_a").glob("*.wav"))
    assert sounds == sorted(
        ["original.wav", "codec.wav"] + [f"{n}_{s}.wav" for n in ("contrast", "gain_match") for s in ("0.5", "1")]
    )
    assert soundfile.info(tmp_path / "o" / "01_a" / "codec.wav").frames == 10240


@pytest.mark.slow
def test_whole_files_go_by_windows_and_are_not_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, out = song(tmp_path / "a.wav", 12.0), tmp_path / "o"
    words = ["enhance", str(path), "--codec", "audioldm2_tiny", "--device", "cpu", "--enhancer", "gain_match"]
    assert main([*words, "--whole", "--out", str(out)]) == 0
    sounds = {one.name: one.stat().st_mtime_ns for one in (out / "01_a").glob("*.wav")}
    assert set(sounds) == {"original.wav", "codec.wav", "gain_match_1.wav"}
    assert soundfile.info(out / "01_a" / "codec.wav").frames == 12 * 16000
    rows = (out / "enhance.jsonl").read_text()
    capsys.readouterr()
    assert main([*words, "--whole", "--out", str(out)]) == 0
    assert {one.name: one.stat().st_mtime_ns for one in (out / "01_a").glob("*.wav")} == sounds
    assert (out / "enhance.jsonl").read_text() == rows
    assert main([*words, "--out", str(out)]) == 2
    assert "with other settings; --overwrite makes it again" in capsys.readouterr().err
    assert {one.name: one.stat().st_mtime_ns for one in (out / "01_a").glob("*.wav")} == sounds
    assert main([*words, "--seconds", "11", "--start", "0.5", "--out", str(out), "--overwrite"]) == 0
    assert soundfile.info(out / "01_a" / "codec.wav").frames == 11 * 16000


def test_rows_as_json_and_trained_networks(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = song(tmp_path / "a.wav")
    net = save_network(
        "mel_refiner", build_network("mel_refiner", {"width": 4, "depth": 1}), tmp_path / "r.safetensors"
    )
    arguments = ["--enhancer", "refine", "--network", f"refine={net}", "--json"]
    assert main(["enhance", str(path), *TINY, *arguments]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["enhancer"] for row in rows] == ["codec", "refine"]
    # Before training a refiner changes nothing.
    assert rows[0]["scores"] == rows[1]["scores"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "nothing to enhance; name files or folders with audio"),
        (["none.wav"], "none.wav does not exist; check the path"),
        (["EMPTY"], "no audio files in this folder; name a file or another"),
        (["SONG", "--strength", "much"], "--strength is 'much'; give a number above 0"),
        (["SONG", "--strength", "0"], "--strength is '0'; give a number above 0"),
        (["SONG", "--tune", "--strength", "1"], "--tune sweeps strengths, but --strength is 1"),
        (["SONG", "--network", "learned"], "--network is 'learned'; write ENHANCER=FILE"),
        (["SONG", "--enhancer", "frequncy"], "unknown enhancer 'frequncy'; did you mean 'frequency'"),
        (["SONG", "--enhancer", "learned"], "enhancer 'learned' needs a trained network"),
        (["SONG", "--codec", "audioldm3"], "unknown codec 'audioldm3'; did you mean"),
    ],
)
def test_mistakes_are_told_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"SONG": str(song(tmp_path / "a.wav")), "EMPTY": str(tmp_path / "empty")}
    given = [places.get(word, word) for word in arguments]
    rest = [] if "--codec" in given else TINY
    assert main(["enhance", *given, *rest]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("error:") == 1


def test_a_file_in_the_way_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "o").write_text("")
    assert (
        main(["enhance", str(song(tmp_path / "a.wav")), *TINY, "--enhancer", "noise", "--out", str(tmp_path / "o")])
        == 2
    )
    assert "choose another --out" in capsys.readouterr().err
