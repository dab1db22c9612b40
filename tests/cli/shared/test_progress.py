"""Bars on a terminal, silence elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from polyres.batch.jobs import Job
from polyres.cli.shared.progress import Bars


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
