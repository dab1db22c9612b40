"""Validate a rating from any source: it belongs to the study and lies on its scale."""

from __future__ import annotations

from polyres.core.errors import InputError
from polyres.listen.analysis.ratings import Rating
from polyres.listen.design.files import PAIR_KINDS, ListenStudy, Page

_PAIR_MARK = "+"


class RatingCheck:
    """Validate ratings of one study."""

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
    parts = condition.split(_PAIR_MARK) if study.kind in PAIR_KINDS else [condition]
    return set(parts) <= set(page.audio) and (study.kind not in PAIR_KINDS or len(set(parts)) == 2)
