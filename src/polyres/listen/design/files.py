"""Files of a listening study: `STUDY_DIR/study.json` and its sounds under opaque names.

`polyres.listen.design.conditions.plan_for` gives the trials of a listener;
`polyres.listen.analysis.ratings.Rating` is an answer.
"""

from __future__ import annotations

import json
import os
from pathlib import Path, PurePosixPath
from typing import Literal, NamedTuple, Self

from pydantic import Field, field_validator, model_validator

from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError
from polyres.core.json_text import json_file
from polyres.core.whole_files import write_whole

STUDY_NAME = "study.json"
AUDIO_FOLDER = "audio"

Kind = Literal["mushra", "bs2132", "abx", "ab", "acr", "dcr", "bs1116", "likert"]
Role = Literal["system", "reference", "low_anchor", "mid_anchor", "interference_anchor"]
PAIR_KINDS: tuple[Kind, ...] = ("abx", "ab")
SINGLE_KINDS: tuple[Kind, ...] = ("acr", "dcr")
STEP_KINDS: tuple[Kind, ...] = ("acr", "dcr", "likert")
REFERENCE_KINDS: tuple[Kind, ...] = ("mushra", "dcr", "bs1116")
HIDDEN_REFERENCE_KINDS: tuple[Kind, ...] = ("mushra", "bs1116")
_IDENTIFIER = r"^[A-Za-z0-9_-]{1,64}$"


class Scale(NamedTuple):
    """Values of a rating: lowest, highest, and whether only whole numbers are allowed."""

    low: float
    high: float
    is_whole: bool


class Attribute(Config):
    """One thing that listeners judge."""

    name: str = Field("quality", pattern=_IDENTIFIER)  # identifier, a column of the results
    question: str = "How good is the sound, compared with the reference?"  # what the listener reads
    # names of the steps of the scale, worst first
    labels: tuple[str, ...] = ("Bad", "Poor", "Fair", "Good", "Excellent")
    # which anchors ought to sound bad in this respect; the analysis screens listeners by them
    anchors: tuple[Role, ...] = ("low_anchor", "mid_anchor")


class Condition(Config):
    """A condition: a system, the hidden reference or an anchor."""

    id: str = Field(pattern=_IDENTIFIER)  # opaque; still never send it to a page, where positions are enough
    label: str  # name of the system; shown only in the analysis
    role: Role = "system"  # what it is there for


class Page(Config):
    """One excerpt in all conditions."""

    id: str = Field(pattern=_IDENTIFIER)  # identifier, unique in the study, training pages included
    item: str  # what is heard, for the analysis: pages of one item share their random effect
    track: str = ""  # name of the song, if known
    stem: str = ""  # name of the stem, if known
    start_s: float = Field(0.0, ge=0)  # where the excerpt begins in the song, in seconds
    part: str = ""  # of a study of several kinds, the name of the part that it belongs to
    text: str = ""  # shown above the sounds; empty for nothing
    reference: str | None = None  # file of the open reference relative to the study folder; None where there is none
    # condition id -> file relative to the study folder. The hidden reference has a file of its own
    audio: dict[str, str]

    @field_validator("audio")
    @classmethod
    def _two_or_more(cls, value: dict[str, str]) -> dict[str, str]:
        if not value:
            raise ValueError("a page needs at least one condition")
        return value

    def files(self) -> tuple[str, ...]:
        """Return all files of the page, the open reference first."""
        return (*((self.reference,) if self.reference is not None else ()), *self.audio.values())


class Design(Config):
    """Which pages a listener gets, and in which order."""

    pages_per_listener: int | None = Field(None, ge=1)  # a balanced subset of so many pages; None gives all
    rounds: int = Field(1, ge=1)  # how often a listener goes through them; an abx study wants several
    # how many of a listener's pages come once more at the end, to see how well they agree with themselves
    repeats: int = Field(0, ge=0)
    seed: int = Field(0, ge=0)  # of all orders
    ties: bool = False  # whether an AB trial may be answered by "no difference"
    # of the pages: "balanced" over listeners, or "given", as the study lists them
    order: Literal["balanced", "given"] = "balanced"


class Gates(Config):
    """Actions required before the next page."""

    must_play: bool = True  # hear every sound of the page once
    must_move: bool = True  # move every slider (answer every question)
    rate_only_playing: bool = False  # only the sound that is heard can be rated (BS.1534-3)


class Playback(Config):
    """How the player of a trial behaves."""

    loop: bool = True  # whether sounds and regions go round; else they are played once and stop
    restart: bool = False  # whether a switch goes back to the beginning (of the region) instead of going on in step


class Question(Config):
    """One field of the questionnaire."""

    name: str = Field(pattern=_IDENTIFIER)  # identifier
    question: str  # what the listener reads
    type: Literal["text", "number", "choice"] = "text"  # how it is answered
    choices: tuple[str, ...] = ()  # for "choice"
    required: bool = False  # whether it has to be answered

    @model_validator(mode="after")
    def _has_choices(self) -> Self:
        if (self.type == "choice") != bool(self.choices):
            raise ValueError("choices belong to questions of type 'choice', which need them")
        return self


class StudyTerms(Config):
    """Fields that a study and its recipe share: questions, texts and the design."""

    name: str = Field(pattern=_IDENTIFIER)  # identifier
    title: str  # what listeners see
    # mushra, bs2132 (no reference), bs1116, abx, ab, acr, dcr or likert (steps, all sounds on one page)
    kind: Kind = "mushra"
    instructions: str = ""  # shown before the first page
    # asked about every sound (ab: about every pair; abx takes the first alone)
    attributes: tuple[Attribute, ...] = Field((Attribute(),), min_length=1)
    design: Design = Design()  # subsets, repeats and seed
    gates: Gates = Gates()  # what is required before the next page
    playback: Playback = Playback()  # how the player behaves
    questionnaire: tuple[Question, ...] = ()  # fields after the test
    consent: str = ""  # text to agree to; empty asks nothing
    headphone_check: bool = False  # play the antiphase test first (Woods et al. 2017)
    level_check: bool = True  # let the listener set the level first
    closing: str = ""  # text at the end
    completion_code: str = ""  # shown at the end
    completion_url: str = ""  # where the end leads; empty leads nowhere
    sample_rate_hz: int = Field(44_100, ge=8000)  # of all files


class StudyPart(Config):
    """Pages of one kind in a study of several; the attributes are as in `StudyTerms`."""

    name: str = Field(pattern=_IDENTIFIER)
    kind: Kind
    attributes: tuple[Attribute, ...] = Field((Attribute(),), min_length=1)
    design: Design = Design()
    gates: Gates = Gates()
    playback: Playback = Playback()


class ListenStudy(StudyTerms):
    """A whole study."""

    conditions: tuple[Condition, ...] = Field(min_length=1)  # all that is compared
    pages: tuple[Page, ...] = Field(min_length=1)  # the test
    training: tuple[Page, ...] = ()  # pages before it, whose ratings count for nothing
    # of a study of several kinds, in the order in which they are heard; `singles` gives each as a study
    parts: tuple[StudyPart, ...] = ()

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for what, names in (
            ("condition", [condition.id for condition in self.conditions]),
            ("page", [page.id for page in (*self.training, *self.pages)]),
            ("attribute", [attribute.name for attribute in self.attributes]),
            ("question", [question.name for question in self.questionnaire]),
            ("part", [part.name for part in self.parts]),
        ):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{what} {twice!r} stands there twice; every {what} needs a name of its own")
        kinds = {part.name: part.kind for part in self.parts} or {"": self.kind}
        empty = next((name for name in kinds if name not in {page.part for page in self.pages}), None)
        if empty is not None:
            raise ValueError(f"part {empty!r} has no pages")
        for page in (*self.training, *self.pages):
            if page.part not in kinds:
                raise ValueError(f"page {page.id!r} is of a part {page.part!r} that is not among the parts")
            self._check_page(page, kinds[page.part])
        return self

    def _check_page(self, page: Page, kind: Kind) -> None:
        known = {condition.id for condition in self.conditions}
        unknown = next((name for name in page.audio if name not in known), None)
        if unknown is not None:
            raise ValueError(f"page {page.id!r} has a condition {unknown!r} that is not among the conditions")
        if kind in REFERENCE_KINDS and page.reference is None:
            raise ValueError(f"page {page.id!r} has no reference, but a {kind} study needs one")
        if kind in (*PAIR_KINDS, "bs1116") and len(page.audio) < 2:
            raise ValueError(f"page {page.id!r} has one condition, but a {kind} study compares two")
        if kind == "bs1116" and len(page.audio) > 2:
            raise ValueError(f"page {page.id!r} has {len(page.audio)} conditions; bs1116 grades one and the reference")
        outside = next((name for name in page.files() if not _is_inside(name)), None)
        if outside is not None:
            raise ValueError(f"file {outside!r} of page {page.id!r} must lie inside the study folder")

    def scale_of(self, attribute: str) -> Scale:
        """Return the scale of an attribute."""
        known = next((one for one in self.attributes if one.name == attribute), None)
        if known is None:
            raise InputError(f"study {self.name!r} has no attribute {attribute!r}")
        if self.kind in PAIR_KINDS:
            return Scale(0.0, 1.0, False)
        if self.kind in STEP_KINDS:
            return Scale(1.0, float(len(known.labels)), True)
        return Scale(1.0, 5.0, False) if self.kind == "bs1116" else Scale(0.0, 100.0, False)

    def singles(self) -> tuple[ListenStudy, ...]:
        """Return the study as studies of one kind each: itself, or one per part, in order."""
        return tuple(self._single(part) for part in self.parts) or (self,)

    def _single(self, part: StudyPart) -> ListenStudy:
        def mine(pages: tuple[Page, ...]) -> list[dict[str, object]]:
            return [{**page.to_dict(), "part": ""} for page in pages if page.part == part.name]

        pages = {"pages": mine(self.pages), "training": mine(self.training), "parts": []}
        title = {"title": f"{self.title}: {part.name}"}
        return ListenStudy.from_dict({**self.to_dict(), **part.to_dict(), **pages, **title})

    def page(self, page_id: str) -> Page:
        """Return a page by its id, training pages included."""
        for page in (*self.training, *self.pages):
            if page.id == page_id:
                return page
        raise InputError(f"study {self.name!r} has no page {page_id!r}")

    def condition(self, condition_id: str) -> Condition:
        """Return a condition by its id."""
        for condition in self.conditions:
            if condition.id == condition_id:
                return condition
        raise InputError(f"study {self.name!r} has no condition {condition_id!r}")


def triples(page: Page, hidden: str) -> list[Page]:
    """Split a page into one per condition, each beside the hidden reference, as BS.1116 has them."""
    others = [name for name in page.audio if name != hidden]
    return [
        page.with_values({"id": f"{page.id}-{n}", "audio": {name: page.audio[name] for name in (hidden, other)}})
        for n, other in enumerate(others, start=1)
    ]


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(name) and "\\" not in name and ":" not in name and not path.is_absolute() and ".." not in path.parts


def load_study(folder: str | Path, complete: bool = True) -> ListenStudy:
    """Read a study and see that all of its sounds are there.

    Args:
        folder: STUDY_DIR; audio paths of the study are relative to it.
        complete: whether a missing sound is an error.

    Raises:
        InputError: if there is no study, or a file is missing.
        ConfigError: if `study.json` holds anything wrong.
    """
    path = Path(folder) / STUDY_NAME
    try:
        values = json_file(path)
    except FileNotFoundError as error:
        raise InputError(f"{folder} holds no study ({STUDY_NAME}); make one with polyres listen new") from error
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}); make the study again") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} is no study; make it with polyres listen new")
    try:
        study = ListenStudy.from_dict(values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    for page in (*study.training, *study.pages) if complete else ():
        for name in page.files():
            if not os.path.isfile(Path(folder) / name):
                raise InputError(f"{Path(folder) / name} of page {page.id!r} is missing; make the study again")
    return study


def save_study(study: ListenStudy, folder: str | Path) -> Path:
    """Write `study.json`, whole or not at all."""
    return write_whole(Path(folder) / STUDY_NAME, json.dumps(study.to_dict(), indent=2) + "\n")


Anchor = Literal["low", "mid", "interference"]


class ExcerptOptions(Config):
    """Which parts of the songs are heard."""

    per_track: int = Field(1, ge=1)  # excerpts of each song, at most
    length_s: float = Field(10.0, ge=1.0, le=60.0)  # of each; BS.1534 advises about 10 s and no more than 12 s
    seed: int = Field(0, ge=0)  # of the draw
    min_active_share: float = Field(0.8, ge=0.0, le=1.0)  # share of seconds in which all sources have to sound
    sources: tuple[str, ...] = ()  # stems that have to sound; empty for all that the reference has
    tracks: tuple[str, ...] = ()  # names of the songs; empty for all
    max_tracks: int | None = Field(None, ge=1)  # so many of them, drawn by the seed; None for all
    split: str = "all"  # of the reference data set
    layout: str = "stems"  # of the reference data set


class LevelOptions(Config):
    """Loudness of the sounds."""

    match: bool = True  # whether all sounds of a page are made equally loud (BS.1770); else they keep their levels
    target_lufs: float = Field(-23.0, ge=-60.0, le=-5.0)  # loudness of every sound
    limit_db: float = Field(20.0, ge=0.0)  # most that one sound is raised above another
    # no true peak exceeds it, in dB of full scale; a page that would is made softer as a whole
    peak_db: float = Field(-1.0, ge=-30.0, le=0.0)
    fade_s: float = Field(0.01, ge=0.0, le=1.0)  # fade at both ends
    bit_depth: Literal[16, 24] = 16  # of the files


class StudyRecipe(StudyTerms):
    """Recipe of a study built from folders of results."""

    references: str  # folder of songs with their true stems, relative to the recipe
    # label -> folder that holds TRACK/STEM.EXT, as `polyres separate` writes them (OUT/MODEL)
    systems: dict[str, str] = Field(min_length=1)
    stems: tuple[str, ...] = Field(("vocals",), min_length=1)  # which stems are judged
    # low (3.5 kHz), mid (7 kHz) and interference (the mixture); none means none
    anchors: tuple[Anchor, ...] | None = None
    hidden_reference: bool | None = None  # whether the reference is among the conditions; None: for mushra and bs1116
    training_pages: int = Field(0, ge=0)  # so many excerpts are for training and do not count
    excerpts: ExcerptOptions = ExcerptOptions()  # which parts of the songs
    levels: LevelOptions = LevelOptions()  # how loud

    @model_validator(mode="after")
    def _is_a_test(self) -> Self:
        conditions = len(self.systems) + len(self.used_anchors) + self.has_hidden_reference
        if conditions > 12 and self.kind in ("mushra", "bs2132"):
            raise ValueError(f"{conditions} sounds on a page are too many to compare; BS.1534 allows 12")
        if self.kind == "bs1116" and not self.has_hidden_reference:
            raise ValueError("bs1116 grades every system beside the hidden reference; leave hidden_reference out")
        if conditions < 2:
            raise ValueError("one system alone cannot be compared; add systems, anchors or hidden_reference: true")
        return self

    @property
    def used_anchors(self) -> tuple[Anchor, ...]:
        """The anchors: low and mid for mushra unless said otherwise."""
        if self.anchors is not None:
            return self.anchors
        return ("low", "mid") if self.kind == "mushra" else ()

    @property
    def has_hidden_reference(self) -> bool:
        """Whether the reference is among the conditions."""
        return self.kind in HIDDEN_REFERENCE_KINDS if self.hidden_reference is None else self.hidden_reference

    @property
    def shows_reference(self) -> bool:
        """Whether listeners can play the true stem."""
        return self.kind in REFERENCE_KINDS

    def resolved(self, folder: Path) -> StudyRecipe:
        """Return the recipe with its folders relative to the working folder instead of its own."""
        systems = {label: str(folder / name) for label, name in self.systems.items()}
        return self.with_values({"references": str(folder / self.references), "systems": systems})
