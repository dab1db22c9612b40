"""Tables of scores."""

from __future__ import annotations

import math

import pytest

from polyres.experiments.rows import ScoreRow
from polyres.experiments.summary import markdown, summarise


def row(track: str, source: str, value: float | None, **more: object) -> ScoreRow:
    values = {"model": "m", "part": "all", "metric": "SDR", "unit": "dB", **more}
    return ScoreRow(track=track, source=source, value=value, **values)  # type: ignore[arg-type]


ROWS = [
    row("1", "bass", 1.0, frames=8, frames_invalid=2),
    row("2", "bass", 2.0, frames=10, frames_invalid=0),
    row("3", "bass", 9.0, frames=10, frames_invalid=0),
    row("1", "vocals", 5.0, frames=8, frames_invalid=2),
    row("2", "vocals", None, frames=0, frames_invalid=10),
]


@pytest.mark.parametrize(("average", "bass"), [("median", 2.0), ("mean", 4.0)])
def test_averages_over_tracks_then_over_stems(average: str, bass: float) -> None:
    (line,) = summarise(ROWS, ("bass", "vocals"), average)  # type: ignore[arg-type]
    assert line.by_source == {"bass": pytest.approx(bass), "vocals": 5.0}
    assert line.overall == pytest.approx((bass + 5.0) / 2)
    assert line.tracks == 3
    assert line.invalid_share == pytest.approx(14 / 50)


def test_missing_cells_are_dashes() -> None:
    (line,) = summarise([row("1", "bass", 1.0)], ("bass", "vocals"))
    assert math.isnan(line.by_source["vocals"])
    assert line.invalid_share is None
    text = markdown([line], ("bass", "vocals"))
    assert text.splitlines()[-1] == "| m | all | SDR | 1.00 | - | 1.00 | 1 | - |"
    assert {text_line.count("|") for text_line in text.splitlines()} == {9}


def test_models_and_metrics_stay_apart() -> None:
    rows = [row("1", "bass", 1.0), row("1", "bass", 3.0, model="n"), row("1", "bass", 4.0, metric="nSDR")]
    assert [(line.model, line.metric, line.overall) for line in summarise(rows, ("bass",))] == [
        ("m", "SDR", 1.0),
        ("n", "SDR", 3.0),
        ("m", "nSDR", 4.0),
    ]
