"""Read the database of a study from outside its server."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa

from polyres.core.errors import ConfigError, InputError
from polyres.listen.analysis.ratings import Rating, RatingCheck, merged, ratings_from
from polyres.listen.analysis.simulate import SIMULATED_NAME
from polyres.listen.design.files import ListenStudy
from polyres.listen.store.database import Store
from polyres.listen.store.tables import default_database_url


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
    """Read the ratings of a study. Returns the ratings by listener, in the order of each plan."""
    with opened_store(study_dir, database_url) as store:
        return store.ratings(training)


def ratings_of(
    study: ListenStudy, folder: Path, sources: Sequence[str], report: Callable[[str], None]
) -> tuple[list[Rating], int]:
    """Read the ratings of a study.

    Args:
        study: what they are checked against.
        folder: STUDY_DIR.
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
    """Return every part of a study with its ratings; parts that nobody has rated yet are left out.

    Args:
        study: the study.
        ratings: of all parts.
    """
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
