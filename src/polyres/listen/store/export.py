"""Tables for other programs: CSV, JSON, JSON lines and Parquet, every column explained."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from polyres.core.errors import ConfigError, InputError
from polyres.core.whole_files import write_whole
from polyres.listen.analysis.ratings import SIMULATED_PREFIX, Rating
from polyres.listen.design.files import PAIR_KINDS, ListenStudy
from polyres.listen.server.plan import Planner
from polyres.listen.store.database import Listener, Store

FORMATS = ("csv", "json", "jsonl", "parquet")
COLUMNS_NAME = "COLUMNS.md"
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")  # noqa: RUF001  (full-width ones count too)
_PLAIN = re.compile(r"-[A-Za-z0-9_.-]*")

Row = Mapping[str, Any]

_LISTENER = "who: a random name that is part of no link by itself; the same in all tables"
COLUMNS: dict[str, dict[str, str]] = {
    "ratings": {
        "listener": _LISTENER + "; simulated ones begin with simulated-",
        "session": "which visit; a reload continues it",
        "page": "id of the page",
        "repeat": "0 for the first time that the page comes, then 1, 2, …",
        "condition": "id of what was rated; of a pair both ids in alphabetical order, joined by +",
        "attribute": "what was asked",
        "value": "0–100 (mushra, bs2132), 1–5 (bs1116), 1–number of labels (acr, dcr, likert), 1 right, 0 wrong (abx), "
        "1 first id, 0 second, 0.5 tie (ab)",
        "kind": "of the test",
        "answer": "abx, ab: the chosen condition id or tie",
        "started_at": "when the trial was first shown, by the listener's clock, ISO 8601 in UTC as all times",
        "finished_at": "when this rating was changed last, by the listener's clock",
        "plays": "how often this sound (of a pair: both) was started or switched to",
        "switches": "how often the trial was switched between sounds",
        "label": "name of the condition",
        "role": "system, reference, low_anchor, mid_anchor, interference_anchor, pair, or training",
        "item": "what was heard; pages of one item share their random effect",
        "track": "song",
        "stem": "stem",
        "start_s": "where the excerpt begins in the song, seconds",
        "simulated": "whether this listener does not exist",
        "training": "whether the page was for training; such ratings count for nothing",
        "trial": "place of the page in this listener's test from 0, training included; empty if not from a database",
        "duration_s": "from the first sight of the trial to the last change of this rating, seconds",
        "received_at": "when the server got the last change; empty if not from a database",
    },
    "listeners": {
        "listener": _LISTENER,
        "number": "place in the balanced design from 0; empty once withdrawn",
        "language": "of the page",
        "created_at": "first visit, by the server's clock as all times of this table",
        "consented_at": "when the consent was given; empty if it was not, or not asked for",
        "finished_at": "end of the test; empty before",
        "withdrawn_at": "when the listener withdrew; nothing else is kept of one who did",
        "seen_at": "last visit or answer",
        "duration_s": "from the first visit to the end, pauses included, seconds",
        "instructions_read": "whether the instructions were left by their button",
        "level_set": "whether the level check was done",
        "headphones_passed": "whether the headphone check was passed; empty if not done",
        "headphones_correct": "right answers of its last attempt",
        "headphones_trials": "questions of that attempt",
        "headphones_attempts": "how often it was tried",
        "trials_done": "pages left behind, training included",
        "ratings": "ratings that count",
    },
    "answers": {
        "listener": _LISTENER,
        "name": "of the question",
        "question": "what the listener read",
        "type": "text, number or choice; free texts may say who somebody is: read them before passing them on",
        "value": "the answer",
        "received_at": "when the server got it",
    },
    "events": {
        "listener": _LISTENER,
        "at": "when, by the listener's clock",
        "trial": "place of the page in this listener's test",
        "page": "id of the page",
        "what": "open, play, pause, switch, loop, rate, leave, hide, show or resume",
        "slot": "which sound was active: its place on the page from 0, x, or reference",
        "condition": "what that was; reference for the open one",
        "seconds": "position in the sound; of a loop its beginning",
        "until": "end of a loop",
    },
}
IDENTITY_COLUMNS = {
    "external_id": "what a recruiting site calls the listener",
    "completion_code": "what the listener was shown at the end",
}
"""Of the administrator's table of listeners alone."""


def export_rows(
    study: ListenStudy, ratings: Sequence[Rating], stored: Mapping[tuple[Any, ...], tuple[int, str]] | None = None
) -> list[dict[str, Any]]:
    """Add condition, page and duration to every rating.

    Args:
        study: the study; pairs get both labels, "first vs second" by their ids.
        ratings: its ratings, those of training pages among them or not.
        stored: key of a rating -> its trial and the time at which the server got it, where known.

    Returns:
        Rows with the columns of `COLUMNS["ratings"]`.

    Raises:
        InputError: if a rating is of another study.
    """
    training = {page.id for page in study.training}
    rows = []
    for rating in ratings:
        page = study.page(rating.page)
        conditions = [study.condition(name) for name in rating.condition.split("+")]
        role = "pair" if rating.kind in PAIR_KINDS else conditions[0].role
        trial, received_at = (stored or {}).get(rating.key, (None, ""))
        rows.append(
            {
                **rating.to_dict(),
                "label": " vs ".join(condition.label for condition in conditions),
                "role": "training" if page.id in training else role,
                "item": page.item,
                "track": page.track,
                "stem": page.stem,
                "start_s": page.start_s,
                "simulated": rating.listener.startswith(SIMULATED_PREFIX),
                "training": page.id in training,
                "trial": trial,
                "duration_s": seconds_between(rating.started_at, rating.finished_at),
                "received_at": received_at,
            }
        )
    return rows


def seconds_between(start: str, end: str) -> float | None:
    """Return the seconds from one ISO 8601 time to another; None if one is missing or no time."""
    try:
        return round((datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds(), 3)
    except (ValueError, TypeError):
        return None


def write_table(name: str, rows: Sequence[Row], path: Path) -> Path:
    """Write a table in the format that the name of the file says.

    Args:
        name: of the table, a key of `COLUMNS`.
        path: ends in .csv, .json, .jsonl or .parquet.

    Raises:
        ConfigError: for another ending, or Parquet without pyarrow.
        OutputError: when it cannot be written.
    """
    ending = path.suffix.lower().removeprefix(".")
    if ending not in FORMATS:
        raise ConfigError(f"{path.name} has no known ending; choose .{', .'.join(FORMATS)}")
    if ending == "csv":
        return write_whole(path, to_csv(rows, list(COLUMNS[name])))
    if ending == "json":
        return write_whole(path, json.dumps(list(rows), indent=1, ensure_ascii=False) + "\n")
    if ending == "jsonl":
        return write_whole(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    return write_whole(path, _parquet(rows, list(COLUMNS[name])))


def to_csv(rows: Iterable[Row], columns: Sequence[str]) -> str:
    """Write rows as CSV; texts that a spreadsheet would run as a formula get a quote in front."""
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _harmless(value) for name, value in row.items()} for row in rows)
    return file.getvalue()


def columns_page(names: Iterable[str]) -> str:
    """Explain the columns of tables as Markdown. `names`: of the tables, keys of `COLUMNS`."""
    parts = ["# Columns\n\nTimes are ISO 8601 in UTC. No table holds links, tokens, codes or ids of recruiting sites."]
    for name in names:
        lines = [f"| `{column}` | {text} |" for column, text in COLUMNS[name].items()]
        parts.append("\n".join([f"## {name}\n", "| column | what it holds |", "| --- | --- |", *lines]))
    return "\n\n".join(parts) + "\n"


def _harmless(value: Any) -> Any:
    """Ids and numbers stay as they are, so that they are read back the same."""
    if not isinstance(value, str):
        return value
    value = value.replace("\r\n", "\n").replace("\r", "\n")  # readers would take a bare one for the end of the row
    if not value.startswith(_FORMULA_STARTS) or _PLAIN.fullmatch(value):
        return value
    return f"'{value}"


def _parquet(rows: Sequence[Row], columns: Sequence[str]) -> bytes:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow; install it with pip install 'polyres[listen]'") from error
    sink = pyarrow.BufferOutputStream()
    values = {name: [row[name] for row in rows] for name in columns}
    parquet.write_table(pyarrow.table(values), sink)
    return bytes(sink.getvalue().to_pybytes())


_HEADPHONES = ("passed", "correct", "trials", "attempts")


def stored_tables(study: ListenStudy, store: Store, training: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of `polyres.listen.store.export.COLUMNS`: ratings, listeners, answers and events.

    Args:
        training: with the ratings of training pages.

    Raises:
        InputError: if the database is of another study.
    """
    stamped = store.stamped_ratings()
    kept = {sent.rating.key: (sent.trial, received_at) for sent, received_at in stamped}
    ratings = [sent.rating for sent, _ in stamped if training or not sent.training]
    questions = {question.name: question for question in study.questionnaire}
    answers = []
    for answer in store.answers():
        question = questions.get(answer["name"])
        about = {"question": question.question if question else "", "type": question.type if question else "text"}
        answers.append({name: {**answer, **about}[name] for name in COLUMNS["answers"]})
    return {
        "ratings": export_rows(study, ratings, kept),
        "listeners": listener_rows(store),
        "answers": answers,
        "events": _event_rows(study, store),
    }


def listener_rows(store: Store) -> list[dict[str, Any]]:
    """Return one row per listener: times, consent and checks, without names and codes."""
    counts = store.rating_counts()
    rows = []
    for listener in store.all_listeners():
        checks, headphones = listener.checks, listener.checks.get("headphones", {})
        rows.append(
            {
                "listener": listener.id,
                "number": listener.number,
                "language": listener.language,
                "created_at": listener.created_at,
                "consented_at": listener.consented_at,
                "finished_at": listener.finished_at,
                "withdrawn_at": listener.withdrawn_at,
                "seen_at": listener.seen_at,
                "duration_s": seconds_between(listener.created_at, listener.finished_at),
                "instructions_read": bool(checks.get("instructions_read")),
                "level_set": bool(checks.get("level_set")),
                **{f"headphones_{name}": headphones.get(name) for name in _HEADPHONES},
                "trials_done": checks.get("position", 0),
                "ratings": counts.get(listener.id, 0),
            }
        )
    return rows


def write_tables(tables: dict[str, list[dict[str, Any]]], folder: Path, formats: Sequence[str]) -> list[Path]:
    """Write tables and a description of their columns into a folder.

    Args:
        tables: name -> rows.
        formats: of `polyres.listen.store.export.FORMATS`.

    Raises:
        ConfigError: for an unknown format, or Parquet without pyarrow.
        OutputError: when a file cannot be written.
    """
    files = [write_table(name, rows, folder / f"{name}.{end}") for name, rows in tables.items() for end in formats]
    return [*files, write_whole(folder / COLUMNS_NAME, columns_page(tables))]


def _event_rows(study: ListenStudy, store: Store) -> list[dict[str, Any]]:
    """Add to every event the sound it belongs to; the database stores only its position."""
    planner = Planner(study)
    listeners = {listener.id: listener for listener in store.all_listeners()}
    rows = []
    for event in store.events():
        page, condition = _heard(planner, listeners[event["listener"]], event)
        values = {**event, "page": page, "condition": condition}
        rows.append({name: values.get(name) for name in COLUMNS["events"]})
    return rows


def _heard(planner: Planner, listener: Listener, event: dict[str, Any]) -> tuple[str, str]:
    try:
        page = planner.trial(listener, event["trial"]).page
    except InputError:
        return "", ""  # pages may send events of trials that do not exist
    try:
        return planner.sound(listener, event["trial"], event.get("slot", ""))
    except InputError:
        return page, ""
