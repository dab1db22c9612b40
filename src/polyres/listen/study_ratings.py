"""One answer of a listener, as the server stores it and the analysis reads it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, get_args

from polyres.core.errors import InputError
from polyres.listen.study_files import Kind

SIMULATED_PREFIX = "simulated-"
"""Listeners whose names begin so are no people; every report says so."""


@dataclass(frozen=True)
class Rating:
    """One answer; session, page, repeat, condition and attribute identify it, so that a second one replaces it.

    Attributes:
        listener: who; names that begin with "simulated-" are no people.
        session: which visit.
        page: id of the page.
        repeat: 0 for the first time that the page comes, then 1, 2, …
        condition: id; for abx and ab `TrialPlan.pair`.
        attribute: name.
        value: on the scale of the study; for abx and ab `TrialPlan.pair_value`.
        kind: of the study.
        answer: abx and ab: the chosen condition id or "tie"; else empty.
        started_at: when the trial was first shown, ISO 8601 in UTC.
        finished_at: when this rating was given last.
        plays: how often this sound (abx and ab: any of the trial) was started or switched to.
        switches: how often the trial was switched between sounds.
    """

    listener: str
    session: str
    page: str
    repeat: int
    condition: str
    attribute: str
    value: float
    kind: Kind
    answer: str = ""
    started_at: str = ""
    finished_at: str = ""
    plays: int = 0
    switches: int = 0

    @property
    def key(self) -> tuple[str, str, int, str, str]:
        """What identifies it: session, page, repeat, condition and attribute."""
        return self.session, self.page, self.repeat, self.condition, self.attribute

    def to_dict(self) -> dict[str, Any]:
        """Return plain values under the names of the attributes."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Rating:
        """Check plain values, texts such as CSV holds among them.

        Args:
            values: by the names of the attributes; those with a default may be missing.

        Raises:
            InputError: for a missing, unknown or unusable value.
        """
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
