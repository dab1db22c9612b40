from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from polyres.cli.synth import synth
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.synth import songs


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    made.command()(synth)
    return made


def test_wrong_folders_are_told_before_anything_is_written(app: typer.Typer, tmp_path: Path) -> None:
    for option, message in (
        ("--midi", "no MIDI files"),
        ("--singer", "no recordings"),
        ("--loops", "no kick and snare"),
    ):
        result = CliRunner().invoke(app, ["synth", str(tmp_path / "out"), option, str(tmp_path / "nowhere")])
        assert isinstance(result.exception, InputError)
        assert message in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_unusable_places_and_instruments_are_told(
    app: typer.Typer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "bad.sf2").write_text("no bank")
    short = ["--tracks", "1", "--length", "5", "--style", "swing"]
    for arguments, kind, message in (
        (["file/out", "--instruments", "electronic", *short], OutputError, "cannot write"),
        (["out", "--bank", str(tmp_path / "bad.sf2")], InputError, "is not a SoundFont"),
        (["out", "--hours", "0"], ConfigError, "hours = 0.0"),
        (["out", "--length", "1"], ConfigError, "length_s = 1.0"),
        (["out", "--style", "polka"], ConfigError, "unknown style 'polka'"),
        (["out", "--miniature", "--hours", "1"], ConfigError, "--miniature goes with --seed, --tracks and --length"),
    ):
        result = CliRunner().invoke(app, ["synth", str(tmp_path / arguments[0]), *arguments[1:]])
        assert isinstance(result.exception, kind), result.output
        assert message in str(result.exception)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(songs, "read_presets", lambda bank: [1])
    result = CliRunner().invoke(app, ["synth", str(tmp_path / "out"), "--bank", str(tmp_path / "bad.sf2")])
    assert "the program 'fluidsynth' is not installed" in str(result.exception)
    assert not (tmp_path / "out").exists()


def test_loop_tracks_are_made_and_skipped(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "loops").mkdir()
    for name in ("kick", "snare"):
        soundfile.write(tmp_path / "loops" / f"{name}.wav", 0.5 * np.exp(-np.arange(3000) / 300), 44_100)
    command = ["synth", str(tmp_path / "out"), "--loops", str(tmp_path / "loops"), "--tracks", "1", "--seed", "2"]
    first, second = (CliRunner().invoke(app, command) for _ in range(2))
    assert first.exit_code == second.exit_code == 0
    assert "1 tracks written" in first.output
    assert "hours of audio per hour of CPU" in first.output
    assert "0 tracks written" in second.output
    assert "1 were there" in second.output
    assert (tmp_path / "out" / "loops_000" / "drums.wav").is_file()


@pytest.mark.slow
def test_composed_songs_do_not_depend_on_the_jobs(app: typer.Typer, tmp_path: Path) -> None:
    common = ["--hours", "0.0025", "--length", "5", "--instruments", "electronic", "--style", "swing", "--json"]
    one, two = (tmp_path / name for name in ("one", "two"))
    first = CliRunner().invoke(app, ["synth", str(one), *common])
    second = CliRunner().invoke(app, ["synth", str(two), "--jobs", "2", *common])
    assert first.exit_code == second.exit_code == 0, second.output
    facts = json.loads(first.stdout)
    assert facts["tracks_made"] == 2
    assert facts["hours"] == pytest.approx(10 / 3600, abs=1e-5)
    assert facts["hours_per_cpu_hour"] > 1.0
    assert "2 of 2 tracks" in first.stderr
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert files == [path.relative_to(two) for path in sorted(two.rglob("*")) if path.is_file()]
    assert "songs.json" in [path.name for path in files]
    for path in files:
        assert (one / path).read_bytes() == (two / path).read_bytes()


def test_miniatures_are_split(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["synth", str(tmp_path), "--miniature", "--tracks", "2", "--length", "2"])
    assert result.exit_code == 0
    assert sorted(path.parent.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("vocals.wav")) == [
        "train/miniature_00",
        "valid/miniature_01",
    ]
    assert "2 tracks written" in result.output
