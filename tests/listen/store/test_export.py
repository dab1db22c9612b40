"""Everything that listeners gave comes out, in every format, and nothing that names them."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from polyres.cli.main import main
from polyres.core.errors import ConfigError
from polyres.listen.analysis.ratings import ratings_from
from polyres.listen.server.links import SERVER_FOLDER
from polyres.listen.store.export import (
    COLUMNS,
    COLUMNS_NAME,
    FORMATS,
    IDENTITY_COLUMNS,
    columns_page,
    seconds_between,
    to_csv,
    write_table,
)
from tests.listen.served import ADMIN_TOKEN, Client, serving, write_page, write_study

EXTERNAL_ID = "prolific-5f3a"
START, END = "2026-01-01T10:00:00.000Z", "2026-01-01T10:00:12.500Z"


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One who finished, one who withdrew, and what must not come out."""
    folder = tmp_path_factory.mktemp("export") / "study"
    questions = [
        {"name": "age", "question": "How old are you?", "type": "number"},
        {"name": "note", "question": "Anything else?"},
    ]
    changes = {"questionnaire": questions, "consent": "I agree.", "training": [write_page(folder, "t0", 3, True, 0.05)]}
    write_study(folder, pages=1, seconds=0.05, changes=changes)
    with serving(folder) as http:
        client = Client(
            http, http.post("/api/join", json={"external_id": EXTERNAL_ID, "language": "de"}).json()["token"]
        )
        visit = client.visit()
        client.call("POST", "/api/consent")
        headphones = {"correct": 5, "trials": 6, "attempts": 2, "passed": True}
        client.call("PUT", "/api/progress", {"headphones": headphones, "level_set": True, "instructions_read": True})
        client.rate_all(visit, 40)
        client.rate(trial=1, slot=2, value=75, revision=2, started_at=START, finished_at=END, plays=4, switches=7)
        events = [
            {"at": START, "trial": 1, "what": "play", "slot": "2", "seconds": 0.25},
            {"at": START, "trial": 1, "what": "switch", "slot": "reference"},
            {"at": START, "trial": 1, "what": "open", "slot": "9"},
            {"at": START, "trial": 99, "what": "open"},
        ]
        client.call("POST", "/api/events", {"batch": "b", "events": events})
        client.call("PUT", "/api/answers", {"answers": {"age": "31", "note": "=1+1"}})
        code = client.call("POST", "/api/finish").json()["code"]
        gone = Client(http).join()
        gone.visit()
        gone.call("POST", "/api/consent")
        gone.rate(trial=1, slot=0, value=1)
        gone.call("DELETE", "/api/me")
        admin = Client(http, ADMIN_TOKEN).call("GET", "/api/admin/export/listeners.json").json()
    keys = [path.read_text().strip() for path in (folder / SERVER_FOLDER).glob("*_key")]
    secrets = [EXTERNAL_ID, code, client.token, client.token.partition(".")[2], ADMIN_TOKEN, *keys]
    return {"folder": folder, "secrets": secrets, "listener": client.token.partition(".")[0], "admin": admin}


@pytest.fixture(scope="module")
def out(served: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("out") / "tables"
    formats = [part for name in FORMATS for part in ("--format", name)]
    assert main(["listen", "export", str(served["folder"]), "--out", str(folder), *formats]) == 0
    return folder


def read(folder: Path, table: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((folder / f"{table}.json").read_text())
    return rows


def test_every_table_has_the_columns_that_are_explained(out: Path) -> None:
    for table, columns in COLUMNS.items():
        rows = read(out, table)
        assert rows
        assert {tuple(row) for row in rows} == {tuple(columns)}
        with (out / f"{table}.csv").open(newline="") as file:
            assert next(csv.reader(file)) == list(columns)
        kept = parquet.read_table(out / f"{table}.parquet")
        assert kept.column_names == list(columns)
        assert kept.to_pylist() == rows
        lines = (out / f"{table}.jsonl").read_text().splitlines()
        assert [json.loads(line) for line in lines] == rows
        explained = (out / COLUMNS_NAME).read_text()
        assert all(f"| `{column}` |" in explained for column in columns)


def test_nothing_tells_who_somebody_is(out: Path, served: dict[str, Any]) -> None:
    for path in out.iterdir():
        held = path.read_bytes()
        if path.suffix == ".parquet":
            held = json.dumps(parquet.read_table(path).to_pylist()).encode()
        for secret in served["secrets"]:
            assert secret.encode() not in held, (path.name, secret)
    # The administrator, who pays, sees both.
    row = next(row for row in served["admin"] if row["listener"] == served["listener"])
    assert [row[name] for name in IDENTITY_COLUMNS] == served["secrets"][:2]


def test_ratings_say_when_and_how_long(out: Path, served: dict[str, Any]) -> None:
    rows = read(out, "ratings")
    assert len(rows) == 3
    late = next(row for row in rows if row["value"] == 75)
    assert (late["duration_s"], late["plays"], late["switches"], late["trial"]) == (12.5, 4, 7, 1)
    assert late["received_at"] > "2026"
    assert (late["training"], late["listener"]) == (False, served["listener"])
    assert [row["duration_s"] for row in rows if row is not late] == [None, None]
    assert len(ratings_from(out / "ratings.csv")) == len(ratings_from(out / "ratings.parquet")) == 3


def test_listeners_come_with_consent_checks_and_times(out: Path, served: dict[str, Any]) -> None:
    done, gone = sorted(read(out, "listeners"), key=lambda row: row["withdrawn_at"])
    expected = {
        "listener": served["listener"],
        "language": "de",
        "headphones_passed": True,
        "headphones_correct": 5,
        "headphones_trials": 6,
        "headphones_attempts": 2,
        "level_set": True,
        "instructions_read": True,
        "trials_done": 2,
        "ratings": 3,
    }
    assert {name: done[name] for name in expected} == expected
    assert done["created_at"] <= done["consented_at"] <= done["finished_at"]
    assert done["duration_s"] >= 0
    assert (gone["number"], gone["consented_at"], gone["ratings"], gone["headphones_passed"]) == (None, "", 0, None)


def test_answers_come_with_their_questions(out: Path) -> None:
    found = [(row["question"], row["type"], row["value"]) for row in read(out, "answers")]
    assert found == [("How old are you?", "number", "31"), ("Anything else?", "text", "=1+1")]
    assert "'=1+1" in (out / "answers.csv").read_text()  # no formula for a spreadsheet


def test_events_say_what_was_heard(out: Path) -> None:
    rows = read(out, "events")
    heard = next(row["condition"] for row in read(out, "ratings") if row["value"] == 75)
    assert [(row["page"], row["condition"]) for row in rows] == [
        ("p0", heard),
        ("p0", "reference"),
        ("p0", ""),
        ("", ""),
    ]
    assert (rows[0]["seconds"], rows[0]["until"]) == (0.25, None)


def test_one_table_as_one_file(served: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = str(served["folder"])
    path = tmp_path / "answers.csv"
    assert main(["listen", "export", study, "--out", str(path), "--table", "answers"]) == 0
    assert "answers.csv: 2 answers" in capsys.readouterr().out
    trained = tmp_path / "ratings.jsonl"
    assert main(["listen", "export", study, "--out", str(trained), "--training", "--ratings", study]) == 0
    assert "6 ratings" in capsys.readouterr().out
    assert main(["listen", "export", study, "--out", str(tmp_path / "x.csv"), "--ratings", str(trained)]) == 0
    wrong = {
        ("--table", "answers", "--ratings", str(trained)): "files of ratings hold no answers; leave out --ratings",
        ("--table", "people"): "there is no table 'people'; choose ratings, listeners, answers, events",
        ("--out", str(tmp_path / "x.xls")): "x.xls has no known ending; choose .csv",
        ("--out", str(tmp_path / "all"), "--format", "xls"): "ratings.xls has no known ending",
    }
    for options, text in wrong.items():
        capsys.readouterr()
        assert main(["listen", "export", study, "--out", str(path), *options]) == 2
        assert text in capsys.readouterr().err


def test_tables_without_rows_and_with_ids_that_begin_with_a_dash(tmp_path: Path) -> None:
    assert to_csv([], ["a", "b"]) == "a,b\n"
    assert to_csv([{"a": "-x_1", "b": "-1+cmd|' /C calc'!A0"}], ["a", "b"]).splitlines()[1].startswith("-x_1,'-1+cmd")
    assert parquet.read_table(write_table("answers", [], tmp_path / "a.parquet")).column_names == list(
        COLUMNS["answers"]
    )
    with pytest.raises(ConfigError, match=r"a.xls has no known ending"):
        write_table("answers", [], tmp_path / "a.xls")
    assert columns_page(["answers"]).count("## ") == 1


def test_durations() -> None:
    assert seconds_between(START, END) == 12.5
    assert seconds_between("", END) is None
    assert seconds_between(START, "soon") is None
    assert seconds_between("2026-01-01T10:00:00", END) is None


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"])  # noqa: RUF001
def test_no_cell_begins_as_a_formula(start: str) -> None:
    (row,) = csv.DictReader(io.StringIO(to_csv([{"text": f"{start}1+1"}], ["text"]), newline=""))
    assert row["text"] == f"'{start}1+1".replace("\r", "\n")
