"""Rows of results and their file."""

from __future__ import annotations

import json
import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from polyres.core.errors import InputError, OutputError
from polyres.study.evaluate.rows import RowFile, ScoreRow, number_or_none, row_from, select

ROW = ScoreRow("small", "all", "song", "bass", "nSDR", "dB", 1.25, seed=3)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "scores.jsonl"
    rows = [ROW, replace(ROW, track="größer/é", value=None, frames=7, frames_invalid=2)]
    file = RowFile(path)
    file.append(rows[:1])
    file.append(rows[1:])
    assert RowFile(path).rows == file.rows == rows
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize("cut", [1, 20, 60])
def test_a_line_cut_short_is_written_over(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "scores.jsonl"
    RowFile(path).append([ROW, replace(ROW, source="drums")])
    path.write_bytes(path.read_bytes()[:-cut])
    file = RowFile(path)
    assert file.rows == [ROW]
    file.append([replace(ROW, source="other")])
    assert [row.source for row in RowFile(path).rows] == ["bass", "other"]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "scores.jsonl"
    RowFile(path).append([ROW, ROW])
    lines = path.read_text().splitlines()
    path.write_text("\n".join(["{oops", *lines]) + "\n")
    with pytest.raises(InputError, match=r"line 1 of '.*scores.jsonl' is no row of scores; move the file away"):
        RowFile(path)


def test_what_a_row_need_not_have_may_be_absent() -> None:
    values = {key: value for key, value in vars(ROW).items() if key not in ("window_mean", "frames")}
    assert row_from(values) == ROW


def test_other_json_is_no_row() -> None:
    for value in ({"model": "x"}, [1], {**json.loads(json.dumps(vars(ROW))), "more": 1}):
        with pytest.raises(ValueError, match="not a row"):
            row_from(value)


def test_an_unwritable_place_is_an_error_and_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "scores.jsonl"
    file = RowFile(path)
    file.append([ROW])

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match=r"cannot write '.*scores.jsonl' \(No space left on device\); free space"):
        file.append([ROW])
    monkeypatch.undo()
    assert RowFile(path).rows[0] == ROW
    file.append([replace(ROW, source="vocals")])
    assert [row.source for row in RowFile(path).rows] == ["bass", "vocals"]


def test_numbers_that_json_lacks_become_none() -> None:
    assert [number_or_none(value) for value in (1.5, math.nan, math.inf)] == [1.5, None, math.inf]


def test_infinity_comes_back_from_a_file_that_any_reader_of_json_can_read(tmp_path: Path) -> None:
    rows = [replace(ROW, value=math.inf, window_mean=-math.inf), replace(ROW, track='"value": Infinity', value=None)]
    file = RowFile(tmp_path / "scores.jsonl")
    file.append(rows)
    assert RowFile(file.path).rows == rows

    def refuse(word: str) -> float:
        raise ValueError(word)

    assert [json.loads(line, parse_constant=refuse)["value"] for line in file.path.read_text().splitlines()] == [
        math.inf,
        None,
    ]


def test_select_keeps_one_part() -> None:
    other = replace(ROW, part="only 4096")
    assert select([ROW, other]) == [ROW]
    assert select([ROW, other], "only 4096") == [other]
