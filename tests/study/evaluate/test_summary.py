"""Tables of scores."""

from __future__ import annotations

import math

import pytest

from polyres.core.errors import InputError, UnknownNameError
from polyres.metrics.aggregate import bootstrap_interval
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.evaluate.summary import markdown, shown_lines, summarise


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


@pytest.mark.parametrize(("method", "bass"), [("median_of_medians", 2.0), ("mean_of_medians", 4.0)])
def test_averages_over_tracks_then_over_stems(method: str, bass: float) -> None:
    (line,) = summarise(ROWS, ("bass", "vocals"), method)
    assert line.by_source == {"bass": pytest.approx(bass), "vocals": 5.0}
    assert line.overall == pytest.approx((bass + 5.0) / 2)
    assert line.tracks == 3
    assert line.invalid_share == pytest.approx(14 / 50)


def test_missing_cells_are_dashes() -> None:
    (line,) = summarise([row("1", "bass", 1.0)], ("bass", "vocals"))
    assert math.isnan(line.by_source["vocals"])
    assert line.invalid_share is None
    text = markdown([line], ("bass", "vocals"))
    assert text.splitlines()[-1] == "| m | all | SDR | 1.00 | - | 1.00 | - | 1 | - |"
    assert {text_line.count("|") for text_line in text.splitlines()} == {10}


def test_models_and_metrics_stay_apart() -> None:
    rows = [row("1", "bass", 1.0), row("1", "bass", 3.0, model="n"), row("1", "bass", 4.0, metric="nSDR")]
    assert [(line.model, line.metric, line.overall) for line in summarise(rows, ("bass",))] == [
        ("m", "SDR", 1.0),
        ("n", "SDR", 3.0),
        ("m", "nSDR", 4.0),
    ]


def test_the_mean_is_over_windows_too() -> None:
    rows = [row(str(n), "bass", 1.0, frames=3, frames_invalid=0, window_mean=2.0 + n) for n in range(3)]
    assert summarise(rows, ("bass",), "mean")[0].overall == pytest.approx(3.0)
    assert summarise(rows, ("bass",), "mean_of_medians")[0].overall == 1.0
    whole = [row("1", "bass", 4.0), row("2", "bass", None)]
    assert summarise(whole, ("bass",), "mean")[0].overall == 4.0


def test_unusable_averages_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown aggregation 'median'"):
        summarise(ROWS, ("bass",), "median")
    with pytest.raises(InputError, match=r"scores of m hold no means over windows; score again into another --out"):
        summarise(ROWS, ("bass",), "mean")


def test_intervals_are_over_tracks() -> None:
    values = [1.0, 4.0, 2.0, 8.0, 5.0, 7.0, 3.0, 3.5]
    rows = [
        row(str(n), source, value + shift) for n, value in enumerate(values) for source, shift in (("a", 0), ("b", 2))
    ]
    (line,) = summarise(rows, ("a", "b", "c"), "mean_of_medians")
    low, high = bootstrap_interval(values, "mean", seed=1)
    assert line.intervals["a"] == pytest.approx((low, high), abs=0.15)
    # Both stems move together, so their mean is as uncertain as each of them.
    assert line.interval == pytest.approx((low + 1, high + 1), abs=0.15)
    assert math.isnan(line.intervals["c"][0])
    assert "| 4.19 (" in markdown([line], ("a", "b", "c"), intervals=True)
    assert markdown([line], ("a", "b", "c")).splitlines()[-1].split(" | ")[3:6] == ["4.19", "6.19", "-"]


def test_coalitions_are_not_shown() -> None:
    rows = [
        row("1", "bass", 1.0, part=part) for part in ("all", "none", "with 1 2", "without 1", "only 1", "shapley 1")
    ]
    parts = [line.part for line in shown_lines(summarise(rows, ("bass",)))]
    assert parts == ["all", "without 1", "only 1", "shapley 1"]


def test_samples_are_small_numbers() -> None:
    (line,) = summarise([row("1", "bass", 0.01234, metric="l1", unit="sample")], ("bass",))
    assert "| m | all | l1 | 0.0123 | 0.0123 | - |" in markdown([line], ("bass",))
