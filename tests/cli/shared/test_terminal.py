"""Bars on a terminal, silence elsewhere."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from rich.console import Console

from polyres.batch.jobs import Job
from polyres.cli.shared.terminal import Bars, JsonTracks


def test_no_bars_without_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with Bars(2) as bars, bars.track(Job(Path("a.wav"), Path("out"))) as show:
        show(0.5)
    assert capsys.readouterr() == ("", "")


def test_all_files_move_with_each(monkeypatch: pytest.MonkeyPatch) -> None:
    bars = Bars(2)
    job = Job(Path("[red]" + "x" * 100 + ".wav"), Path("out"))
    with bars.track(job) as show:
        show(0.25)
        assert bars._bars.tasks[0].completed == pytest.approx(0.25)
        label = bars._bars.tasks[1].description
        console = Console(width=200)
        with console.capture() as capture:
            console.print(label)
        assert capture.get().startswith("[red]xxx")
        assert len(capture.get()) < 40
    assert bars._bars.tasks[0].completed == pytest.approx(1.0)
    with pytest.raises(RuntimeError, match="stop"), bars.track(job):
        raise RuntimeError("stop")
    assert bars._bars.tasks[0].completed == pytest.approx(2.0)
    assert len(bars._bars.tasks) == 1


HEAD = {"model": "m", "sources": ["bass"]}


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_line_per_track_and_one_document(capsys: pytest.CaptureFixture[str], count: int) -> None:
    tracks = [{"input": f"{number}, \udcff"} for number in range(count)]
    shown = ""
    with JsonTracks(HEAD, wanted=True) as document:
        for track in tracks:
            document.add(track)
            shown += capsys.readouterr().out
            assert json.loads(shown.splitlines()[-1].lstrip(",")) == track
    shown += capsys.readouterr().out
    assert json.loads(shown) == {**HEAD, "tracks": tracks}


def stopped_by(error: BaseException, *tracks: dict[str, str], known: bool = True) -> None:
    """Print some tracks, then stop."""
    with JsonTracks({"model": "m"}, wanted=True) as document:
        if known:
            document.describe(HEAD)
        for track in tracks:
            document.add(track)
        raise error


def test_an_interruption_ends_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        stopped_by(KeyboardInterrupt(), {"input": "a"})
    assert json.loads(capsys.readouterr().out) == {**HEAD, "tracks": [{"input": "a"}], "interrupted": True}
    with pytest.raises(KeyboardInterrupt):
        stopped_by(KeyboardInterrupt(), known=False)
    assert json.loads(capsys.readouterr().out) == {"model": "m", "tracks": [], "interrupted": True}


def test_a_fault_ends_what_was_begun_and_begins_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="x"):
        stopped_by(ValueError("x"), {"input": "a"})
    assert json.loads(capsys.readouterr().out) == {**HEAD, "tracks": [{"input": "a"}]}
    with pytest.raises(ValueError, match="x"):
        stopped_by(ValueError("x"))
    with JsonTracks(HEAD, wanted=False) as document:
        document.add({"input": "a"})
    assert capsys.readouterr().out == ""
