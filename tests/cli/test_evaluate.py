"""`polyres evaluate` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main

SOURCES = ("drums", "bass", "other", "vocals")


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
    assert "| silence | all | nsdr | 0.00 | 0.00 | 0.00 | 0.00 | 0.00 | 2 | - |" in shown.out
    assert "4/4  silence  all  two" in shown.err
    assert main([*words, "--against", "silence"]) == 0
    assert "| share | all | nsdr | +1.2" in capsys.readouterr().out
    assert main([*words, "--json"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(rows) == 2 * 2 * 4
    assert len((out / "scores.jsonl").read_text().splitlines()) == 16


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ([], "no songs to score on; give --data DIR"),
        (["--data", "{data}"], "nothing to score; name a model"),
        (["share", "--data", "{empty}"], "no tracks in"),
        (["share", "--data", "{data}", "--metrics", "sdrr"], "unknown metric 'sdrr'; did you mean"),
        (["share", "--data", "{data}", "--metrics", ","], "no metrics; name at least one"),
        (["share", "--data", "{data}", "--average", "mode"], "average 'mode' is not known"),
        (["share", "--data", "{data}", "--layout", "stem"], "unknown layout 'stem'; did you mean 'stems'"),
        (["nodel", "--data", "{data}"], "nodel"),
        (["--estimates", "{empty}", "--data", "{data}"], "no estimate of 'drums' in"),
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
