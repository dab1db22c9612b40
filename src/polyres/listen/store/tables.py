"""Tables of a study's database, and durable database engines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.engine.url import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from polyres.core.errors import ConfigError, OutputError
from polyres.listen.server.links import SERVER_FOLDER

DATABASE_NAME = "answers.sqlite3"
IMMEDIATE = "polyres_immediate"
_LOCK_WAIT_S = 60

metadata = sa.MetaData()

facts = sa.Table(
    "facts", metadata, sa.Column("name", sa.String(64), primary_key=True), sa.Column("value", sa.Text, nullable=False)
)

listeners = sa.Table(
    "listeners",
    metadata,
    sa.Column("id", sa.String(64), primary_key=True),
    # Position in the design; empty once the listener has withdrawn, so that the next one takes it.
    sa.Column("number", sa.Integer, unique=True),
    sa.Column("external_id", sa.String(128), nullable=False, default=""),
    sa.Column("language", sa.String(16), nullable=False, default=""),
    sa.Column("created_at", sa.String(32), nullable=False),
    sa.Column("consented_at", sa.String(32), nullable=False, default=""),
    sa.Column("finished_at", sa.String(32), nullable=False, default=""),
    sa.Column("withdrawn_at", sa.String(32), nullable=False, default=""),
    sa.Column("seen_at", sa.String(32), nullable=False, default=""),
    sa.Column("checks", sa.Text, nullable=False, default="{}"),
)

ratings = sa.Table(
    "ratings",
    metadata,
    sa.Column("listener", sa.String(64), sa.ForeignKey("listeners.id"), primary_key=True),
    sa.Column("page", sa.String(64), primary_key=True),
    sa.Column("repeat", sa.Integer, primary_key=True),
    sa.Column("condition", sa.String(132), primary_key=True),
    sa.Column("attribute", sa.String(64), primary_key=True),
    sa.Column("session", sa.String(80), nullable=False),
    sa.Column("trial", sa.Integer, nullable=False),
    sa.Column("training", sa.Boolean, nullable=False),
    sa.Column("value", sa.Float, nullable=False),
    sa.Column("kind", sa.String(16), nullable=False),
    sa.Column("answer", sa.String(64), nullable=False),
    sa.Column("started_at", sa.String(32), nullable=False),
    sa.Column("finished_at", sa.String(32), nullable=False),
    sa.Column("plays", sa.Integer, nullable=False),
    sa.Column("switches", sa.Integer, nullable=False),
    # The page's own number of this change: what arrives late never undoes what came after it.
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("received_at", sa.String(32), nullable=False),
)

answers = sa.Table(
    "answers",
    metadata,
    sa.Column("listener", sa.String(64), sa.ForeignKey("listeners.id"), primary_key=True),
    sa.Column("name", sa.String(64), primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
    sa.Column("received_at", sa.String(32), nullable=False),
)

event_batches = sa.Table(
    "event_batches",
    metadata,
    sa.Column("listener", sa.String(64), sa.ForeignKey("listeners.id"), primary_key=True),
    sa.Column("batch", sa.String(64), primary_key=True),
    sa.Column("count", sa.Integer, nullable=False),
    sa.Column("events", sa.Text, nullable=False),
    sa.Column("received_at", sa.String(32), nullable=False),
)


def default_database_url(study_dir: Path) -> str:
    """Return the URL of the database inside a study's folder."""
    return sa.URL.create("sqlite", database=str(study_dir / SERVER_FOLDER / DATABASE_NAME)).render_as_string()


def open_engine(url: str) -> Engine:
    """Connect to a database and create missing tables."""
    try:
        parsed = make_url(url)
        is_sqlite = parsed.get_backend_name() == "sqlite"
        if is_sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        arguments: dict[str, Any] = {"timeout": _LOCK_WAIT_S} if is_sqlite else {}
        engine = sa.create_engine(parsed, connect_args=arguments, pool_pre_ping=not is_sqlite)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise ConfigError(
            f"cannot use the database {url!r} ({error}); "
            "give a URL such as sqlite:///answers.sqlite3 or postgresql+psycopg://user@host/name"
        ) from error
    except OSError as error:
        raise OutputError(f"cannot make the folder of the database {url}: {error.strerror}") from error
    if is_sqlite:
        sa.event.listen(engine, "connect", _set_up_sqlite)
        sa.event.listen(engine, "begin", _begin_sqlite)
    try:
        metadata.create_all(engine)
    except sa.exc.OperationalError as error:
        engine.dispose()
        raise OutputError(f"cannot open the database {parsed.render_as_string()}: {error.orig}") from error
    return engine


def _set_up_sqlite(connection: Any, _record: object) -> None:
    # The driver's own transactions start too late and commit too early; they are begun below instead.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    # A writer takes the lock at once: one that turns from reader to writer half-way could only fail.
    immediate = connection.get_execution_options().get(IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")
