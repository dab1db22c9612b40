"""Translate between plan and page: pages see positions, never conditions."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from polyres.core.errors import InputError
from polyres.listen.analysis.ratings import Rating, RatingCheck
from polyres.listen.design.conditions import TIE, TrialPlan, plan_for
from polyres.listen.design.files import PAIR_KINDS, REFERENCE_KINDS, Attribute, ListenStudy
from polyres.listen.server.messages import RatingIn
from polyres.listen.store.database import Listener, SentRating

OPEN_REFERENCE = "reference"
X_SLOT = "x"
CHOICES = ("a", "b")
_PLANS_KEPT = 512


class Planner:
    """Translate between the plans of one study and its pages."""

    def __init__(self, study: ListenStudy) -> None:
        self.study = study
        self._check = RatingCheck(study)
        self._singles = study.singles()
        self._part_of = {
            page.id: part for part, single in enumerate(self._singles) for page in (*single.training, *single.pages)
        }
        self._plan = lru_cache(maxsize=_PLANS_KEPT)(lambda number: tuple(plan_for(study, number)))

    def trials(self, listener: Listener) -> tuple[TrialPlan, ...]:
        """Return the trials of a listener in order."""
        return self._plan(listener.number or 0)

    def describe_study(self) -> dict[str, Any]:
        """Return the public description of the study."""
        study = self.study
        return {
            "name": study.name,
            "title": study.title,
            "kind": study.kind,
            "instructions": study.instructions,
            "consent": study.consent,
            "headphone_check": study.headphone_check,
            "level_check": study.level_check,
            "sample_rate_hz": study.sample_rate_hz,
            "pages": sum(not trial.training for trial in self._plan(0)),
            "closing": study.closing,
            "parts": [_part(single) for single in self._singles],
            "questionnaire": [question.to_dict() for question in study.questionnaire],
        }

    def describe_trials(self, listener: Listener) -> list[dict[str, Any]]:
        """Describe each trial for the page: number of sounds, and whether there is a reference."""
        return [
            {
                "index": trial.index,
                "training": trial.training,
                "sounds": len(trial.stimuli),
                "reference": self._shows_reference(trial) and self.study.page(trial.page).reference is not None,
                "part": self._part_of[trial.page],
                "text": self.study.page(trial.page).text,
            }
            for trial in self.trials(listener)
        ]

    def _of(self, trial: TrialPlan) -> ListenStudy:
        """Return the part of the study that a trial belongs to."""
        return self._singles[self._part_of[trial.page]]

    def _shows_reference(self, trial: TrialPlan) -> bool:
        # The reference of mushra is shown; that of a study without one never is.
        return self._of(trial).kind in REFERENCE_KINDS

    def trial(self, listener: Listener, index: int) -> TrialPlan:
        """Return one trial of a listener."""
        trials = self.trials(listener)
        if not 0 <= index < len(trials):
            raise InputError(f"trial {index} does not exist; there are {len(trials)}, counted from 0")
        return trials[index]

    def sound(self, listener: Listener, index: int, slot: str) -> tuple[str, str]:
        """Return page and condition of the sound at a position."""
        trial = self.trial(listener, index)
        if slot == OPEN_REFERENCE and self._shows_reference(trial):
            return trial.page, OPEN_REFERENCE
        if slot == X_SLOT and trial.x is not None:
            return trial.page, trial.x
        if slot.isascii() and slot.isdigit() and len(slot) < 4 and int(slot) < len(trial.stimuli):
            return trial.page, trial.stimuli[int(slot)]
        raise InputError(f"trial {index} has no sound {slot[:20]!r}")

    def required(self, listener: Listener) -> set[tuple[int, str, str]]:
        """Return (trial, condition, attribute) of every rating that the listener owes."""
        return {
            (trial.index, condition, attribute.name)
            for trial in self.trials(listener)
            if not trial.training
            if self._of(trial).gates.must_move
            for condition in ([trial.pair] if self._of(trial).kind in PAIR_KINDS else trial.stimuli)
            for attribute in _attributes(self._of(trial))
        }

    def receive(self, listener: Listener, given: RatingIn) -> SentRating:
        """Check a rating sent by a page and add its condition."""
        trial = self.trial(listener, given.trial)
        kind = self._of(trial).kind
        answer = ""
        if kind in PAIR_KINDS:
            answer = self._choice(trial, given)
            condition, value = trial.pair, trial.pair_value(answer)
        else:
            condition, value = self._value(trial, given)
        self._check.check_value(trial.page, given.attribute, value)
        rating = Rating(
            listener=listener.id,
            session=listener.session,
            page=trial.page,
            repeat=trial.repeat,
            condition=condition,
            attribute=given.attribute,
            value=value,
            kind=kind,
            answer=answer,
            started_at=given.started_at,
            finished_at=given.finished_at,
            plays=given.plays,
            switches=given.switches,
        )
        return SentRating(rating, trial.index, trial.training, given.revision)

    def _choice(self, trial: TrialPlan, given: RatingIn) -> str:
        if given.choice is None or given.slot is not None or given.value is not None:
            raise InputError(f"trial {trial.index} is answered by a choice: {', '.join(CHOICES)}")
        if given.choice == TIE:
            if not self._of(trial).design.ties or self._of(trial).kind != "ab":
                raise InputError("a tie is not allowed here; choose a or b")
            return TIE
        return trial.stimuli[CHOICES.index(given.choice)]

    def _value(self, trial: TrialPlan, given: RatingIn) -> tuple[str, float]:
        if given.slot is None or given.value is None or given.choice is not None:
            raise InputError(f"trial {trial.index} is answered by a slot and a value")
        if given.slot >= len(trial.stimuli):
            raise InputError(f"slot {given.slot} does not exist; there are {len(trial.stimuli)}, counted from 0")
        return trial.stimuli[given.slot], given.value

    def send_back(self, listener: Listener, sent: SentRating) -> dict[str, Any]:
        """Return a stored rating by position, as the page sent it."""
        trial = self.trial(listener, sent.trial)
        rating = sent.rating
        given: dict[str, Any] = {"trial": sent.trial, "attribute": rating.attribute, "revision": sent.revision}
        if self._of(trial).kind in PAIR_KINDS:
            is_tie = rating.answer == TIE
            given["choice"] = TIE if is_tie else CHOICES[trial.stimuli.index(rating.answer)]
        else:
            given |= {"slot": trial.stimuli.index(rating.condition), "value": rating.value}
        return given | {"started_at": rating.started_at, "plays": rating.plays, "switches": rating.switches}


def _attributes(single: ListenStudy) -> tuple[Attribute, ...]:
    return single.attributes[:1] if single.kind == "abx" else single.attributes


def _part(single: ListenStudy) -> dict[str, Any]:
    """Describe the questions of one kind for the page."""
    return {
        "kind": single.kind,
        "ties": single.design.ties and single.kind == "ab",
        "gates": single.gates.to_dict(),
        "playback": single.playback.to_dict(),
        "attributes": [
            {**attribute.to_dict(), "scale": list(single.scale_of(attribute.name)[:2])}
            for attribute in _attributes(single)
        ],
    }
