"""Messages that pages may send: every field typed and bounded."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from polyres.listen.server.links import MAX_EVENTS_PER_REQUEST, MAX_RATINGS_PER_REQUEST, MAX_TEXT_CHARACTERS

_MAX_COUNT = 1_000_000
_MAX_TRIALS = 100_000
_MAX_REVISION = 2**53 - 1  # the largest whole number that a page can count to
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def _without_control_characters(text: str) -> str:
    return _CONTROL.sub("", text)


Text = Annotated[str, Field(max_length=MAX_TEXT_CHARACTERS), AfterValidator(_without_control_characters)]
ShortText = Annotated[str, Field(max_length=128), AfterValidator(_without_control_characters)]
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
Language = Annotated[str, Field(pattern=r"^([A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})?)?$")]
# Times are those of the listener's clock, as `toISOString` writes them.
Time = Annotated[str, Field(pattern=r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3}Z)?$")]
Count = Annotated[int, Field(ge=0, le=_MAX_COUNT)]
TrialIndex = Annotated[int, Field(ge=0, le=_MAX_TRIALS)]


class Sent(BaseModel):
    """Base of all that pages send: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class JoinIn(Sent):
    """A visitor without a link."""

    external_id: ShortText = ""
    language: Language = ""


class RatingIn(Sent):
    """One rating by position: slot and value, or a choice of a pair."""

    trial: TrialIndex
    attribute: Identifier
    slot: Annotated[int, Field(ge=0, le=999)] | None = None
    value: float | None = None
    choice: Literal["a", "b", "tie"] | None = None
    revision: Annotated[int, Field(ge=0, le=_MAX_REVISION)]
    started_at: Time = ""
    finished_at: Time = ""
    plays: Count = 0
    switches: Count = 0


class RatingsIn(Sent):
    """Ratings to save, all or none."""

    ratings: Annotated[list[RatingIn], Field(min_length=1, max_length=MAX_RATINGS_PER_REQUEST)]


class HeadphonesIn(Sent):
    """Result of the headphone check."""

    correct: Annotated[int, Field(ge=0, le=100)]
    trials: Annotated[int, Field(ge=1, le=100)]
    attempts: Annotated[int, Field(ge=1, le=100)] = 1
    passed: bool


class ProgressIn(Sent):
    """Progress of the listener; omitted fields stay unchanged."""

    position: TrialIndex | None = None
    headphones: HeadphonesIn | None = None
    level_set: bool | None = None
    instructions_read: bool | None = None


class AnswersIn(Sent):
    """Answers of the questionnaire by name."""

    answers: Annotated[dict[Identifier, Text], Field(max_length=100)]


class EventIn(Sent):
    """One thing the listener did."""

    at: Time
    trial: TrialIndex
    what: Literal["open", "play", "pause", "switch", "loop", "rate", "leave", "hide", "show", "resume"]
    slot: Annotated[str, Field(pattern=r"^([0-9]{1,3}|x|reference)?$")] = ""
    seconds: Annotated[float, Field(ge=0, le=86_400)] | None = None
    until: Annotated[float, Field(ge=0, le=86_400)] | None = None


class EventsIn(Sent):
    """A batch of events under an id of the page's making; the same id is kept once."""

    batch: Identifier
    events: Annotated[list[EventIn], Field(min_length=1, max_length=MAX_EVENTS_PER_REQUEST)]


class LinksIn(Sent):
    """Number of listener links to create."""

    count: Annotated[int, Field(ge=1, le=1000)] = 1
