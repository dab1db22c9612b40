"""Rows as Parquet."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pyarrow import parquet

from polyres.core.errors import ConfigError, OutputError
from polyres.study.evaluate.rows import ScoreRow, write_parquet

ROW = ScoreRow("small", "all", "größer/é", "bass", "nsdr", "dB", 1.25, seed=3)


def test_rows_come_back_as_they_were(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, value=None, frames=7, frames_invalid=2, window_mean=0.5, weights_id="0" * 16)]
    write_parquet(rows, tmp_path / "deep" / "scores.parquet")
    assert parquet.read_table(tmp_path / "deep" / "scores.parquet").to_pylist() == [asdict(row) for row in rows]
    assert [child.name for child in (tmp_path / "deep").iterdir()] == ["scores.parquet"]


def test_columns_have_types_without_any_row(tmp_path: Path) -> None:
    write_parquet([], tmp_path / "scores.parquet")
    schema = parquet.read_schema(tmp_path / "scores.parquet")
    assert {schema.field(name).type for name in ("model", "commit")} == {schema.field("unit").type}
    assert [str(schema.field(name).type) for name in ("unit", "value", "frames", "window_mean")] == [
        *("string", "double", "int64", "double")
    ]


def test_an_unwritable_place_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write '.*scores.parquet' .*; free space or choose another --out"):
        write_parquet([ROW], tmp_path / "file" / "scores.parquet")


def test_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ConfigError, match=r"Parquet needs pyarrow; install it with pip install 'polyres\[parquet\]'"):
        write_parquet([ROW], tmp_path / "scores.parquet")
