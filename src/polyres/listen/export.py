"""Ratings for other programs: CSV, JSON, JSON lines and Parquet, with what each condition and page is."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyres.core.errors import ConfigError
from polyres.core.whole_files import write_whole
from polyres.listen.study_files import PAIR_KINDS, ListenStudy
from polyres.listen.study_ratings import SIMULATED_PREFIX, Rating

FORMATS = ("csv", "json", "jsonl", "parquet")


def export_rows(study: ListenStudy, ratings: Sequence[Rating]) -> list[dict[str, Any]]:
    """Add label, role, item, track, stem, start_s and whether the listener is simulated to every rating.

    Args:
        study: the study; pairs get both labels, "first > second" by their ids.
        ratings: its ratings, training among them (role "training" tells them apart).

    Raises:
        InputError: if a rating is of another study.
    """
    training = {page.id for page in study.training}
    rows = []
    for rating in ratings:
        page = study.page(rating.page)
        conditions = [study.condition(name) for name in rating.condition.split("+")]
        rows.append(
            {
                **rating.to_dict(),
                "label": " vs ".join(condition.label for condition in conditions),
                "role": "training"
                if page.id in training
                else ("pair" if rating.kind in PAIR_KINDS else conditions[0].role),
                "item": page.item,
                "track": page.track,
                "stem": page.stem,
                "start_s": page.start_s,
                "simulated": rating.listener.startswith(SIMULATED_PREFIX),
            }
        )
    return rows


def export_ratings(study: ListenStudy, ratings: Sequence[Rating], path: Path) -> Path:
    """Write ratings in the format that the name of the file says; `ratings_from` reads all of them back.

    Args:
        study: the study.
        ratings: its ratings.
        path: ends in .csv, .json, .jsonl or .parquet.

    Returns:
        The file.

    Raises:
        ConfigError: for another ending, or Parquet without pyarrow.
        InputError: if a rating is of another study.
        OutputError: when it cannot be written.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ConfigError(f"{path.name} has no known ending; choose .{', .'.join(FORMATS)}")
    rows = export_rows(study, ratings)
    writers = {"csv": _csv, "json": _json, "jsonl": _json_lines, "parquet": _parquet}
    return write_whole(path, writers[ending](rows))


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    return list(rows[0]) if rows else list(Rating.__dataclass_fields__)


def _csv(rows: Sequence[dict[str, Any]]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, _columns(rows), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _json(rows: Sequence[dict[str, Any]]) -> bytes:
    return (json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n").encode()


def _json_lines(rows: Sequence[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _parquet(rows: Sequence[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow; install it with pip install 'polyres[listen]'") from error
    sink = pyarrow.BufferOutputStream()
    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), sink)
    return bytes(sink.getvalue().to_pybytes())
