"""The database of a study that was served, opened by others than its server."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from polyres.core.errors import InputError
from polyres.listen.store import Store
from polyres.listen.store_tables import default_database_url
from polyres.listen.study_ratings import Rating


@contextmanager
def opened_store(study_dir: str | Path, database_url: str | None = None) -> Iterator[Store]:
    """Open the database of a study, while it is being served or afterwards, and close it again.

    Args:
        study_dir: the folder of the study.
        database_url: where the server was told to keep its answers; inside the folder by default.

    Yields:
        The database.

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
    """Read what the listeners of a study have answered.

    Args:
        study_dir: the folder of the study.
        database_url: where the server was told to keep its answers; inside the folder by default.
        training: with the ratings of training pages.

    Returns:
        The ratings by listener, in the order of each plan.

    Raises:
        InputError: if the study has never been served.
    """
    with opened_store(study_dir, database_url) as store:
        return store.ratings(training)
