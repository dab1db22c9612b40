"""The ratings of a study from wherever they lie: files and databases, checked one by one, or simulated ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from polyres.core.errors import ConfigError, InputError
from polyres.listen.rating_check import RatingCheck
from polyres.listen.simulate import SIMULATED_NAME
from polyres.listen.study_files import ListenStudy
from polyres.listen.study_ratings import Rating, merged, ratings_from


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
