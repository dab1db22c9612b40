"""The one door that every rating passes, from a page, a file or Python: is it of the study, and on its scale?"""

from __future__ import annotations

from polyres.core.errors import InputError
from polyres.listen.study_files import PAIR_KINDS, ListenStudy
from polyres.listen.study_ratings import Rating

_PAIR_MARK = "+"


class RatingCheck:
    """Checks ratings of one study.

    Args:
        study: the study.
    """

    def __init__(self, study: ListenStudy) -> None:
        self._name = study.name
        self._attributes = {attribute.name: attribute for attribute in study.attributes}
        self._kind, self._ties = study.kind, study.design.ties
        self._study = study
        self._conditions = {page.id: set(page.audio) for page in (*study.training, *study.pages)}

    def check(self, rating: Rating) -> None:
        """Refuse a rating that is not of the study, or outside of its scale.

        Args:
            rating: any.

        Raises:
            InputError: in one line, with what is allowed.
        """
        parts = rating.condition.split(_PAIR_MARK) if self._kind in PAIR_KINDS else [rating.condition]
        if rating.kind != self._kind or not self._conditions.get(rating.page, set()).issuperset(parts):
            where = f"kind {rating.kind}, page {rating.page[:60]!r}, condition {rating.condition[:60]!r}"
            raise InputError(f"a rating ({where}) is not of study {self._name!r}; give the ratings of this study")
        if rating.attribute not in self._attributes:
            allowed = ", ".join(self._attributes)
            raise InputError(f"attribute {rating.attribute[:60]!r} is not asked for; allowed: {allowed}")
        self.check_value(rating.attribute, rating.value)

    def check_value(self, attribute: str, value: float) -> None:
        """Refuse a value outside of the scale.

        Args:
            attribute: one of the study.
            value: any.

        Raises:
            InputError: in one line, with what is allowed.
        """
        if self._kind in PAIR_KINDS:
            allowed = (0.0, 0.5, 1.0) if self._kind == "ab" and self._ties else (0.0, 1.0)
            if value not in allowed:
                raise InputError(f"value {value:g} is out of range; give {' or '.join(f'{one:g}' for one in allowed)}")
            return
        scale = self._study.scale_of(attribute)
        if not scale.low <= value <= scale.high or (scale.is_whole and not float(value).is_integer()):
            number = "a whole number " if scale.is_whole else ""
            raise InputError(f"value {value:g} is out of range; give {number}from {scale.low:g} to {scale.high:g}")
