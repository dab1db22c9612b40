"""Rows of scores with their origin, kept as JSON lines."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path

from polyres.core.config import read_as
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.json_text import json_value
from polyres.core.whole_files import replaced_atomically, write_whole

_INFINITE = re.compile(r'("(?:value|window_mean)": -?)Infinity')  # quotes within texts are escaped, so no text fits


@dataclass(frozen=True)
class ScoreRow:
    """One score.

    Args:
        model: name of the model or folder of estimates.
        part: "all", or which resolutions listened: "only 4096", "without 4096".
        track: name of the track.
        source: name of the stem.
        metric: name of the metric.
        unit: its unit.
        value: the score over the track; None where it has no value (a stem that the track lacks, no valid window).
        frames: how many windows the value comes from; None for metrics over the whole track.
        frames_invalid: how many more had no value.
        weights_id: 16 hex digits that change with the weights; None for estimates from files.
        fingerprint: of the config of the run that trained the model, if known.
        commit: of the code of that run, if known.
        seed: of that run, if known.
        window_mean: mean over the windows with a value, where `value` is their median; None for metrics over the whole
            track.
    """

    model: str
    part: str
    track: str
    source: str
    metric: str
    unit: str
    value: float | None
    frames: int | None = None
    frames_invalid: int | None = None
    weights_id: str | None = None
    fingerprint: str | None = None
    commit: str | None = None
    seed: int | None = None
    window_mean: float | None = None


class RowFile:
    """JSON lines that grow by whole tracks; a line cut short by a crash is ignored and written over."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[ScoreRow] = []
        self._good_bytes = 0
        if path.exists():
            self._read()

    def _read(self) -> None:
        lines = self.path.read_bytes().splitlines(keepends=True)
        for number, line in enumerate(lines, start=1):
            try:
                row = row_from(json_value(line, special=True))
            except (ValueError, TypeError) as error:
                if number == len(lines):
                    return
                raise InputError(f"line {number} of '{self.path}' is no row of scores; move the file away") from error
            if not line.endswith(b"\n"):
                return
            self.rows.append(row)
            self._good_bytes += len(line)

    def append(self, rows: Sequence[ScoreRow]) -> None:
        """Add rows in one go."""
        text = "".join(f"{row_text(row)}\n" for row in rows)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "r+b" if self.path.exists() else "xb") as file:
                file.truncate(self._good_bytes)
                file.seek(self._good_bytes)
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = error.strerror or error
            raise OutputError(f"cannot write '{self.path}' ({reason}); free space or choose another --out") from error
        self._good_bytes += len(text.encode())
        self.rows.extend(rows)


def row_from(values: object) -> ScoreRow:
    """Read a row from a JSON object; optional fields may be absent."""
    known = {field.name for field in fields(ScoreRow)}
    needed = {field.name for field in fields(ScoreRow) if field.default is MISSING}
    if not isinstance(values, dict) or not needed <= set(values) <= known:
        raise ValueError("not a row of scores")
    return read_as(ScoreRow, values)


def number_or_none(value: float) -> float | None:
    """Return a number as rows keep it: None for NaN."""
    return None if math.isnan(value) else value


def row_text(row: ScoreRow) -> str:
    """Write a row as a line of JSON.

    JSON has no word for infinity, but a number too large for any float reads as it.

    Args:
        row: the row.
    """
    text = json.dumps(asdict(row), ensure_ascii=False)
    return _INFINITE.sub(r"\g<1>1e999", text)


def select(rows: Iterable[ScoreRow], part: str = "all") -> list[ScoreRow]:
    """Return the rows of one part."""
    return [row for row in rows if row.part == part]


METRICS = ("SDR", "SIR", "SAR", "ISR")
_STEP = 1e-5


def track_scores(
    scores: Mapping[str, Sequence[Sequence[float]]], sources: Sequence[str], window_s: float = 1.0, hop_s: float = 1.0
) -> dict[str, object]:
    """Arrange BSSEval scores `[S][frames]` as museval's TrackStore: rounded to 1e-5 dB, NaN where there is none.

    Source: museval 0.4.1, musdb.schema.json and TrackStore.
    """
    targets = []
    for index, source in enumerate(sources):
        count = len(next(iter(scores.values()))[index])
        frames = [
            {
                "time": frame * hop_s,
                "duration": window_s,
                "metrics": {name: _rounded(scores[name][index][frame]) for name in METRICS if name in scores},
            }
            for frame in range(count)
        ]
        targets.append({"name": source, "frames": frames})
    return {"targets": targets}


def _rounded(value: float) -> float:
    return round(round(value / _STEP) * _STEP, 5) if math.isfinite(value) else math.nan


def write_track(path: Path, scores: Mapping[str, object]) -> None:
    """Write the scores of one track atomically; a frame without a value is NaN, as in museval."""
    write_whole(path, json.dumps(scores, indent=2))


def check_pyarrow() -> None:
    """Refuse to start without pyarrow.

    Raises:
        ConfigError: saying how to install it.
    """
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ConfigError(
            "Parquet needs pyarrow; install it with pip install 'polyres[parquet]', or leave out --parquet"
        ) from error


def write_parquet(rows: Sequence[ScoreRow], path: Path) -> None:
    """Write rows as a table with a column per field, in one step; every column may hold nulls.

    Args:
        rows: what to write.
        path: of the file; its folder is made if missing.

    Raises:
        ConfigError: without pyarrow.
        OutputError: when the file cannot be written.
    """
    check_pyarrow()
    import pyarrow
    from pyarrow import parquet

    kinds = {"str": pyarrow.string(), "float": pyarrow.float64(), "int": pyarrow.int64()}
    schema = pyarrow.schema([(field.name, kinds[str(field.type).partition(" ")[0]]) for field in fields(ScoreRow)])
    table = pyarrow.Table.from_pylist([asdict(row) for row in rows], schema=schema)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replaced_atomically(path) as temporary:
            parquet.write_table(table, temporary)
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"cannot write '{path}' ({reason}); free space or choose another --out") from error
