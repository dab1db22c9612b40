"""`polyres evaluate` as a user types it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from pyarrow import parquet

from polyres.cli.main import main
from polyres.metrics.catalogue import METRICS
from polyres.nn.transformer import TransformerConfig
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.weights import save_separator

SOURCES = ("drums", "bass", "other", "vocals")


Change = Callable[[Path], object]
BROKEN: list[Change] = [
    lambda one: soundfile.write(one / "bass.wav", np.full((66150, 2), np.nan), 44100, "FLOAT"),
    lambda one: (one / "bass.wav").write_bytes(b"no audio"),
]


def write_tracks(root: Path) -> Path:
    for number, name in enumerate(("one", "two")):
        rng = np.random.default_rng(number)
        (root / name).mkdir(parents=True)
        for source in SOURCES:
            soundfile.write(root / name / f"{source}.wav", 0.1 * rng.standard_normal((66150, 2)), 44100)
    return root


def test_a_table_and_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_tracks(tmp_path / "data"), tmp_path / "out"
    words = ["evaluate", "share", "silence", "--data", str(data), "--out", str(out), "--metrics", "nsdr"]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert "| share | all | nsdr | 1.2" in shown.out
    assert "| silence | all | nsdr | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 to 0.00 | 2 | - |" in shown.out
    assert "4/4  silence  all  two" in shown.err
    assert main([*words, "--against", "silence"]) == 0
    assert "| share | all | nsdr | +1.2" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 * 2 * 4
    assert len((out / "scores.jsonl").read_text().splitlines()) == 16


def test_a_reference_that_is_not_scored_is_refused_before_scoring(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_tracks(tmp_path / "data"), tmp_path / "out"
    words = ["evaluate", "share", "silence", "--data", str(data), "--out", str(out), "--metrics", "nsdr"]
    assert main([*words, "--against", "mixture"]) == 2
    said = capsys.readouterr().err
    assert "--against 'mixture' is not among what is scored: share, silence; name one of these" in said
    assert "1/4" not in said
    assert not out.exists()


def test_a_reference_may_be_named_by_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = write_tracks(tmp_path / "data"), write_model(tmp_path)
    words = ["evaluate", model, "silence", "--data", str(data), "--out", str(tmp_path / "out"), "--metrics", "nsdr"]
    assert main([*words, "--against", model, "--device", "cpu"]) == 0
    assert "| silence | all | nsdr | " in capsys.readouterr().out


def test_runs_of_a_study_have_the_names_of_its_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = write_tracks(tmp_path / "data"), Path(write_model(tmp_path))
    runs = [tmp_path / arm / "seed42" for arm in ("n", "nn")]
    for run in runs:
        run.mkdir(parents=True)
        shutil.copy(model, run / "best.safetensors")
    words = ["evaluate", *map(str, runs), "--data", str(data), "--out", str(tmp_path / "out"), "--metrics", "nsdr"]
    assert main([*words, "--against", str(runs[0]), "--device", "cpu"]) == 0
    assert "| nn/seed42 | all | nsdr | +0.00 |" in capsys.readouterr().out


def write_model(path: Path) -> str:
    config = SeparatorConfig(
        n_fft=(512, 1024),
        channels=4,
        segment_samples=44100,
        head="mask",
        wave_branch=False,
        transformer=TransformerConfig(kind="none"),
    )
    return str(save_separator(Separator(config), path / "tiny.safetensors"))


def test_resolutions_one_by_one_and_their_shapley_values(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, model = write_tracks(tmp_path / "data"), write_model(tmp_path)
    words = ["evaluate", model, "--data", str(data), "--out", str(tmp_path / "out"), "--metrics", "nsdr"]
    assert main([*words, "--shapley", "--parquet", "--intervals", "--workers", "2", "--device", "cpu"]) == 0
    shown = capsys.readouterr()
    lines = [line.split(" | ")[1] for line in shown.out.splitlines() if line.startswith("| tiny")]
    assert lines == ["all", "only 512", "only 1024", "shapley 512", "shapley 1024"]
    assert "8/8  tiny  none  two" in shown.err
    assert "median of medians over tracks" in shown.out
    assert (tmp_path / "out" / "tables.md").read_text() == shown.out
    table = parquet.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert len(table) == 2 * 4 * 6
    assert len((tmp_path / "out" / "scores.jsonl").read_text().splitlines()) == len(table)
    assert main([*words, "--parts", "--against", "tiny"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "p Wilcoxon" in said.out


def test_all_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write_tracks(tmp_path / "data"), tmp_path / "out"
    assert main(["evaluate", "share", "--data", str(data), "--out", str(out), "--metrics", "all"]) == 0
    found = {line.split(" | ")[2] for line in capsys.readouterr().out.splitlines() if line.startswith("| share")}
    assert found == set(METRICS.names())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (lambda one: (one / "bass.wav").unlink(), "no estimate of 'bass' in"),
        (lambda one: soundfile.write(one / "bass.wav", np.zeros((72000, 2)), 48000), "is at 48000 Hz"),
        (lambda one: [soundfile.write(path, np.zeros((50000, 2)), 44100) for path in one.iterdir()], "has 50000 samp"),
        (lambda one: [path.unlink() for path in one.iterdir()], "no estimate of 'drums' in"),
        *((broken, "bass.wav") for broken in BROKEN),
    ],
)
def test_unusable_estimates_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change, text: str
) -> None:
    data, made = write_tracks(tmp_path / "data"), write_tracks(tmp_path / "made")
    change(made / "one")
    assert main(["evaluate", "--estimates", str(made), "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert_told(capsys.readouterr().err, text, tmp_path / "out")


def test_models_and_folders_that_cannot_be_opened_do_not_stop_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_tracks(tmp_path / "data"), tmp_path / "out"
    (tmp_path / "half.safetensors").write_bytes(b"{")
    words = ["evaluate", "nothing", str(tmp_path / "half.safetensors"), "--data", str(data), "--out", str(out)]
    words += ["--metrics", "nsdr", "--estimates", str(tmp_path / "missing")]
    assert main([*words, "silence", "--estimates", str(data)]) == 2
    said = capsys.readouterr().err.splitlines()
    wrong = [line for line in said if line.startswith("not scored: ")]
    assert [name in line for name, line in zip(("'nothing'", "half", "missing"), wrong, strict=True)] == [True] * 3
    assert said[-1].startswith("error: 3 of 7 could not be scored")
    assert {json.loads(row)["model"] for row in (out / "scores.jsonl").read_text().splitlines()} == {"silence", "data"}
    assert main(words) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: no folder ")


def assert_told(said: str, text: str, out: Path) -> None:
    """One line for the track that cannot be scored; the other one is."""
    (line,) = [line for line in said.splitlines() if line.startswith("not scored: ")]
    assert text in line
    assert f"error: 1 of 2 could not be scored, as told above; mend them and run this again; 1 is in {out}" in said
    assert {json.loads(row)["track"] for row in (out / "scores.jsonl").read_text().splitlines()} == {"two"}


@pytest.mark.parametrize("change", BROKEN)
def test_unusable_references_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str], change: Change) -> None:
    data = write_tracks(tmp_path / "data")
    change(data / "one")
    assert main(["evaluate", "share", "--data", str(data), "--out", str(tmp_path / "out")]) == 2
    assert_told(capsys.readouterr().err, "bass.wav", tmp_path / "out")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no songs to score on; give --data DIR"),
        (["--data", "{data}"], "nothing to score; name a model"),
        (["share", "--data", "{empty}"], "no tracks in"),
        (["share", "--data", "{data}", "--metrics", "sdrr"], "unknown metric 'sdrr'; did you mean"),
        (["share", "--data", "{data}", "--metrics", ","], "no metrics; name at least one"),
        (["share", "--data", "{data}", "--average", "mode"], "unknown aggregation 'mode'; known: median_of_medians"),
        (["share", "--data", "{data}", "--layout", "stem"], "unknown layout 'stem'; did you mean 'stems'"),
        (["nodel", "--data", "{data}"], "nodel"),
        (["--estimates", "{gone}", "--data", "{data}"], "gone"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"data": str(write_tracks(tmp_path / "data")), "empty": str(tmp_path / "empty"), "gone": "/nowhere/gone"}
    status = main(["evaluate", *(word.format(**places) for word in words), "--out", str(tmp_path / "out")])
    error = capsys.readouterr().err.strip()
    assert status == 2
    assert text in error
    assert error.startswith("error: ")
    assert "\n" not in error
    assert not (tmp_path / "out").exists()
