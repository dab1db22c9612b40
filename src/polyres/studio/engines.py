"""Separate or reconstruct a song, file to file."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from polyres.audio.file_names import shown
from polyres.batch.jobs import Job, OutputOptions
from polyres.codec.load import load_codec
from polyres.codec.track import CODEC, ENHANCED, ORIGINAL, Chain, chain_of, reconstruct_jobs
from polyres.core.errors import PolyresError, UnknownNameError
from polyres.separation.labels import DEFAULT, EMBEDDED, model_label
from polyres.separation.load import LoadedSeparator, load_separator
from polyres.separation.options import SeparateOptions
from polyres.separation.registry import known_models
from polyres.studio.mixing import difference

Kind = Literal["separate", "reconstruct"]
Progress = Callable[[float], None]
DIFFERENCE = "difference"


@dataclass(frozen=True)
class Choice:
    """A model or codec that can be chosen."""

    id: str  # how it is asked for
    kind: Kind  # "separate" or "reconstruct"
    label: str  # how it is shown


@dataclass(frozen=True)
class Made:
    """Result of a job."""

    files: dict[str, Path]  # name to file, in the order to show
    gain: float = 1.0  # factor on all of them, which the original needs as well to be as loud
    warnings: tuple[str, ...] = ()  # one line each


class Engine(Protocol):
    """Interface of what turns a song into stems or versions."""

    @property
    def choices(self) -> Sequence[Choice]:
        """Available choices; the first is the default."""

    def run(self, choice: Choice, song: Path, folder: Path, progress: Progress) -> Made:
        """Run a choice on a song."""


class PolyresEngine:
    """Models and codecs of polyres; the last used one stays in memory.

    Args:
        models: names or files of separators to offer besides those that are installed.
        codecs: names or folders of codecs besides the embedded one; `NAME+ENHANCER` adds an enhanced version.
        device: "auto", "cpu", "cuda" or "mps".
    """

    def __init__(self, models: Sequence[str] = (), codecs: Sequence[str] = (), device: str = "auto") -> None:
        installed = [info.name for info in known_models() if info.present]
        names = [EMBEDDED if name == DEFAULT else name for name in [*models, *(installed or [DEFAULT])]]
        offered: list[tuple[Kind, str, str]] = [("separate", *pair) for pair in _labels(names)]
        offered += [("reconstruct", *pair) for pair in _labels([*codecs, "default"])]
        self._given = {f"{kind}:{label}": name for kind, label, name in offered}
        self._choices = [Choice(f"{kind}:{label}", kind, label) for kind, label, _ in offered]
        self._asked_for = {*models, *codecs}
        self._device = device
        self._loaded: tuple[str, LoadedSeparator | Chain] | None = None

    @property
    def choices(self) -> Sequence[Choice]:
        """What can be asked for; the first is the default."""
        return self._choices

    def check(self) -> None:
        """Load the choices once to find errors early; the default model stays loaded.

        Raises:
            PolyresError: as `load_separator`, `load_codec` and `chain_of`.
        """
        default, *others = self._choices
        for choice in others:
            if self._given[choice.id] in self._asked_for:
                self._load(choice)
        self._load(default)

    def run(self, choice: Choice, song: Path, folder: Path, progress: Progress) -> Made:
        """Separate or reconstruct; see `Engine`.

        Raises:
            PolyresError: when the song or the model cannot be used, or the results cannot be written.
        """
        loaded = self._load(choice)
        job = Job(song, folder / "out")
        if isinstance(loaded, LoadedSeparator):
            result = loaded.run(job, SeparateOptions(), OutputOptions(), progress)
            return Made(dict(result.stems), result.gain, result.warnings)
        found = next(reconstruct_jobs(loaded, [job], OutputOptions(), plots=False, watch=_Watch(progress)))
        if found.error is not None:
            raise PolyresError(found.error)
        files = {name: found.files[name] for name in (ORIGINAL, CODEC, ENHANCED) if name in found.files}
        files[DIFFERENCE] = folder / f"{DIFFERENCE}.wav"
        difference(files[ORIGINAL], files.get(ENHANCED, files[CODEC]), files[DIFFERENCE])
        return Made(files, found.gain, found.warnings)

    def _load(self, choice: Choice) -> LoadedSeparator | Chain:
        if choice.id not in self._given:
            raise UnknownNameError(f"there is no {choice.id!r} here; choose one of {', '.join(self._given)}")
        if self._loaded is not None and self._loaded[0] == choice.id:
            return self._loaded[1]
        self._loaded = None  # before the next one takes its memory
        given = self._given[choice.id]
        loaded: LoadedSeparator | Chain
        if choice.kind == "separate":
            loaded = load_separator(given, self._device)
        else:
            codec, _, enhancer = given.partition("+")
            loaded = chain_of(load_codec(codec, self._device), enhancer or None)
        self._loaded = (choice.id, loaded)
        return loaded


class _Watch:
    """Forward the progress of the running job."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def track(self, job: Job) -> Iterator[Progress]:
        """Enter for a job."""
        yield self._progress


def _labels(names: Sequence[str]) -> list[tuple[str, str]]:
    """Give each name or path a unique label; paths with equal ends show more of their parts."""
    names = list(dict.fromkeys(names))
    short = {name: "polyres-wave" if name == "default" else shown(model_label(name)) for name in names}
    alike = Counter(short.values())
    pairs, used = [], Counter[str]()
    for name, label in short.items():
        if alike[label] > 1 and os.path.exists(name):
            above = [folder.name for folder in Path(os.path.abspath(name)).parents if folder.name not in ("", label)]
            label = "/".join([*above[:1], label])
        used[label] += 1
        pairs.append((f"{label} ({used[label]})" if used[label] > 1 else label, name))
    return pairs
