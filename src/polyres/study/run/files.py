"""The folder of a study: what was compared, every score, and what every run cost.

`study.json` says what was compared, with the whole recipe of every arm; `runs/ARM/seedK/` are ordinary run folders.
`rows.jsonl` holds the scores with the run as model (`ARM/seedK`), `baselines.jsonl` those of silence and of an equal
share of the mixture, `costs.jsonl` and `history.jsonl` one line per run that has been scored. A paper needs the files
beside `runs/` only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from polyres.core.config import read_as
from polyres.core.errors import InputError
from polyres.core.json_text import json_file, json_value
from polyres.core.whole_files import write_whole
from polyres.study.evaluate.rows import RowFile, ScoreRow, row_text

STUDY_FILE = "study.json"
ROWS_FILE = "rows.jsonl"
BASELINES_FILE = "baselines.jsonl"
COSTS_FILE = "costs.jsonl"
HISTORY_FILE = "history.jsonl"
RUNS_FOLDER = "runs"
FORMAT = 1

T = TypeVar("T", bound="Cost | History")

_RUN_NAME = re.compile(r"(?P<arm>[^/]+)/seed(?P<seed>\d+)")


@dataclass(frozen=True)
class Arm:
    """One of the things that a study compares."""

    name: str  # of the arm; a folder is named after it
    settings: Mapping[str, Any]  # dotted keys of the recipe with the values that make it differ from the study's recipe
    config: Mapping[str, Any] = field(default_factory=dict)  # its whole recipe but for seed and data folder, once known


@dataclass(frozen=True)
class Study:
    """What was compared with what, on which data.

    Args:
        name: of the study, for files.
        title: for people.
        question: one sentence.
        base: the recipe that the arms differ from.
        reference: the arm that others are compared with; None where there is none.
        primary: name of the metric that decides.
        metrics: names of all metrics.
        data: what was scored on, as the study file has it.
        arms: in the order of the study file.
        seeds: of the runs of every arm.
        commit: of the code, if known.
        versions: of the packages a result depends on.
        budget: what is equal in all arms: {"equal": "steps"} or {"equal": "seconds", "seconds": …}; None says nothing.
        common: dotted keys with the values that hold for all arms in place of the recipe's.
    """

    name: str
    title: str
    question: str
    base: str
    reference: str | None
    primary: str
    metrics: tuple[str, ...]
    data: Mapping[str, Any]
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    commit: str | None
    versions: Mapping[str, str]
    budget: Mapping[str, Any] | None = None
    common: Mapping[str, Any] = field(default_factory=dict)

    def arm(self, name: str) -> Arm:
        """Return an arm by its name.

        Raises:
            InputError: if there is none.
        """
        for arm in self.arms:
            if arm.name == name:
                return arm
        raise InputError(f"the study {self.name} has no arm {name!r}; it has {', '.join(a.name for a in self.arms)}")


@dataclass(frozen=True)
class Cost:
    """What a run cost."""

    arm: str  # its arm
    seed: int  # its seed
    fingerprint: str  # of its config
    parameters: int  # of the model
    macs_per_s: float | None  # multiply-accumulates per second of audio; None where nobody counted
    train_s: float  # seconds of training and validation, over all parts of the run
    cpu_s: float  # seconds that processors were busy in that time, all of them together
    steps: int  # optimiser steps
    energy_wh: float | None  # estimate in watt hours, `cpu_s` times `watts_per_core`; None where a GPU did the work
    watts_per_core: float  # what a busy core is assumed to draw
    device: str  # what trained
    eval_s: float  # seconds of separating and scoring
    separate_s: float | None = None  # seconds of separating per second of audio; None where nobody looked


@dataclass(frozen=True)
class History:
    """What a paper wants to know of a run beside its scores."""

    run: str  # its name
    weights_id: str  # of the weights that were scored
    epochs: tuple[Mapping[str, Any], ...]  # rows of its metrics, oldest first
    fusion: Mapping[str, Any] | None = None  # its fusion report, where it has several resolutions


def model_name(arm: str, seed: int) -> str:
    """Return what the run is called in the rows."""
    return f"{arm}/seed{seed}"


def split_name(model: str) -> tuple[str, int]:
    """Split the name of a run in the rows, such as `nn/seed1`, into arm and seed."""
    match = _RUN_NAME.fullmatch(model)
    if match is None:
        raise InputError(f"{model!r} is no run of a study; such a name reads ARM/seedK")
    return match["arm"], int(match["seed"])


def run_folder(folder: Path, arm: str, seed: int) -> Path:
    """Return where a run of the study in `folder` lies."""
    return folder / RUNS_FOLDER / arm / f"seed{seed}"


def write_study(folder: Path, study: Study) -> None:
    """Write the description of a study, making its folder if need be."""
    values = asdict(study)
    write_whole(folder / STUDY_FILE, json.dumps({"format": FORMAT, **values}, indent=2, ensure_ascii=False) + "\n")


def read_study(folder: Path) -> Study:
    """Read what a study compares.

    Args:
        folder: of the study.

    Raises:
        InputError: if there is no study, or it cannot be read.
    """
    path = folder / STUDY_FILE
    if not path.is_file():
        raise InputError(f"'{folder}' holds no study ({STUDY_FILE} is missing); give the --out of a polyres study")
    try:
        values = json_file(path)
        if values.pop("format") != FORMAT:
            raise InputError(f"'{path}' is of another format; use the version of polyres that wrote it")
        return read_as(Study, values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"'{path}' cannot be read ({error}); run the study again to write it anew") from error


def read_rows(folder: Path, name: str = ROWS_FILE) -> list[ScoreRow]:
    """Read the scores of a study; none where nothing has been scored yet.

    Args:
        folder: of the study.
        name: of the file in it.

    Raises:
        InputError: if the file is no file of scores.
    """
    return RowFile(folder / name).rows


def write_rows(folder: Path, rows: Sequence[ScoreRow], name: str = ROWS_FILE) -> None:
    """Write all scores of a study atomically."""
    write_whole(folder / name, "".join(row_text(row) + "\n" for row in rows))


def read_costs(folder: Path) -> list[Cost]:
    """Read what the runs cost; nothing where none has been scored yet.

    Args:
        folder: of the study.

    Raises:
        InputError: if the file cannot be read.
    """
    return _read_lines(folder / COSTS_FILE, Cost)


def read_history(folder: Path) -> dict[str, History]:
    """Read what is known of the runs, by their names."""
    return {one.run: one for one in _read_lines(folder / HISTORY_FILE, History)}


def _read_lines(path: Path, kind: type[T]) -> list[T]:
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines() if path.is_file() else (), start=1):
        try:
            values = json_value(line, special=True)
            found.append(read_as(kind, {one.name: values[one.name] for one in fields(kind) if one.name in values}))
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(
                f"line {number} of '{path}' is no {kind.__name__.lower()} of a run; run the study again"
            ) from error
    return found


def write_costs(folder: Path, costs: Sequence[Cost]) -> None:
    """Write the costs of the runs atomically."""
    write_whole(folder / COSTS_FILE, "".join(json.dumps(asdict(cost)) + "\n" for cost in costs))


def write_history(folder: Path, history: Sequence[History]) -> None:
    """Write what is known of the runs atomically."""
    write_whole(folder / HISTORY_FILE, "".join(json.dumps(asdict(one)) + "\n" for one in history))
