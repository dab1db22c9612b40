"""Import webMUSHRA studies with their sounds."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field

from polyres.audio.files import read_audio
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.listen.design.anchors import LOW_HZ, MID_HZ, Wave, low_pass
from polyres.listen.design.files import (
    AUDIO_FOLDER,
    HIDDEN_REFERENCE_KINDS,
    STEP_KINDS,
    STUDY_NAME,
    Kind,
    ListenStudy,
    Page,
    save_study,
    triples,
)
from polyres.listen.design.webmushra_texts import identifier, plain_text, questions, read_config

MOST_PAD_SAMPLES = 4096
Report = Callable[[str], None]

_KINDS: dict[str, Kind] = {
    "mushra": "mushra",
    "bs1116": "bs1116",
    "paired_comparison": "abx",
    "preference_test": "ab",
    "likert_single_stimulus": "acr",
    "likert_multi_stimulus": "likert",
}
_ANCHORS = {
    "createAnchor35": ("anchor 3.5 kHz", "low_anchor", LOW_HZ),
    "createAnchor70": ("anchor 7 kHz", "mid_anchor", MID_HZ),
}
_TEXT_PAGES = ("generic", "consent", "finish")
_SILENT_PAGES = ("volume",)
_REFERENCE = "reference"
_IMPAIRMENT = ("Very annoying", "Annoying", "Slightly annoying", "Perceptible, but not annoying", "Imperceptible")


_Name = Annotated[str, Field(max_length=500)] | int | float | None  # YAML makes numbers of some names


_Choices = list[dict[str, Any]]


class _Answers(Config):
    """Fields read from a question; others are ignored."""

    model_config = ConfigDict(extra="allow")

    response: _Choices | None = None


class _Page(Config):
    """Fields read from a page; others are ignored."""

    model_config = ConfigDict(extra="allow")

    name: _Name = None
    reference: _Name = None
    stimuli: dict[Any, _Name] | None = None
    questionnaire: list[_Answers] | None = None
    response: _Choices | list[_Choices] | None = None


@dataclass(frozen=True)
class _Trial:
    """One page of a test as it is written."""

    kind: Kind
    name: str
    values: Mapping[str, Any]
    training: bool
    is_random: bool

    @property
    def hides_reference(self) -> bool:
        return self.kind in HIDDEN_REFERENCE_KINDS or (self.kind == "abx" and bool(self.values.get("reference")))


def import_webmushra(
    config: Path, out: Path, root: Path | None = None, report: Report | None = None, pad_samples: int = 0
) -> ListenStudy:
    """Convert a webMUSHRA configuration to a study: pages, texts, questionnaire and sounds.

    Pages of type mushra, bs1116, paired_comparison (as ABX of each stimulus and the reference), preference_test (as
    AB), likert_single_stimulus (as ACR) and likert_multi_stimulus are taken over; pages of several types become parts.
    Anchors that webMUSHRA would make while the page loads are made now, without its delay. Loudness stays as it is.

    Args:
        out: STUDY_DIR; must not hold a study yet.
        root: what the sound files are relative to; the folder above `configs/` or else of the file itself by default.
        report: receives one line per page that is left out, and whatever else differs from webMUSHRA.
        pad_samples: sounds that are shorter than the longest of their page by at most so many samples get silence
            at their end; up to 4096.

    Raises:
        ConfigError: if the file is no webMUSHRA configuration, or asks for no test.
        InputError: if a sound is missing or sounds of a page differ in length or rate.
        OutputError: if there is a study already, or a file cannot be written.
    """
    say = report or (lambda line: None)
    if (out / STUDY_NAME).exists():
        raise OutputError(f"{out} holds a study already; choose another folder, or delete it to make it anew")
    values = read_config(config, say)
    if not isinstance(values.get("pages"), list):
        raise ConfigError(f"{config} is no webMUSHRA configuration: it has no list 'pages'")
    pages = [page for page, _ in _flat(values["pages"])]
    try:
        for page in pages:
            _Page.from_dict(page)
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from error
    folder = root or (config.parent.parent if config.parent.name == "configs" else config.parent)
    trials, texts = _read_pages(values["pages"], say)
    if not trials:
        raise ConfigError(f"{config} has no page to take over; types that can be: {', '.join(_KINDS)}")
    conditions = _conditions(trials)
    parts = _parts(trials, say)
    builder = _Builder(folder, out, {label: f"c{number}" for number, (label, _) in enumerate(conditions, start=1)})
    built = builder.all_pages(parts, pad_samples, say)
    study = ListenStudy.from_dict(
        {
            "name": identifier(str(values.get("testId") or config.stem)),
            "title": str(values.get("testname") or config.stem),
            "instructions": "\n\n".join(texts["generic"]),
            "consent": "\n\n".join(texts["consent"]),
            "closing": "\n\n".join(texts["finish"]),
            "conditions": [{"id": builder.ids[label], "label": label, "role": role} for label, role in conditions],
            "pages": [page for training, page in built if not training],
            "training": [page for training, page in built if training],
            "questionnaire": questions(pages, say),
            "completion_code": _completion_code(pages),
            "sample_rate_hz": builder.rate_hz,
            **_terms(parts),
        }
    )
    save_study(study, out)
    return study


def _terms(parts: Mapping[str, tuple[dict[str, Any], list[_Trial]]]) -> dict[str, Any]:
    """Return the terms of the only part, or the list of parts."""
    terms = [terms for terms, _ in parts.values()]
    first = {name: value for name, value in terms[0].items() if name != "name"}
    return first if len(terms) == 1 else {"kind": terms[0]["kind"], "parts": terms}


def _parts(trials: Sequence[_Trial], say: Report) -> dict[str, tuple[dict[str, Any], list[_Trial]]]:
    """Group pages with the same questions, in order of first appearance."""
    groups: dict[str, list[_Trial]] = {}
    for trial in trials:
        groups.setdefault(f"{trial.kind} {_attributes(trial)}", []).append(trial)
    parts: dict[str, tuple[dict[str, Any], list[_Trial]]] = {}
    for group in groups.values():
        kind = group[0].kind
        same = sum(name.partition("-")[0] == kind for name in parts)
        name = f"{kind}-{same + 1}" if same else str(kind)
        terms: dict[str, Any] = {"name": name, "kind": kind, "playback": _playback(group)}
        if _attributes(group[0]):
            terms["attributes"] = _attributes(group[0])
        if not any(trial.is_random for trial in group):
            terms["design"] = {"order": "given"}
        if kind in STEP_KINDS:
            must_move = all(trial.values.get("mustRate") is True for trial in group)
            must_play = any(bool(trial.values.get("mustPlayback")) for trial in group)
            terms["gates"] = {"must_move": must_move, "must_play": must_play}
        if all(trial.training for trial in group):  # a test of training alone is a test
            group = [replace(trial, training=False) for trial in group]
        parts[name] = (terms, group)
    if len(parts) > 1:
        say(f"note: {len(parts)} kinds of pages come one after the other: {', '.join(parts)}")
    return parts


def _attributes(trial: _Trial) -> list[dict[str, Any]]:
    """Return the attributes; empty where the default question fits."""
    if trial.kind == "bs1116":
        return [{"name": "quality", "labels": _IMPAIRMENT}]
    if trial.kind not in STEP_KINDS:
        return []
    response = trial.values.get("response") or []
    scales = response if response and isinstance(response[0], list) else [response]
    attributes = []
    for number, scale in enumerate(scales, start=1):
        labels = [str(one.get("label") or one.get("value")) for one in scale]
        if len(labels) < 2:
            raise ConfigError(f"page {trial.name!r} has {len(labels)} answers; list two or more in 'response'")
        name = "quality" if len(scales) == 1 else f"scale{number}"
        attributes.append({"name": name, "question": "Which answer fits?", "labels": labels})
    return attributes


def _playback(trials: Sequence[_Trial]) -> dict[str, bool]:
    """Return the playback settings where all rated pages agree on them."""

    def all_say(name: str, value: bool) -> bool:
        return all(trial.values.get(name) is value for trial in trials)

    return {"loop": not all_say("enableLooping", False), "restart": all_say("switchBack", True)}


def _flat(pages: Sequence[Any], is_random: bool = False) -> Iterator[tuple[Mapping[str, Any], bool]]:
    """Yield all pages, and whether each is in a list that begins with the word "random"."""
    is_random = is_random or (bool(pages) and pages[0] == "random")
    for page in pages:
        if isinstance(page, Mapping):
            yield page, is_random
        elif isinstance(page, Sequence) and not isinstance(page, str):
            yield from _flat(page, is_random)


def _read_pages(pages: Sequence[Any], say: Report) -> tuple[list[_Trial], dict[str, list[str]]]:
    trials: list[_Trial] = []
    texts: dict[str, list[str]] = {name: [] for name in _TEXT_PAGES}
    for page, is_random in _flat(pages):
        kind = str(page.get("type", ""))
        name = str(page.get("id") or page.get("name") or f"page {len(trials) + 1}")
        if kind in _TEXT_PAGES:
            texts[kind].append(plain_text(page.get("content")))
        elif kind in _KINDS:
            trials.append(_Trial(_kind_of(kind, page), name, page, "training" in name.lower(), is_random))
            _tell_differences(trials[-1], say)
        elif kind not in _SILENT_PAGES:
            say(f"warning: page {name!r} of type {kind!r} is left out")
    return trials, texts


def _tell_differences(trial: _Trial, say: Report) -> None:
    if trial.kind == "abx" and trial.values.get("unforced"):
        say(f"warning: page {trial.name!r}: abx has no answer {str(trial.values['unforced'])[:60]!r}; listeners guess")
    if trial.values.get("showConditionNames") is True:
        say(f"warning: page {trial.name!r}: names of conditions are never shown")


def _kind_of(kind: str, page: Mapping[str, Any]) -> Kind:
    return "bs2132" if kind == "mushra" and not page.get("reference") else _KINDS[kind]


def _conditions(trials: Sequence[_Trial]) -> list[tuple[str, str]]:
    labels: dict[str, str] = {}
    for trial in trials:
        stimuli = trial.values.get("stimuli")
        if not isinstance(stimuli, Mapping) or not stimuli:
            raise ConfigError(f"page {trial.name!r} has no stimuli; write them as 'name: file'")
        if trial.kind == "bs1116" and not trial.values.get("reference"):
            raise ConfigError(f"page {trial.name!r} of type bs1116 has no reference; write it as 'reference: file'")
        labels.update({str(label): "system" for label in stimuli})
    made: dict[str, str] = {}
    for trial in trials:
        if trial.hides_reference:
            made[_REFERENCE] = "reference"
        made.update({label: role for key, (label, role, _) in _ANCHORS.items() if _anchor(trial, key)})
    twice = next((label for label in labels if label in made), None)
    if twice is not None:
        raise ConfigError(f"a stimulus cannot be called {twice!r}, which another condition is; rename it")
    return [*labels.items(), *made.items()]


def _anchor(trial: _Trial, key: str) -> bool:
    return trial.kind in HIDDEN_REFERENCE_KINDS and trial.values.get(key) is True


class _Builder:
    """Copies the sounds of pages under opaque names."""

    def __init__(self, folder: Path, out: Path, ids: dict[str, str]) -> None:
        self._folder, self._out, self.ids = folder, out, ids
        self.rate_hz = 0

    def all_pages(
        self, parts: Mapping[str, tuple[dict[str, Any], list[_Trial]]], pad_samples: int, say: Report
    ) -> list[tuple[bool, dict[str, Any]]]:
        """Write the sounds of all pages; return whether each is for training, and its plain values."""
        made: list[tuple[bool, dict[str, Any]]] = []
        trials = [(name, trial) for name, (_, group) in parts.items() for trial in group]
        for number, (part, trial) in enumerate(trials, start=1):
            page = self._page(trial, f"p{number:02d}", pad_samples, say)
            page = page.with_values({"part": part if len(parts) > 1 else ""})
            split = trial.kind == "bs1116" or (trial.kind == "abx" and trial.hides_reference)
            pages = triples(page, self.ids[_REFERENCE]) if split else [page]
            made += [(trial.training, one.to_dict()) for one in pages]
        return made

    def _page(self, trial: _Trial, page_id: str, pad_samples: int, say: Report) -> Page:
        sounds = {str(label): self._read(trial, name) for label, name in trial.values["stimuli"].items()}
        if trial.hides_reference:
            sounds[_REFERENCE] = self._read(trial, trial.values.get("reference"))
        sounds = _of_one_length(trial, sounds, pad_samples, say)
        for key, (label, _, cutoff_hz) in _ANCHORS.items():
            if _anchor(trial, key):
                sounds[label] = low_pass(sounds[_REFERENCE], cutoff_hz, self.rate_hz)
        audio = {self.ids[label]: self._write(wave, page_id, label) for label, wave in sounds.items()}
        is_open = trial.kind in HIDDEN_REFERENCE_KINDS
        opened = self._write(sounds[_REFERENCE], page_id, "") if is_open else None
        text = plain_text(trial.values.get("content"))
        return Page(id=page_id, item=trial.name, text=text, reference=opened, audio=dict(sorted(audio.items())))

    def _read(self, trial: _Trial, name: Any) -> Wave:
        path = self._folder / str(name)
        if not os.path.isfile(path):  # a name may be too long to be one
            raise InputError(f"{path} of page {trial.name!r} is missing; say with --root what files are relative to")
        wave, rate_hz = read_audio(path)
        if self.rate_hz not in (0, rate_hz):
            raise InputError(f"{path} has {rate_hz} Hz, others have {self.rate_hz} Hz; resample them to one rate")
        self.rate_hz = rate_hz
        return np.asarray(wave)

    def _write(self, wave: Wave, page_id: str, label: str) -> str:
        digest = hashlib.sha256(wave.tobytes() + f"{page_id}/{label}".encode()).hexdigest()[:24]
        name = f"{AUDIO_FOLDER}/{digest}.wav"
        try:
            (self._out / AUDIO_FOLDER).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"cannot make {self._out}: {error.strerror}; choose another folder") from error
        with AudioWriter(self._out / name, WriteSpec(self.rate_hz, wave.shape[0], "wav", 24)) as writer:
            writer.write(wave)
        return name


def _of_one_length(trial: _Trial, sounds: dict[str, Wave], pad_samples: int, say: Report) -> dict[str, Wave]:
    """Pad slightly shorter sounds to the longest, if allowed."""
    if len({wave.shape[0] for wave in sounds.values()}) > 1:
        raise InputError(f"the sounds of page {trial.name!r} differ in channels; give all of them the same")
    longest = max(wave.shape[1] for wave in sounds.values())
    missing = {label: longest - wave.shape[1] for label, wave in sounds.items() if wave.shape[1] < longest}
    most = max(missing.values(), default=0)
    if most > pad_samples:
        mend = f", or add silence with --pad {most}" if most <= MOST_PAD_SAMPLES else ""
        label = max(missing, key=lambda label: missing[label])
        differ = f"the sounds of page {trial.name!r} differ in length, {label!r} by {most} samples"
        raise InputError(f"{differ}; cut them to the same{mend}")
    for label, samples in missing.items():
        say(f"padded: page {trial.name!r}, {label!r}: {samples} samples of silence at the end")
    return {label: np.pad(wave, ((0, 0), (0, missing.get(label, 0)))) for label, wave in sounds.items()}


def _completion_code(pages: Sequence[Mapping[str, Any]]) -> str:
    codes = [str(page["confirmationCode"]) for page in pages if page.get("confirmationCode")]
    return codes[-1] if codes else ""
