"""Ratings: one listener's answer to one sound, read from files and databases."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, get_args

from polyres.core.errors import ConfigError, InputError
from polyres.core.json_text import json_file, json_value
from polyres.listen.design.conditions import PAIR_MARK
from polyres.listen.design.files import PAIR_KINDS, Kind, ListenStudy, Page

_SQLITE_HEAD = b"SQLite format 3\0"
SIMULATED_PREFIX = "simulated-"
"""Listeners whose names begin so are no people; every report says so."""


@dataclass(frozen=True)
class Rating:
    """One answer; listener, session, page, repeat, condition and attribute identify it: a second one replaces it."""

    listener: str  # who; names that begin with "simulated-" are no people
    session: str  # which visit
    page: str  # id of the page
    repeat: int  # 0 for the first time that the page comes, then 1, 2, …
    condition: str  # id; for abx and ab `TrialPlan.pair`
    attribute: str
    value: float  # on the scale of the study; for abx and ab `TrialPlan.pair_value`
    kind: Kind  # of the study
    answer: str = ""  # abx and ab: the chosen condition id or "tie"; else empty
    started_at: str = ""  # when the trial was first shown, ISO 8601 in UTC
    finished_at: str = ""  # when this rating was given last
    plays: int = 0  # how often this sound (abx and ab: any of the trial) was started or switched to
    switches: int = 0  # how often the trial was switched between sounds

    @property
    def key(self) -> tuple[str, str, str, int, str, str]:
        """What identifies it: listener, session, page, repeat, condition and attribute."""
        return self.listener, self.session, self.page, self.repeat, self.condition, self.attribute

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under the names of the attributes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rating:
        """Check plain values, texts such as CSV holds among them."""
        known = {field.name: field for field in fields(cls)}
        unknown = next((name for name in values if name not in known), None)
        if unknown is not None:
            raise InputError(f"a rating has no {unknown!r}; it has {', '.join(known)}")
        missing = next((name for name in list(known)[:8] if values.get(name) is None), None)
        if missing is not None:
            raise InputError(f"a rating lacks its {missing!r}")
        kinds: dict[str, type] = {"repeat": int, "plays": int, "switches": int, "value": float}
        given: dict[str, Any] = {}
        for name, value in values.items():
            try:
                given[name] = kinds.get(name, str)("" if value is None else value)
            except (TypeError, ValueError) as error:
                raise InputError(f"{name} = {value!r} of a rating is no number") from error
        rating = cls(**given)
        if rating.kind not in get_args(Kind):
            raise InputError(f"kind {rating.kind!r} of a rating is not known; choose {', '.join(get_args(Kind))}")
        if not math.isfinite(rating.value):
            raise InputError(f"value = {rating.value} of a rating is not finite")
        return rating


def ratings_from(
    source: str | Path, check: Callable[[Rating], None] | None = None, report: Callable[[str], None] | None = None
) -> list[Rating]:
    """Read ratings from a file or the database of a server; of two with one key the later counts."""
    url = database_url_of(source)
    path = Path(source)
    if url is not None or path.is_dir():
        rows: Iterable[Any] = _stored(Path() if url is not None else path, url)
    else:
        rows = _file_rows(path)
    ratings = []
    for number, row in enumerate(rows, start=1):
        try:
            rating = _rating(row)
            if check is not None:
                check(rating)
        except InputError as error:
            who = f" (listener {row.listener!r})" if isinstance(row, Rating) else ""
            raise InputError(f"{source}, row {number}{who}: {error}") from error
        ratings.append(rating)
    return merged(ratings, report)


def merged(ratings: Iterable[Rating], report: Callable[[str], None] | None = None) -> list[Rating]:
    """Keep the later of two ratings with one key."""
    say = report or (lambda line: None)
    kept: dict[tuple[str, str, str, int, str, str], Rating] = {}
    people: dict[str, dict[str, None]] = {}
    replaced: dict[str, int] = {}
    for rating in ratings:
        people.setdefault(rating.session, {})[rating.listener] = None
        old = kept.get(rating.key)
        if old is not None and old.value != rating.value:
            replaced[rating.listener] = replaced.get(rating.listener, 0) + 1
        kept[rating.key] = rating
    for session, names in people.items():
        if len(names) > 1:
            say(f"warning: listeners {_listed(names)} share session {session[:60]!r}; all of their answers are kept")
    if replaced:
        counts = sum(replaced.values())
        say(f"warning: {counts} answers of {_listed(replaced)} are given twice with other values; the later ones count")
    return list(kept.values())


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names)


def _rating(row: Any) -> Rating:
    if isinstance(row, Rating):
        return row
    if not isinstance(row, Mapping):
        raise InputError(f"{type(row).__name__} is no rating")
    return Rating.from_dict({name: row[name] for name in row if name not in EXTRA_COLUMNS})


def _file_rows(path: Path) -> list[Any]:
    if not path.is_file():
        raise InputError(f"{path} is no file of ratings; give .jsonl, .json, .csv, .parquet or a database")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise InputError(f"{path} holds no ratings; give .jsonl, .json, .csv, .parquet or a database")
    try:
        return list(reader(path))
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path} cannot be read as ratings ({error}); export it again") from error


def database_url_of(source: str | Path) -> str | None:
    """Return the URL of a database that is given as one or as an SQLite file; None for anything else."""
    if "://" in str(source):
        return str(source)
    path = Path(source)
    if not path.is_file() or path.suffix.lower() in _READERS:
        return None
    with path.open("rb") as file:
        return f"sqlite:///{path.resolve()}" if file.read(len(_SQLITE_HEAD)) == _SQLITE_HEAD else None


EXTRA_COLUMNS = frozenset(
    ["label", "role", "item", "track", "stem", "start_s", "simulated", "training", "trial", "duration_s", "received_at"]
)
"""What an export adds for readers; not read back."""


def _stored(folder: Path, url: str | None) -> list[Rating]:
    try:
        from polyres.listen.store.database import read_ratings
    except ModuleNotFoundError as error:
        raise ConfigError(f"a database needs {error.name}; install it with pip install 'polyres[listen]'") from error
    return read_ratings(folder, url)


def _json_lines(path: Path) -> Iterator[Any]:
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.strip():
            yield json_value(line)


def _csv_rows(path: Path) -> Iterator[Any]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _json_rows(path: Path) -> Iterator[Any]:
    rows = json_file(path)
    yield from rows if isinstance(rows, list) else rows["ratings"]


def _parquet_rows(path: Path) -> Iterator[Any]:
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise ConfigError("Parquet needs pyarrow; install it with pip install 'polyres[listen]'") from error
    yield from parquet.read_table(path).to_pylist()


_READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    ".jsonl": _json_lines,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".parquet": _parquet_rows,
}


class RatingCheck:
    """Validate ratings of one study from any source."""

    def __init__(self, study: ListenStudy) -> None:
        self._name = study.name
        singles = study.singles()
        self._pages = {page.id: (page, single) for single in singles for page in (*single.training, *single.pages)}

    def check(self, rating: Rating) -> None:
        """Refuse a rating that is not of the study, or outside of its scale."""
        page, study = self._pages.get(rating.page, (None, None))
        if page is None or study is None or rating.kind != study.kind or not _is_on(page, study, rating.condition):
            where = f"kind {rating.kind}, page {rating.page[:60]!r}, condition {rating.condition[:60]!r}"
            raise InputError(f"a rating ({where}) is not of study {self._name!r}; give the ratings of this study")
        self.check_value(rating.page, rating.attribute, rating.value)

    def check_value(self, page: str, attribute: str, value: float) -> None:
        """Refuse a value outside of the scale."""
        _, study = self._pages[page]
        asked = [known.name for known in study.attributes][: 1 if study.kind == "abx" else None]
        if attribute not in asked:
            raise InputError(f"attribute {attribute[:60]!r} is not asked for; allowed: {', '.join(asked)}")
        low, high, is_whole = study.scale_of(attribute)
        if study.kind in PAIR_KINDS:
            allowed = (low, 0.5, high) if study.kind == "ab" and study.design.ties else (low, high)
            if value not in allowed:
                raise InputError(f"value {value:g} is out of range; give {' or '.join(f'{one:g}' for one in allowed)}")
        elif not low <= value <= high or (is_whole and not float(value).is_integer()):
            number = "a whole number " if is_whole else ""
            raise InputError(f"value {value:g} is out of range; give {number}from {low:g} to {high:g}")


def _is_on(page: Page, study: ListenStudy, condition: str) -> bool:
    parts = condition.split(PAIR_MARK) if study.kind in PAIR_KINDS else [condition]
    return set(parts) <= set(page.audio) and (study.kind not in PAIR_KINDS or len(set(parts)) == 2)
