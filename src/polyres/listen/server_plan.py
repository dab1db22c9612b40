"""Between the plan of a listener and what a page may know: positions go out, conditions stay here."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from polyres.core.errors import InputError
from polyres.listen.api_models import RatingIn
from polyres.listen.design import TIE, TrialPlan, plan_for
from polyres.listen.rating_check import RatingCheck
from polyres.listen.server_audio import OPEN_REFERENCE
from polyres.listen.store import Listener, SentRating
from polyres.listen.study_files import PAIR_KINDS, REFERENCE_KINDS, ListenStudy
from polyres.listen.study_ratings import Rating

X_SLOT = "x"
CHOICES = ("a", "b")
_PLANS_KEPT = 512


class Planner:
    """Speaks to pages about one study.

    Args:
        study: the study.
    """

    def __init__(self, study: ListenStudy) -> None:
        self.study = study
        self._check = RatingCheck(study)
        self._plan = lru_cache(maxsize=_PLANS_KEPT)(lambda number: tuple(plan_for(study, number)))
        # The reference of mushra is shown; that of a study without one never is.
        self._shows_reference = study.kind in REFERENCE_KINDS
        self.attributes = study.attributes[:1] if study.kind == "abx" else study.attributes

    def trials(self, listener: Listener) -> tuple[TrialPlan, ...]:
        """Return the trials of a listener in order."""
        return self._plan(listener.number or 0)

    def describe_study(self) -> dict[str, Any]:
        """Return what every visitor may know."""
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
            "ties": study.design.ties and study.kind == "ab",
            "gates": study.gates.to_dict(),
            "playback": study.playback.to_dict(),
            "attributes": [attribute.to_dict() for attribute in self.attributes],
            "questionnaire": [question.to_dict() for question in study.questionnaire],
        }

    def describe_trials(self, listener: Listener) -> list[dict[str, Any]]:
        """Return what a page needs of each trial: how many sounds, and whether a reference."""
        return [
            {
                "index": trial.index,
                "training": trial.training,
                "sounds": len(trial.stimuli),
                "reference": self._shows_reference and self.study.page(trial.page).reference is not None,
            }
            for trial in self.trials(listener)
        ]

    def trial(self, listener: Listener, index: int) -> TrialPlan:
        """Return one trial of a listener.

        Raises:
            InputError: if the plan has no such trial.
        """
        trials = self.trials(listener)
        if not 0 <= index < len(trials):
            raise InputError(f"trial {index} does not exist; there are {len(trials)}, counted from 0")
        return trials[index]

    def sound(self, listener: Listener, index: int, slot: str) -> tuple[str, str]:
        """Return page and condition of what is heard at a position.

        Args:
            listener: who asks.
            index: of the trial.
            slot: a position from "0", "x" (abx) or "reference".

        Raises:
            InputError: if the trial has no such position.
        """
        trial = self.trial(listener, index)
        if slot == OPEN_REFERENCE and self._shows_reference:
            return trial.page, OPEN_REFERENCE
        if slot == X_SLOT and trial.x is not None:
            return trial.page, trial.x
        if slot.isascii() and slot.isdigit() and len(slot) < 4 and int(slot) < len(trial.stimuli):
            return trial.page, trial.stimuli[int(slot)]
        raise InputError(f"trial {index} has no sound {slot[:20]!r}")

    def required(self, listener: Listener) -> set[tuple[int, str, str]]:
        """Return (trial, condition, attribute) of every rating that the listener owes, training left out."""
        return {
            (trial.index, condition, attribute.name)
            for trial in self.trials(listener)
            if not trial.training
            for condition in ([trial.pair] if self.study.kind in PAIR_KINDS else trial.stimuli)
            for attribute in self.attributes
        }

    def receive(self, listener: Listener, given: RatingIn) -> SentRating:
        """Check a rating that a page sent and say which condition it is of.

        Args:
            listener: who sent it.
            given: by position.

        Raises:
            InputError: if it does not fit the trial.
        """
        trial = self.trial(listener, given.trial)
        if given.attribute not in {known.name for known in self.attributes}:
            allowed = ", ".join(known.name for known in self.attributes)
            raise InputError(f"attribute {given.attribute!r} is not asked for; allowed: {allowed}")
        answer = ""
        if self.study.kind in PAIR_KINDS:
            answer = self._choice(trial, given)
            condition, value = trial.pair, trial.pair_value(answer)
        else:
            condition, value = self._value(trial, given)
        rating = Rating(
            listener=listener.id,
            session=listener.session,
            page=trial.page,
            repeat=trial.repeat,
            condition=condition,
            attribute=given.attribute,
            value=value,
            kind=self.study.kind,
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
            if not self.study.design.ties or self.study.kind != "ab":
                raise InputError("a tie is not allowed here; choose a or b")
            return TIE
        return trial.stimuli[CHOICES.index(given.choice)]

    def _value(self, trial: TrialPlan, given: RatingIn) -> tuple[str, float]:
        if given.slot is None or given.value is None or given.choice is not None:
            raise InputError(f"trial {trial.index} is answered by a slot and a value")
        if given.slot >= len(trial.stimuli):
            raise InputError(f"slot {given.slot} does not exist; there are {len(trial.stimuli)}, counted from 0")
        self._check.check_value(given.attribute, given.value)
        return trial.stimuli[given.slot], given.value

    def send_back(self, listener: Listener, sent: SentRating) -> dict[str, Any]:
        """Return a stored rating by position, as the page sent it."""
        trial = self.trial(listener, sent.trial)
        rating = sent.rating
        given: dict[str, Any] = {"trial": sent.trial, "attribute": rating.attribute, "revision": sent.revision}
        if self.study.kind in PAIR_KINDS:
            is_tie = rating.answer == TIE
            given["choice"] = TIE if is_tie else CHOICES[trial.stimuli.index(rating.answer)]
        else:
            given |= {"slot": trial.stimuli.index(rating.condition), "value": rating.value}
        return given | {"started_at": rating.started_at, "plays": rating.plays, "switches": rating.switches}
