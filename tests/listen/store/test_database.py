"""What is acknowledged is kept, once, and in its latest form."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa

from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.listen.analysis.ratings import Rating
from polyres.listen.server.links import MAX_EVENTS_PER_LISTENER
from polyres.listen.store import database as store_module
from polyres.listen.store.database import ClosedError, SentRating, Store, read_ratings
from polyres.listen.store.tables import default_database_url, ratings


@pytest.fixture
def store(tmp_path: Path):
    opened = Store(default_database_url(tmp_path))
    yield opened
    opened.close()


def sent(
    listener: str = "anna", value: float = 50, revision: int = 1, condition: str = "c0", training: bool = False
) -> SentRating:
    rating = Rating(listener, f"{listener}-1", "p0", 0, condition, "quality", value, "mushra", plays=3, switches=2)
    return SentRating(rating, 0, training, revision)


def test_a_rating_comes_back_as_it_was_given(store: Store, tmp_path: Path) -> None:
    store.welcome("anna")
    store.save_ratings("anna", [sent(), sent(condition="c1", training=True)])
    assert store.ratings() == [sent().rating]
    assert read_ratings(tmp_path) == [sent().rating]
    assert len(read_ratings(tmp_path, training=True)) == 2
    assert store.saved_ratings("anna") == [sent(), sent(condition="c1", training=True)]
    assert store.saved_ratings("ben") == []
    assert store.rating_counts() == {"anna": 1}


def test_any_order_and_repetition_ends_in_the_latest_revision() -> None:
    store = Store("sqlite://")
    try:
        store.welcome("anna")
        orders = list(itertools.permutations(range(4)))
        for number, order in enumerate(orders):
            for revision in [*order, *order[:2]]:
                one = sent(value=10 * revision, revision=revision, condition=f"c{number:03d}")
                store.save_ratings("anna", [one])
        assert [kept.rating.value for kept in store.saved_ratings("anna")] == [30] * len(orders)
    finally:
        store.close()


def test_ratings_of_one_call_are_written_all_or_none(store: Store) -> None:
    store.welcome("anna")
    broken = SentRating(Rating("nobody", "s", "p0", 0, "c1", "quality", 1, "mushra"), 0, False, 1)
    with pytest.raises(sa.exc.IntegrityError):
        store.save_ratings("anna", [sent(), broken])
    assert store.ratings() == []


def test_numbers_are_given_in_order_and_those_of_who_left_again(store: Store) -> None:
    assert [store.welcome(name, "P1").number for name in ("anna", "ben", "cleo", "ben")] == [0, 1, 2, 1]
    store.save_ratings("ben", [sent("ben")])
    store.save_answers("ben", {"age": "30"})
    store.save_events("ben", "b1", [{"what": "play"}])
    store.withdraw("ben")
    left = store.listener("ben")
    assert left is not None
    assert left.number is None
    assert left.external_id == ""
    assert (store.ratings(), store.answers(), store.events()) == ([], [], [])
    assert store.welcome("dora").number == 1
    assert store.welcome("ben").withdrawn_at == left.withdrawn_at
    assert [one.id for one in store.all_listeners()] == ["anna", "ben", "cleo", "dora"]


def test_many_at_once_get_different_numbers(store: Store) -> None:
    threads = [threading.Thread(target=store.welcome, args=(f"listener{n}",)) for n in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(one.number or 0 for one in store.all_listeners()) == list(range(40))


def test_the_first_stamp_stays(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.welcome("anna")
    store.consent("anna")
    first = store.listener("anna")
    monkeypatch.setattr(store_module, "now", lambda: "later")
    store.consent("anna")
    store.finish("anna")
    second = store.listener("anna")
    assert first is not None
    assert second is not None
    assert first.consented_at == second.consented_at != ""
    assert second.finished_at == "later"


def test_nothing_is_kept_of_those_who_finished_withdrew_or_never_came(store: Store) -> None:
    for name in ("finished", "withdrawn"):
        store.welcome(name)
    store.finish("finished")
    store.withdraw("withdrawn")
    expected = {"finished": "has finished", "withdrawn": "has withdrawn", "stranger": "not known"}
    for name, text in expected.items():
        with pytest.raises(ClosedError, match=text):
            store.save_ratings(name, [sent(name)])
        with pytest.raises(ClosedError, match=text):
            store.save_answers(name, {"age": "3"})
    for name in ("withdrawn", "stranger"):
        with pytest.raises(ClosedError, match=expected[name]):
            store.save_checks(name, {})
        with pytest.raises(ClosedError, match=expected[name]):
            store.save_events(name, "b", [{}])
    assert store.ratings() == []


def test_checks_add_up_and_answers_replace(store: Store) -> None:
    store.welcome("anna")
    store.save_checks("anna", {"position": 1, "level_set": True})
    store.save_checks("anna", {"position": 2})
    listener = store.listener("anna")
    assert listener is not None
    assert listener.checks == {"position": 2, "level_set": True}
    store.save_answers("anna", {"age": "30", "note": "x"})
    store.save_answers("anna", {"age": "31"})
    found = [(one["listener"], one["name"], one["value"]) for one in store.answers()]
    assert found == [("anna", "age", "31"), ("anna", "note", "x")]
    assert store.answers_of("anna") == {"age": "31", "note": "x"}


def test_a_batch_of_events_is_kept_once_and_no_listener_fills_the_disk(store: Store) -> None:
    store.welcome("anna")
    for _ in range(2):
        store.save_events("anna", "one", [{"what": "play"}, {"what": "pause"}])
    assert store.events() == [{"listener": "anna", "what": "play"}, {"listener": "anna", "what": "pause"}]
    store.save_events("anna", "many", [{}] * (MAX_EVENTS_PER_LISTENER - 2))
    store.save_events("anna", "one more", [{}])
    assert len(store.events()) == MAX_EVENTS_PER_LISTENER


def test_a_database_keeps_to_its_design_once_somebody_has_come(store: Store) -> None:
    assert store.holds_design("first")
    assert store.holds_design("second")
    store.welcome("anna")
    assert store.holds_design("second")
    assert not store.holds_design("third")


def test_sqlite_writes_ahead_and_flushes_every_commit(store: Store) -> None:
    with store._engine.connect() as connection:
        pragmas = [connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")]
    assert pragmas == ["wal", 2]


def test_two_processes_worth_of_stores_agree(tmp_path: Path) -> None:
    url = default_database_url(tmp_path)
    first, second = Store(url), Store(url)
    try:
        assert (first.welcome("anna").number, second.welcome("ben").number, second.welcome("anna").number) == (0, 1, 0)
        second.save_ratings("anna", [sent(value=2, revision=2)])
        first.save_ratings("anna", [sent(value=1, revision=1)])
        assert [rating.value for rating in first.ratings()] == [2]
    finally:
        first.close()
        second.close()


def test_losing_the_race_for_a_row_is_no_error(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process inserts between the look and the insert: on databases without one writer."""
    store.welcome("anna")
    real = sa.Connection.scalar
    raced: list[bool] = []

    def scalar(self: sa.Connection, statement: sa.Select[tuple[int]]) -> object:
        found = real(self, statement)
        if "FROM ratings" in str(statement) and not raced:
            raced.append(True)
            newer = sent(value=9, revision=9)
            row = {**newer.rating.to_dict(), "trial": 0, "training": False, "revision": 9, "received_at": ""}
            self.execute(ratings.insert().values(**row))
        return found

    monkeypatch.setattr(sa.Connection, "scalar", scalar)
    store.save_ratings("anna", [sent(value=1, revision=1)])
    monkeypatch.undo()
    assert raced
    assert [kept.rating.value for kept in store.saved_ratings("anna")] == [9]


def test_a_number_that_is_always_taken_ends_in_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*_: str) -> None:
        raise sa.exc.IntegrityError("taken", {}, Exception("taken"))

    monkeypatch.setattr(store, "_welcome", taken)
    with pytest.raises(ConfigError, match="no number could be given to listener 'anna'"):
        store.welcome("anna")


def test_unusable_databases_are_named(tmp_path: Path) -> None:
    for url in ("no url", "nothing://host/name", "postgresql+nodriver://host/name"):
        with pytest.raises(ConfigError, match="cannot use the database"):
            Store(url)
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder of the database"):
        Store(f"sqlite:///{tmp_path}/file/inside/answers.sqlite3")
    (tmp_path / "folder").mkdir()
    with pytest.raises(OutputError, match="cannot open the database"):
        Store(f"sqlite:///{tmp_path}/folder")
    with pytest.raises(InputError, match="there are no answers in"):
        read_ratings(tmp_path)
