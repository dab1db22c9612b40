from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner

from polyres.cli.synth import register
from polyres.core.errors import ConfigError, InputError


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    made.callback()(lambda: None)
    register(made)
    return made


def test_nothing_to_make_songs_from_is_told(app: typer.Typer, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["synth", str(tmp_path / "out")])
    assert isinstance(result.exception, ConfigError)
    assert "nothing to make songs from; give --midi DIR, --singer DIR or --loops DIR" in str(result.exception)
    assert not (tmp_path / "out").exists()


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


def test_loop_tracks_are_made_and_skipped(app: typer.Typer, tmp_path: Path) -> None:
    (tmp_path / "loops").mkdir()
    for name in ("kick", "snare"):
        soundfile.write(tmp_path / "loops" / f"{name}.wav", 0.5 * np.exp(-np.arange(3000) / 300), 44_100)
    command = ["synth", str(tmp_path / "out"), "--loops", str(tmp_path / "loops"), "--tracks", "1", "--seed", "2"]
    first, second = (CliRunner().invoke(app, command) for _ in range(2))
    assert first.exit_code == second.exit_code == 0
    assert "loops_000: 60 s, drums" in first.output
    assert "1 tracks written" in first.output
    assert "0 tracks written" in second.output
    assert (tmp_path / "out" / "loops_000" / "drums.wav").is_file()
