"""Studies written for webMUSHRA, taken over with their sounds."""

from __future__ import annotations

import hashlib
import html
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field

from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.core.yaml_files import read_yaml
from polyres.data.audio import read_audio
from polyres.data.writer import AudioWriter, WriteSpec
from polyres.listen.anchors import LOW_HZ, MID_HZ, Wave, low_pass
from polyres.listen.study_files import AUDIO_FOLDER, STUDY_NAME, Kind, ListenStudy, save_study

Report = Callable[[str], None]

_KINDS: dict[str, Kind] = {"mushra": "mushra", "paired_comparison": "abx", "preference_test": "ab"}
_ANCHORS = {
    "createAnchor35": ("anchor 3.5 kHz", "low_anchor", LOW_HZ),
    "createAnchor70": ("anchor 7 kHz", "mid_anchor", MID_HZ),
}
_TEXT_PAGES = ("generic", "consent")
_SILENT_PAGES = ("volume", "finish")
_REFERENCE = "reference"


_Name = Annotated[str, Field(max_length=500)] | int | float | None  # YAML makes numbers of some names


class _Answers(Config):
    """What is read of a question; more may stand beside."""

    model_config = ConfigDict(extra="allow")

    response: list[dict[str, Any]] | None = None


class _Page(Config):
    """What is read of a page; more may stand beside."""

    model_config = ConfigDict(extra="allow")

    name: _Name = None
    reference: _Name = None
    stimuli: dict[Any, _Name] | None = None
    questionnaire: list[_Answers] | None = None


@dataclass(frozen=True)
class _Trial:
    """One page of a test as it is written."""

    kind: Kind
    name: str
    values: Mapping[str, Any]
    training: bool


def import_webmushra(config: Path, out: Path, root: Path | None = None, report: Report | None = None) -> ListenStudy:
    """Make a study from a webMUSHRA configuration: pages, texts, questionnaire and sounds.

    Pages of type mushra, paired_comparison (as ABX) and preference_test (as AB) are taken over, all of one type.
    Anchors that webMUSHRA would make while the page loads are made now, without its delay. Loudness stays as it is.

    Args:
        config: YAML file.
        out: STUDY_DIR; must not hold a study yet.
        root: what the sound files are relative to; the folder above `configs/` or else of the file itself by default.
        report: receives one line per page that is left out.

    Raises:
        ConfigError: if the file is no webMUSHRA configuration, mixes types of tests or asks for none.
        InputError: if a sound is missing or sounds of a page differ in length or rate.
        OutputError: if there is a study already, or a file cannot be written.
    """
    say = report or (lambda line: None)
    if (out / STUDY_NAME).exists():
        raise OutputError(f"{out} holds a study already; choose another folder, or delete it to make it anew")
    values = read_yaml(config)
    if not isinstance(values.get("pages"), list):
        raise ConfigError(f"{config} is no webMUSHRA configuration: it has no list 'pages'")
    try:
        for page in _flat(values["pages"]):
            _Page.from_dict(page)
    except ConfigError as error:
        raise ConfigError(f"{config}: {error}") from error
    folder = root or (config.parent.parent if config.parent.name == "configs" else config.parent)
    trials, texts = _read_pages(values["pages"], say)
    if not trials:
        raise ConfigError(f"{config} has no page to take over; types that can be: {', '.join(_KINDS)}")
    kinds = list(dict.fromkeys(trial.kind for trial in trials))
    if len(kinds) > 1:
        raise ConfigError(f"{config} mixes {' and '.join(kinds)}; make one file of each, a study has one kind")
    conditions = _conditions(trials)
    builder = _Builder(folder, out, {label: f"c{number}" for number, (label, _) in enumerate(conditions, start=1)})
    pages = [(trial.training, builder.page(trial, f"p{number:02d}")) for number, trial in enumerate(trials, start=1)]
    study = ListenStudy.from_dict(
        {
            "name": _identifier(str(values.get("testId") or config.stem)),
            "title": str(values.get("testname") or config.stem),
            "kind": kinds[0],
            "instructions": "\n\n".join(texts["generic"]),
            "consent": "\n\n".join(texts["consent"]),
            "conditions": [{"id": builder.ids[label], "label": label, "role": role} for label, role in conditions],
            "pages": [page for training, page in pages if not training],
            "training": [page for training, page in pages if training],
            "playback": _playback(trials),
            "questionnaire": _questions(values["pages"], say),
            "completion_code": _completion_code(values["pages"]),
            "sample_rate_hz": builder.rate_hz,
        }
    )
    save_study(study, out)
    return study


def _playback(trials: Sequence[_Trial]) -> dict[str, bool]:
    """Take over how sounds are played where the pages that have listeners' ratings agree on it."""

    def all_say(name: str, value: bool) -> bool:
        return all(trial.values.get(name) is value for trial in trials)

    return {"loop": not all_say("enableLooping", False), "restart": all_say("switchBack", True)}


def _flat(pages: Sequence[Any]) -> Iterator[Mapping[str, Any]]:
    """Yield all pages; lists of lists and the word "random" say in which order, which the design does here."""
    for page in pages:
        if isinstance(page, Mapping):
            yield page
        elif isinstance(page, Sequence) and not isinstance(page, str):
            yield from _flat(page)


def _read_pages(pages: Sequence[Any], say: Report) -> tuple[list[_Trial], dict[str, list[str]]]:
    trials: list[_Trial] = []
    texts: dict[str, list[str]] = {name: [] for name in _TEXT_PAGES}
    for page in _flat(pages):
        kind = str(page.get("type", ""))
        name = str(page.get("id") or page.get("name") or f"page {len(trials) + 1}")
        if kind in _TEXT_PAGES:
            texts[kind].append(_plain_text(str(page.get("content", ""))))
        elif kind in _KINDS:
            trials.append(_Trial(_kind_of(kind, page), name, page, "training" in name.lower()))
        elif kind not in _SILENT_PAGES:
            say(f"warning: page {name!r} of type {kind!r} is left out")
    if trials and all(trial.training for trial in trials):
        trials = [_Trial(trial.kind, trial.name, trial.values, False) for trial in trials]
    return trials, texts


def _kind_of(kind: str, page: Mapping[str, Any]) -> Kind:
    return "bs2132" if kind == "mushra" and not page.get("reference") else _KINDS[kind]


def _plain_text(content: str) -> str:
    """Turn the HTML of a page into text."""
    broken = re.sub(r"<\s*(br|/p|/div|/h\d|/li)\s*/?>", "\n", content, flags=re.IGNORECASE)
    lines = html.unescape(re.sub(r"<[^>]*>", "", broken)).splitlines()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(" ".join(line.split()) for line in lines)).strip()


def _identifier(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-")[:64] or "study"


def _conditions(trials: Sequence[_Trial]) -> list[tuple[str, str]]:
    labels: dict[str, str] = {}
    for trial in trials:
        stimuli = trial.values.get("stimuli")
        if not isinstance(stimuli, Mapping) or not stimuli:
            raise ConfigError(f"page {trial.name!r} has no stimuli; write them as 'name: file'")
        labels.update({str(label): "system" for label in stimuli})
    for trial in trials:
        if trial.kind == "mushra":
            labels[_REFERENCE] = "reference"
        labels.update({label: role for key, (label, role, _) in _ANCHORS.items() if _anchor(trial, key)})
    return list(labels.items())


def _anchor(trial: _Trial, key: str) -> bool:
    return trial.kind == "mushra" and trial.values.get(key) is True


class _Builder:
    """Copies the sounds of pages under opaque names."""

    def __init__(self, folder: Path, out: Path, ids: dict[str, str]) -> None:
        self._folder, self._out, self.ids = folder, out, ids
        self.rate_hz = 0

    def page(self, trial: _Trial, page_id: str) -> dict[str, Any]:
        """Write the sounds of a page and return it as plain values."""
        sounds = {str(label): self._read(trial, name) for label, name in trial.values["stimuli"].items()}
        reference = trial.values.get("reference")
        shown = self._read(trial, reference) if reference and trial.kind != "ab" else None
        if shown is not None and trial.kind == "mushra":
            sounds[_REFERENCE] = shown
            for key, (label, _, cutoff_hz) in _ANCHORS.items():
                if _anchor(trial, key):
                    sounds[label] = low_pass(shown, cutoff_hz, self.rate_hz)
        lengths = {wave.shape for wave in [*sounds.values(), *([shown] if shown is not None else [])]}
        if len(lengths) > 1:
            raise InputError(f"the sounds of page {trial.name!r} differ in length or channels; cut them to the same")
        audio = {self.ids[label]: self._write(wave, page_id, label) for label, wave in sounds.items()}
        opened = self._write(shown, page_id, "") if shown is not None and trial.kind == "mushra" else None
        return {"id": page_id, "item": trial.name, "reference": opened, "audio": dict(sorted(audio.items()))}

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


def _questions(pages: Sequence[Any], say: Report) -> list[dict[str, Any]]:
    questions = []
    for page in _flat(pages):
        for field in page.get("questionnaire") or ():
            name, kind = _identifier(str(field.get("name", ""))), str(field.get("type", "text"))
            question: dict[str, Any] = {"name": name, "question": str(field.get("label") or name)}
            question["required"] = field.get("optional") is False
            if kind in ("likert", "slider") and field.get("response"):
                choices = [str(answer.get("label", answer.get("value"))) for answer in field["response"]]
                question |= {"type": "choice", "choices": choices}
            elif kind in ("number", "text", "long_text"):
                question["type"] = "number" if kind == "number" else "text"
            else:
                say(f"warning: question {name!r} of type {kind!r} is left out")
                continue
            questions.append(question)
    return questions


def _completion_code(pages: Sequence[Any]) -> str:
    codes = [str(page["confirmationCode"]) for page in _flat(pages) if page.get("confirmationCode")]
    return codes[-1] if codes else ""
