"""All that a database holds, as tables without what tells who somebody is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from polyres.core.errors import InputError
from polyres.core.whole_files import write_whole
from polyres.listen.export import COLUMNS, COLUMNS_NAME, columns_page, export_rows, seconds_between, write_table
from polyres.listen.server_plan import Planner
from polyres.listen.store import Listener, Store
from polyres.listen.study_files import ListenStudy

_HEADPHONES = ("passed", "correct", "trials", "attempts")


def stored_tables(study: ListenStudy, store: Store, training: bool = False) -> dict[str, list[dict[str, Any]]]:
    """Return the tables of `polyres.listen.export.COLUMNS`: ratings, listeners, answers and events.

    Args:
        study: the study.
        store: its database.
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
    """Return one row per listener: times, consent and checks, without names and codes.

    Args:
        store: the database.
    """
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
    """Write tables into a folder, and what their columns mean.

    Args:
        tables: name -> rows.
        folder: made if missing.
        formats: of `polyres.listen.export.FORMATS`.

    Returns:
        The files.

    Raises:
        ConfigError: for an unknown format, or Parquet without pyarrow.
        OutputError: when a file cannot be written.
    """
    files = [write_table(name, rows, folder / f"{name}.{end}") for name, rows in tables.items() for end in formats]
    return [*files, write_whole(folder / COLUMNS_NAME, columns_page(tables))]


def _event_rows(study: ListenStudy, store: Store) -> list[dict[str, Any]]:
    """Say of every event which sound it was about; the database knows only its place."""
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
