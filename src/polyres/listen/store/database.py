"""Store listeners' answers in a database: committed at once, idempotent; and read them from outside the server."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection
from sqlalchemy.exc import IntegrityError

from polyres.core.errors import ConfigError, InputError
from polyres.listen.analysis.ratings import Rating, RatingCheck, merged, ratings_from
from polyres.listen.analysis.simulate import SIMULATED_NAME
from polyres.listen.design.files import ListenStudy
from polyres.listen.server.links import MAX_EVENTS_PER_LISTENER
from polyres.listen.store.tables import (
    IMMEDIATE,
    answers,
    default_database_url,
    event_batches,
    facts,
    listeners,
    open_engine,
    ratings,
)

_TRIES = 20
_DESIGN = "design"


class ClosedError(InputError):
    """The listener has finished or withdrawn."""


@dataclass(frozen=True)
class Listener:
    """One listener."""

    id: str  # random, known to this listener alone
    number: int | None  # position in the design from 0; None once withdrawn
    external_id: str  # what a recruiting site calls the listener; not checked
    language: str  # of the page
    created_at: str  # first visit, ISO 8601 in UTC, as all times
    consented_at: str  # empty before
    finished_at: str  # empty before
    withdrawn_at: str  # empty before; afterwards nothing else of the listener is kept
    seen_at: str  # last visit or answer
    checks: dict[str, Any]  # results of the headphone and level checks

    @property
    def session(self) -> str:
        """The name of the listener's only session; a reload continues it."""
        return f"{self.id}-1"


@dataclass(frozen=True)
class SentRating:
    """A rating with fields for the server."""

    rating: Rating  # what is kept for the analysis
    trial: int  # its index in the listener's plan
    training: bool  # whether it counts for nothing
    revision: int  # number of the change; a lower one never replaces a higher one


def now() -> str:
    """Return the time, ISO 8601 in UTC to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class Store:
    """The database of one study; safe to use from many threads, and from many processes.

    Every method that writes returns only after its transaction is committed.
    """

    def __init__(self, url: str) -> None:
        self._engine = open_engine(url)
        self._writing = threading.Lock() if self._engine.dialect.name == "sqlite" else None

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()

    @contextmanager
    def _write(self) -> Iterator[Connection]:
        # SQLite has one writer; queueing here is fairer than its own polling.
        if self._writing is not None:
            self._writing.acquire()
        try:
            with self._engine.connect().execution_options(**{IMMEDIATE: True}) as connection, connection.begin():
                yield connection
        finally:
            if self._writing is not None:
                self._writing.release()

    def holds_design(self, fingerprint: str) -> bool:
        """Bind the database to one design; return whether it fits."""
        with self._write() as connection:
            found = connection.scalar(sa.select(facts.c.value).where(facts.c.name == _DESIGN))
            if found == fingerprint:
                return True
            if found is not None and connection.scalar(sa.select(sa.func.count()).select_from(listeners)):
                return False
            connection.execute(facts.delete().where(facts.c.name == _DESIGN))
            connection.execute(facts.insert().values(name=_DESIGN, value=fingerprint))
        return True

    # -- listeners ----------------------------------------------------------------------------------------------------

    def listener(self, listener_id: str) -> Listener | None:
        """Return a listener, or None if there is none of this id."""
        with self._engine.connect() as connection:
            row = connection.execute(listeners.select().where(listeners.c.id == listener_id)).mappings().first()
        return None if row is None else _listener(row)

    def all_listeners(self) -> list[Listener]:
        """Return all listeners in order of arrival, those who withdrew among them."""
        with self._engine.connect() as connection:
            rows = connection.execute(listeners.select().order_by(listeners.c.created_at, listeners.c.id)).mappings()
            return [_listener(row) for row in rows]

    def welcome(self, listener_id: str, external_id: str = "", language: str = "") -> Listener:
        """Return a listener, giving a new one the lowest number that is free."""
        for _ in range(_TRIES):
            try:
                return self._welcome(listener_id, external_id, language)
            except IntegrityError:
                continue  # another process took the number
        raise ConfigError(f"no number could be given to listener {listener_id!r} in {_TRIES} tries; try again")

    def _welcome(self, listener_id: str, external_id: str, language: str) -> Listener:
        with self._write() as connection:
            found = connection.execute(listeners.select().where(listeners.c.id == listener_id)).mappings().first()
            if found is None:
                taken = set(connection.scalars(sa.select(listeners.c.number).where(listeners.c.number.is_not(None))))
                number = next(number for number in range(len(taken) + 1) if number not in taken)
                values = {"id": listener_id, "number": number, "external_id": external_id, "language": language}
                connection.execute(listeners.insert().values(**values, created_at=now(), seen_at=now()))
            elif not found["withdrawn_at"]:
                told = {"external_id": found["external_id"] or external_id, "language": language or found["language"]}
                update = listeners.update().where(listeners.c.id == listener_id)
                connection.execute(update.values(**told, seen_at=now()))
            row = connection.execute(listeners.select().where(listeners.c.id == listener_id)).mappings().one()
        return _listener(row)

    def consent(self, listener_id: str) -> None:
        """Note that a listener agreed; the first time stays."""
        self._stamp(listener_id, "consented_at")

    def finish(self, listener_id: str) -> None:
        """Note that a listener has finished; the first time stays."""
        self._stamp(listener_id, "finished_at")

    def _stamp(self, listener_id: str, column: str) -> None:
        is_unset = sa.and_(listeners.c.id == listener_id, listeners.c[column] == "")
        with self._write() as connection:
            connection.execute(listeners.update().where(is_unset).values({column: now()}))

    def save_checks(self, listener_id: str, checks: Mapping[str, Any]) -> None:
        """Add results of the checks to those known."""
        with self._write() as connection:
            kept = _open_row(connection, listener_id, even_finished=True)["checks"]
            text = json.dumps({**json.loads(kept), **checks})
            connection.execute(listeners.update().where(listeners.c.id == listener_id).values(checks=text))

    def withdraw(self, listener_id: str) -> None:
        """Delete all that a listener has given; only the fact and time of the withdrawal stay."""
        with self._write() as connection:
            for table in (ratings, answers, event_batches):
                connection.execute(table.delete().where(table.c.listener == listener_id))
            erased = {"number": None, "external_id": "", "language": "", "consented_at": "", "finished_at": ""}
            update = listeners.update().where(listeners.c.id == listener_id)
            connection.execute(update.values(**erased, checks="{}", seen_at="", withdrawn_at=now()))

    # -- answers ------------------------------------------------------------------------------------------------------

    def save_ratings(self, listener_id: str, sent: Iterable[SentRating]) -> None:
        """Write ratings, all or none; one that is already there in a later revision stays as it is."""
        with self._write() as connection:
            _open_row(connection, listener_id)
            for one in sent:
                _put_rating(connection, one)
            connection.execute(listeners.update().where(listeners.c.id == listener_id).values(seen_at=now()))

    def saved_ratings(self, listener_id: str) -> list[SentRating]:
        """Return all ratings of a listener, training included, in the order of the plan."""
        with self._engine.connect() as connection:
            return [_sent(row) for row in connection.execute(_ratings_of(listener_id)).mappings()]

    def ratings(self, training: bool = False) -> list[Rating]:
        """Return the ratings of all listeners."""
        with self._engine.connect() as connection:
            rows = [_sent(row) for row in connection.execute(_ratings_of(None)).mappings()]
        return [sent.rating for sent in rows if training or not sent.training]

    def stamped_ratings(self) -> list[tuple[SentRating, str]]:
        """Return all ratings, training included, each with the time at which the server got its last change."""
        with self._engine.connect() as connection:
            return [(_sent(row), row["received_at"]) for row in connection.execute(_ratings_of(None)).mappings()]

    def rating_counts(self) -> dict[str, int]:
        """Return how many ratings that count each listener has given."""
        count = sa.select(ratings.c.listener, sa.func.count()).where(ratings.c.training.is_(False))
        with self._engine.connect() as connection:
            return {row[0]: row[1] for row in connection.execute(count.group_by(ratings.c.listener))}

    def save_answers(self, listener_id: str, given: Mapping[str, str]) -> None:
        """Write answers of the questionnaire over those there are."""
        with self._write() as connection:
            _open_row(connection, listener_id)
            for name, value in given.items():
                key = sa.and_(answers.c.listener == listener_id, answers.c.name == name)
                connection.execute(answers.delete().where(key))
                row = {"listener": listener_id, "name": name, "value": value, "received_at": now()}
                connection.execute(answers.insert().values(**row))

    def answers_of(self, listener_id: str) -> dict[str, str]:
        """Return a listener's answers of the questionnaire by name."""
        query = answers.select().where(answers.c.listener == listener_id).order_by(answers.c.name)
        with self._engine.connect() as connection:
            return {row.name: row.value for row in connection.execute(query)}

    def answers(self) -> list[dict[str, str]]:
        """Return all answers of the questionnaire, each with its `listener`, `name`, `value` and `received_at`."""
        query = answers.select().order_by(answers.c.listener, answers.c.name)
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(query).mappings()]

    def save_events(self, listener_id: str, batch: str, events: list[dict[str, Any]]) -> None:
        """Save a listener's events (plays, switches, loops); a batch is stored once."""
        with self._write() as connection:
            _open_row(connection, listener_id, even_finished=True)
            key = sa.and_(event_batches.c.listener == listener_id, event_batches.c.batch == batch)
            if connection.scalar(sa.select(sa.func.count()).where(key)):
                return
            total = sa.select(sa.func.sum(event_batches.c.count)).where(event_batches.c.listener == listener_id)
            if (connection.scalar(total) or 0) + len(events) > MAX_EVENTS_PER_LISTENER:
                return
            row = {"listener": listener_id, "batch": batch, "count": len(events), "events": json.dumps(events)}
            connection.execute(event_batches.insert().values(**row, received_at=now()))

    def events(self) -> list[dict[str, Any]]:
        """Return the events of all listeners, each with its `listener`."""
        order = event_batches.select().order_by(event_batches.c.listener, event_batches.c.received_at)
        with self._engine.connect() as connection:
            rows = list(connection.execute(order))
        return [{"listener": row.listener, **event} for row in rows for event in json.loads(row.events)]


def _open_row(connection: Connection, listener_id: str, even_finished: bool = False) -> sa.RowMapping:
    """Look the listener up within the transaction that writes, so that no answer slips in after a withdrawal."""
    query = listeners.select().where(listeners.c.id == listener_id).with_for_update()
    row = connection.execute(query).mappings().first()
    if row is None:
        raise ClosedError("this listener is not known; open the link again")
    if row["withdrawn_at"]:
        raise ClosedError("this listener has withdrawn; nothing more is kept")
    if row["finished_at"] and not even_finished:
        raise ClosedError("this listener has finished; answers can no longer be changed")
    return row


def _listener(row: sa.RowMapping) -> Listener:
    return Listener(**{**dict(row), "checks": json.loads(row["checks"])})


def _ratings_of(listener_id: str | None) -> sa.Select[Any]:
    order = (ratings.c.listener, ratings.c.trial, ratings.c.condition, ratings.c.attribute)
    query = ratings.select().order_by(*order)
    return query if listener_id is None else query.where(ratings.c.listener == listener_id)


_RATING_FIELDS = tuple(Rating.__dataclass_fields__)


def _sent(row: sa.RowMapping) -> SentRating:
    rating = Rating(**{name: row[name] for name in _RATING_FIELDS})
    return SentRating(rating, row["trial"], row["training"], row["revision"])


def _put_rating(connection: Connection, sent: SentRating) -> None:
    """Update, else insert: the same on every database, unlike the upserts of each."""
    values = sent.rating.to_dict()
    values |= {"trial": sent.trial, "training": sent.training, "revision": sent.revision, "received_at": now()}
    names = [column.name for column in ratings.primary_key]
    key = sa.and_(*(ratings.c[name] == values[name] for name in names))
    update = ratings.update().where(key, ratings.c.revision < sent.revision)
    for is_last in (False, True):
        if connection.execute(update.values(**values)).rowcount:
            return
        if connection.scalar(sa.select(sa.func.count()).select_from(ratings).where(key)):
            return  # this revision or a later one is there
        try:
            with connection.begin_nested():
                connection.execute(ratings.insert().values(**values))
            return
        except IntegrityError:
            # Another process may just have inserted it: compare revisions. Anything else stays wrong.
            if is_last:
                raise


@contextmanager
def opened_store(study_dir: str | Path, database_url: str | None = None) -> Iterator[Store]:
    """Open the database of a study, while it is being served or afterwards, and close it again.

    Args:
        study_dir: the folder of the study.
        database_url: where the server was told to keep its answers; inside the folder by default.

    Raises:
        InputError: if the study has never been served.
    """
    url = database_url or default_database_url(Path(study_dir))
    path = sa.make_url(url).database if url.startswith("sqlite") else None
    if path is not None and not Path(path).is_file():
        raise InputError(f"there are no answers in {path}; serve the study first with polyres listen serve")
    store = Store(url)
    try:
        yield store
    finally:
        store.close()


def read_ratings(study_dir: str | Path, database_url: str | None = None, training: bool = False) -> list[Rating]:
    """Read the ratings of a study. Returns the ratings by listener, in the order of each plan."""
    with opened_store(study_dir, database_url) as store:
        return store.ratings(training)


def ratings_of(
    study: ListenStudy, folder: Path, sources: Sequence[str], report: Callable[[str], None]
) -> tuple[list[Rating], int]:
    """Read the ratings of a study.

    Args:
        study: what they are checked against.
        sources: as `ratings_from` takes them; none means the study's own database, or else simulated ratings.
        report: receives one line per warning, and per source that cannot be used where others can.

    Returns:
        The ratings, and how many sources could not be used.

    Raises:
        InputError: if no source can be used.
        ConfigError: if a library for the only source is missing.
    """
    check = RatingCheck(study).check
    if len(sources) > 1:
        return _of_several(sources, check, report)
    if sources:
        return ratings_from(sources[0], check, report), 0
    simulated = folder / SIMULATED_NAME
    try:
        found = ratings_from(folder, check, report)
    except (InputError, ConfigError):
        if not simulated.is_file():
            raise
        found = []
    if found or not simulated.is_file():
        return found, 0
    report(f"nobody has listened yet; these are the SIMULATED ratings of {simulated}")
    return ratings_from(simulated, check, report), 0


def ratings_by_part(study: ListenStudy, ratings: Sequence[Rating]) -> list[tuple[ListenStudy, list[Rating]]]:
    """Return every part of a study with its ratings; parts that nobody has rated yet are left out."""
    pairs = []
    for single in study.singles():
        pages = {page.id for page in (*single.training, *single.pages)}
        pairs.append((single, [rating for rating in ratings if rating.page in pages or not study.parts]))
    return [pair for pair in pairs if pair[1]] or pairs[:1]


def _of_several(
    sources: Sequence[str], check: Callable[[Rating], None], report: Callable[[str], None]
) -> tuple[list[Rating], int]:
    found, bad = [], 0
    for source in sources:
        try:
            found += ratings_from(source, check)
        except (InputError, ConfigError) as error:
            bad += 1
            report(f"not read: {error}")
    if bad == len(sources):
        raise InputError("none of the files of ratings can be used; the lines above say why")
    return merged(found, report), bad
