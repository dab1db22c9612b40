"""Metrics against ears: perfect, opposite and unrelated ones."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from scipy import stats

from polyres.cli.main import main
from polyres.core.errors import ConfigError, InputError
from polyres.listen.analysis.metrics_against_ratings import (
    correlate,
    metric_names,
    read_metric_rows,
    score_excerpts,
    write_scores,
)
from polyres.listen.analysis.statistics import Scores, scores_of
from polyres.listen.design.files import ListenStudy, load_study, save_study
from tests.listen.studies import a_study, some_ratings

LABELS = {"c0": "good", "c1": "fair"}


def rows_of(study: ListenStudy, scores: Scores, metric: str, change: Any) -> list[dict[str, Any]]:
    return [
        {
            "model": label,
            "track": page.track,
            "source": page.stem,
            "metric": metric,
            "value": change(float(scores.of(condition)[:, number].mean()), number),
        }
        for condition, label in LABELS.items()
        for number, page in enumerate(study.pages)
    ]


def test_metrics_are_ranked_by_how_close_they_come() -> None:
    study = a_study()
    scores = scores_of(study, some_ratings(study, 6), "quality")
    luck = np.random.default_rng(0).normal(size=6)
    rows = [
        *rows_of(study, scores, "luck", lambda value, number: luck[number]),
        *rows_of(study, scores, "opposite", lambda value, number: -(value**3)),
        *rows_of(study, scores, "offset", lambda value, number: value + 1000 * luck[number]),
    ]
    lines = {line.metric: line for line in correlate(study, scores, rows, seed=0, resamples=200)}
    assert next(iter(lines)) == "opposite"
    assert (lines["opposite"].spearman, lines["opposite"].kendall) == pytest.approx((-1.0, -1.0))
    assert (lines["opposite"].low, lines["opposite"].high) == pytest.approx((-1.0, -1.0))
    assert lines["offset"].within == pytest.approx(1.0)
    assert lines["offset"].pearson < 0.9
    points = lines["luck"].values
    expected = stats.spearmanr([point[2] for point in points], [point[3] for point in points]).statistic
    assert lines["luck"].spearman == pytest.approx(expected)
    assert lines["luck"].low < lines["luck"].spearman < lines["luck"].high
    assert math.isnan(lines["luck"].within)
    assert lines["luck"].points == 12


def test_too_few_points_say_nothing() -> None:
    study = a_study(pages=1)
    scores = scores_of(study, some_ratings(study, 3), "quality")
    assert correlate(study, scores, rows_of(study, scores, "m", lambda value, number: value), seed=0) == []


def test_rows_of_other_systems_are_refused() -> None:
    study = a_study()
    scores = scores_of(study, some_ratings(study, 3), "quality")
    rows = rows_of(study, scores, "m", lambda value, number: value)
    with pytest.raises(InputError, match=r"no objective score is of a system \(good, fair\)"):
        correlate(study, scores, [{**row, "model": "x"} for row in rows], seed=0)


def test_rows_are_read_as_evaluate_writes_them(tmp_path: Path) -> None:
    row = {"model": "a", "part": "all", "track": "t", "source": "s", "metric": "sdr", "value": 1.0}
    others = [{**row, "part": "only 4096"}, {**row, "value": None}]
    path = tmp_path / "scores.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in (row, *others)) + "\n\n")
    assert read_metric_rows(path) == [row]
    path.write_text('{"model": 1}')
    with pytest.raises(InputError, match=r"scores.jsonl, line 1: 'metric' is missing"):
        read_metric_rows(path)
    path.write_text("no")
    with pytest.raises(InputError, match=r"scores.jsonl, line 1: no JSON"):
        read_metric_rows(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_metric_rows(tmp_path / "gone.jsonl")


RATE_HZ = 8000


@pytest.fixture
def study(tmp_path: Path) -> ListenStudy:
    """Noise on "good" lies 20 dB below the sound, on "fair" 6 dB, and on every page 1 dB less than before."""
    made = a_study(pages=3).with_values({"sample_rate_hz": RATE_HZ})
    generator = np.random.default_rng(0)
    for number, page in enumerate((*made.training, *made.pages)):
        true = generator.normal(size=(RATE_HZ, 2)) * 0.05
        noise = generator.normal(size=true.shape)
        noise *= np.sqrt((true**2).sum() / (noise**2).sum())
        levels = {"c0": -20.0 - number, "c1": -6.0 - number}
        for condition, name in {**page.audio, "open": page.reference}.items():
            path = tmp_path / str(name)
            path.parent.mkdir(exist_ok=True)
            wave = true + noise * 10 ** (levels[condition] / 20) if condition in levels else true
            soundfile.write(path, wave, RATE_HZ, subtype="FLOAT")
    save_study(made, tmp_path)
    return load_study(tmp_path)


def values(rows: list[dict[str, Any]], metric: str) -> dict[tuple[str, str], float]:
    return {(row["model"], row["item"]): row["value"] for row in rows if row["metric"] == metric}


def test_every_system_is_measured_on_every_excerpt(study: ListenStudy, tmp_path: Path) -> None:
    told: list[str] = []
    rows, _ = score_excerpts(study, tmp_path, ["snr", "sdr"], told.append)
    items = [page.item for page in study.pages]
    assert told == items
    for metric in ("snr", "sdr"):  # one window of a second is the whole excerpt
        expected = {
            (label, item): level + n + 1 for label, level in (("good", 20), ("fair", 6)) for n, item in enumerate(items)
        }
        assert values(rows, metric) == pytest.approx(expected, abs=1e-3)
    assert {row["unit"] for row in rows} == {"dB"}
    assert {(row["track"], row["source"]) for row in rows} == {(page.track, page.stem) for page in study.pages}


def test_each_excerpt_meets_its_own_ratings(study: ListenStudy, tmp_path: Path) -> None:
    """Two excerpts of one song and stem have scores of their own, unlike with the scores of whole songs."""
    pages = [{**page.to_dict(), "track": "song", "stem": "drums"} for page in study.pages]
    one_song = study.with_values({"pages": pages})
    rows = read_metric_rows(write_scores(score_excerpts(one_song, tmp_path, ["snr"])[0], tmp_path / "scores.jsonl"))
    scores = scores_of(one_song, some_ratings(one_song, 6), "quality")
    line = correlate(one_song, scores, rows, seed=0, resamples=100)[0]
    assert line.points == 6
    found = {("good" if condition == "c0" else "fair", item): value for item, condition, _, value in line.values}
    assert found == values(rows, "snr")


def test_without_an_open_reference_the_hidden_one_serves(study: ListenStudy, tmp_path: Path) -> None:
    pages = [{**page.to_dict(), "reference": None} for page in study.pages]
    closed = study.with_values({"kind": "bs2132", "pages": pages, "training": []})
    assert score_excerpts(closed, tmp_path, ["snr"])[0] == score_excerpts(study, tmp_path, ["snr"])[0]
    bare = [{**page, "audio": {name: file for name, file in page["audio"].items() if name != "c2"}} for page in pages]
    with pytest.raises(InputError, match="no page with a reference and a system"):
        score_excerpts(closed.with_values({"pages": bare}), tmp_path, ["snr"])


def test_metrics_that_need_all_sources_are_refused(study: ListenStudy, tmp_path: Path) -> None:
    assert {"nsdr", "si_sdr", "mr_stft", "onset_correlation"} <= set(metric_names())
    with pytest.raises(ConfigError, match="sir needs all sources of a mixture; on excerpts choose sdr, nsdr"):
        score_excerpts(study, tmp_path, ["snr", "sir"])
    with pytest.raises(ConfigError, match="nothing"):
        score_excerpts(study, tmp_path, ["nothing"])


def test_the_command(study: ListenStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "score", str(tmp_path), "--metrics", "snr, mr_stft"]) == 0
    assert "scores.jsonl: 12 scores" in capsys.readouterr().out
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert rows == score_excerpts(study, tmp_path, ["snr", "mr_stft"])[0]
    # Every metric works on one sound.
    everything, _ = score_excerpts(study.with_values({"pages": [study.pages[0].to_dict()]}), tmp_path)
    assert {row["metric"] for row in everything} >= {"sdr", "nsdr", "si_sdr", "snr", "l1", "mr_stft"}


def test_sounds_that_cannot_be_measured_are_told_and_the_others_written(
    study: ListenStudy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second, third = study.pages
    (tmp_path / first.audio["c0"]).unlink()
    (tmp_path / second.audio["c1"]).write_bytes(b"no sound")
    soundfile.write(tmp_path / third.audio["c1"], np.ones((RATE_HZ - 3, 2)) * 0.1, RATE_HZ)
    assert main(["listen", "score", str(tmp_path), "--metrics", "snr"]) == 2
    rows = [json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines()]
    assert {(row["model"], row["item"]) for row in rows} == {
        ("fair", first.item),
        ("good", second.item),
        ("good", third.item),
    }
    problems = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not scored: ")]
    assert [line[12:].partition(": ")[0] for line in problems] == [
        f"good, {first.item}",
        f"fair, {second.item}",
        f"fair, {third.item}",
    ]
    assert "has 7997 samples x 2 at 8000 Hz, its reference 8000 samples x 2 at 8000 Hz" in problems[2]
    for page in study.pages:
        (tmp_path / str(page.reference)).unlink()
    before = (tmp_path / "scores.jsonl").read_bytes()
    assert main(["listen", "score", str(tmp_path), "--metrics", "snr"]) == 2
    assert "no sound of study 'test' can be measured; the first: good" in capsys.readouterr().err
    assert (tmp_path / "scores.jsonl").read_bytes() == before
