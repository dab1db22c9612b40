"""Ratings as rows, in files and in databases."""

from __future__ import annotations

import builtins
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from polyres.core.errors import ConfigError, InputError
from polyres.listen.analysis.analyse import analyse
from polyres.listen.analysis.ratings import Rating, RatingCheck, ratings_from
from polyres.listen.design.files import Design, Kind
from polyres.listen.store.database import SentRating, Store
from polyres.listen.store.export import FORMATS, export_rows, write_table
from polyres.listen.store.tables import default_database_url
from tests.listen.studies import a_study, some_ratings

ROW = Rating("l1", "s1", "p1", 0, "c1", "quality", 50.0, "mushra")


def test_a_rating_comes_back_from_plain_values_and_from_text() -> None:
    assert Rating.from_dict(ROW.to_dict()) == ROW
    assert Rating.from_dict({name: str(value) for name, value in ROW.to_dict().items()}) == ROW
    assert ROW.key == ("l1", "s1", "p1", 0, "c1", "quality")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "red"}, "a rating has no 'colour'; it has listener, session"),
        ({"page": None}, "a rating lacks its 'page'"),
        ({"value": "loud"}, "value = 'loud' of a rating is no number"),
        ({"value": float("nan")}, "value = nan of a rating is not finite"),
        ({"kind": "mushroom"}, "kind 'mushroom' of a rating is not known; choose mushra"),
    ],
)
def test_what_is_no_rating_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Rating.from_dict({**ROW.to_dict(), **change})


@pytest.mark.parametrize("ending", FORMATS)
@pytest.mark.parametrize("kind", ["mushra", "ab"])
def test_every_format_comes_back(tmp_path: Path, ending: str, kind: str) -> None:
    study = a_study(kind)  # type: ignore[arg-type]
    ratings = some_ratings(study, 2)
    path = write_table("ratings", export_rows(study, ratings), tmp_path / f"ratings.{ending}")
    assert ratings_from(path) == ratings


def test_rows_say_what_is_what() -> None:
    study = a_study()
    rows = export_rows(study, some_ratings(study, 1))
    reference = next(row for row in rows if row["condition"] == "c2" and row["page"] == "p1")
    expected = {"label": "reference", "role": "reference", "item": "song1/drums", "stem": "drums", "simulated": True}
    assert {name: reference[name] for name in expected} == expected
    assert {row["role"] for row in rows if row["page"] == "p0"} == {"training"}
    pair = export_rows(a_study("ab"), some_ratings(a_study("ab"), 1))[-1]
    assert (pair["role"], pair["label"].count(" vs ")) == ("pair", 1)


def test_other_endings_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ratings.xls has no known ending; choose .csv, .json"):
        write_table("ratings", export_rows(a_study(), [ROW]), tmp_path / "ratings.xls")


def test_a_study_nobody_has_rated_exports_its_columns(tmp_path: Path) -> None:
    path = write_table("ratings", export_rows(a_study(), []), tmp_path / "ratings.csv")
    assert path.read_text().startswith("listener,session,page")
    assert ratings_from(path) == []


def test_the_later_of_two_ratings_counts(tmp_path: Path) -> None:
    path = tmp_path / "ratings.jsonl"
    path.write_text("\n".join(json.dumps(replace(ROW, value=value).to_dict()) for value in (10.0, 20.0)) + "\n\n")
    told: list[str] = []
    assert ratings_from(path, report=told.append) == [replace(ROW, value=20.0)]
    assert told == ["warning: 1 answers of 'l1' are given twice with other values; the later ones count"]


def test_listeners_who_share_a_session_are_kept_and_told(tmp_path: Path) -> None:
    rows = [ROW, replace(ROW, listener="l2", value=10.0), replace(ROW, listener="l3", session="s3")]
    path = tmp_path / "ratings.jsonl"
    path.write_text("".join(json.dumps(row.to_dict()) + "\n" for row in rows))
    told: list[str] = []
    assert ratings_from(path, report=told.append) == rows
    assert told == ["warning: listeners 'l1', 'l2' share session 's1'; all of their answers are kept"]


def test_json_may_hold_the_rows_under_a_name(tmp_path: Path) -> None:
    path = tmp_path / "ratings.json"
    path.write_text(json.dumps({"ratings": [ROW.to_dict()]}))
    assert ratings_from(path) == [ROW]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("gone.csv", None, r"gone.csv is no file of ratings; give .jsonl"),
        ("a.jsonl", "{", r"a.jsonl cannot be read as ratings"),
        ("a.jsonl", "[1]", r"a.jsonl, row 1: list is no rating"),
        ("a.csv", "listener,value\na,1\n", r"a.csv, row 1: a rating lacks its 'session'"),
        ("a.parquet", "no", r"a.parquet cannot be read as ratings"),
        ("a.txt", "hello", r"a.txt holds no ratings; give .jsonl"),
    ],
)
def test_files_without_ratings_are_refused(tmp_path: Path, name: str, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        ratings_from(tmp_path / name)


def test_what_a_server_stored_is_read_by_folder_file_and_address(tmp_path: Path) -> None:
    url = default_database_url(tmp_path)
    store = Store(url)
    store.welcome("l1")
    rating = replace(ROW, session="l1-1", started_at="2026-01-01T00:00:00Z", finished_at="2026-01-01T00:01:00Z")
    store.save_ratings("l1", [SentRating(rating, 0, False, 1)])
    store.close()
    assert ratings_from(tmp_path) == ratings_from(url) == ratings_from(url.partition("///")[2]) == [rating]


def test_missing_libraries_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_table("ratings", export_rows(a_study(), [ROW]), tmp_path / "ratings.parquet")
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "pyarrow" or name == "polyres.listen.store.database":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"Parquet needs pyarrow; install it with pip install 'polyres\[listen\]'"):
        ratings_from(path)
    with pytest.raises(ConfigError, match="Parquet needs pyarrow"):
        write_table("ratings", export_rows(a_study(), [ROW]), tmp_path / "other.parquet")
    with pytest.raises(ConfigError, match=r"a database needs polyres.listen.store.database; install it"):
        ratings_from("sqlite:///x")


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        ("mushra", {"value": 5000.0}, "value 5000 is out of range; give from 0 to 100"),
        ("mushra", {"value": -0.5}, "value -0.5 is out of range; give from 0 to 100"),
        ("acr", {"value": 0.0}, "value 0 is out of range; give a whole number from 1 to 5"),
        ("acr", {"value": 3.5}, "value 3.5 is out of range; give a whole number from 1 to 5"),
        ("abx", {"value": 0.5}, "value 0.5 is out of range; give 0 or 1"),
        ("ab", {"value": 0.5}, "value 0.5 is out of range; give 0 or 1"),
        ("mushra", {"attribute": "beauty"}, "attribute 'beauty' is not asked for; allowed: quality"),
        ("mushra", {"condition": "c9"}, "is not of study 'test'; give the ratings of this study"),
        ("mushra", {"page": "p99"}, "page 'p99', condition 'c."),
        ("mushra", {"kind": "acr"}, "a rating .kind acr, page"),
    ],
)
def test_what_does_not_fit_is_refused(kind: Kind, change: dict[str, Any], message: str) -> None:
    study = a_study(kind)
    ratings = some_ratings(study, 2)
    for rating in ratings:
        RatingCheck(study).check(rating)
    bad = replace(ratings[3], **change)
    with pytest.raises(InputError, match=message):
        RatingCheck(study).check(bad)
    with pytest.raises(InputError, match=message):
        analyse(study, [*ratings, bad])


def test_ties_count_where_the_study_allows_them() -> None:
    study = a_study("ab", design=Design(ties=True))
    rating = replace(some_ratings(study, 1)[0], value=0.5)
    RatingCheck(study).check(rating)
    with pytest.raises(InputError, match=r"give 0 or 0.5 or 1"):
        RatingCheck(study).check(replace(rating, value=0.6))
