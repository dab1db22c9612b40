"""Train and score one run of a study in a process of its own.

`python -m polyres.study.run.job JOB.json` does one job and exits as `polyres train` would.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path

import torch

from polyres.core.config import Config
from polyres.core.errors import InputError, PolyresError
from polyres.core.json_text import json_file
from polyres.core.whole_files import write_whole
from polyres.datasets.stems import TracksConfig, TracksDataset
from polyres.nn.device import resolve_device
from polyres.separation.load import LoadedSeparator
from polyres.separation.options import SeparateOptions
from polyres.separation.registry import load_model
from polyres.separation.training.run_table import summarise
from polyres.separation.training.task import TrainConfig
from polyres.study.evaluate.rows import RowFile, ScoreRow
from polyres.study.evaluate.run import ROWS_FILE as SCORES_FILE
from polyres.study.evaluate.run import EvaluateOptions, evaluate
from polyres.study.evaluate.subjects import ModelSubject, origin_of, parts_of
from polyres.study.plan.config import SeparationConfig, StudyDataConfig
from polyres.study.run.train import run_training
from polyres.training.run_folder import BEST_FILE, CONFIG_FILE
from polyres.training.task import resolve_roots

EFFORT_FILE = "effort.json"
OUTCOME_FILE = "outcome.json"
SCORES_FOLDER = "scores"

_LOOK_FOR_PARENT_S = 1.0


class Job(Config):
    """The work of one process."""

    name: str  # of the run in the rows
    run: str  # its folder
    recipe: str  # YAML file with its whole recipe
    data: StudyDataConfig  # what to score on
    metrics: tuple[str, ...]  # names
    parts: bool = False  # score the resolutions of a model one by one, and all but each, too
    separation: SeparationConfig = SeparationConfig()  # how to separate for the scores
    threads: int = 1  # that computing may take

    def scores_folder(self) -> Path:
        """Folder of the scores; another one for other data or another way to separate."""
        return Path(self.run) / SCORES_FOLDER / scores_id(self.data, self.separation)


def scores_id(data: StudyDataConfig, separation: SeparationConfig) -> str:
    """Return a name for what a model is scored on, and how."""
    both = {"data": data.to_dict(), "separation": separation.to_dict()}
    return _Scored.from_dict(both).fingerprint()[:8]


class _Scored(Config):
    """What decides what scores mean."""

    data: StudyDataConfig
    separation: SeparationConfig


@dataclass(frozen=True)
class Outcome:
    """The result of a run that was trained and scored."""

    fingerprint: str  # of its config
    weights_id: str  # of the weights that were scored
    metrics: tuple[str, ...]  # that were measured
    parameters: int  # of the model
    train_s: float  # seconds of training and validation, over all parts of the run
    cpu_s: float  # seconds that processors were busy in that time
    steps: int  # optimiser steps
    device: str  # what trained
    eval_s: float  # seconds of separating and scoring, over all parts
    separate_s: float | None = None  # seconds of separating per second of audio
    parts: bool = False  # whether its resolutions were scored, or there is but one


def read_outcome(folder: Path) -> Outcome | None:
    """Read the result of a run; None where it was not scored to the end or cannot be read."""
    try:
        values = json_file(folder / OUTCOME_FILE, special=True)
        return Outcome(**{**values, "metrics": tuple(values["metrics"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def read_scores(folder: Path, outcome: Outcome, metrics: Sequence[str]) -> list[ScoreRow]:
    """Read the scores of the weights that a run ended with."""
    rows = RowFile(folder / SCORES_FILE).rows
    return [row for row in rows if row.weights_id == outcome.weights_id and row.metric in metrics]


@dataclass(frozen=True)
class Effort:
    """Time and energy seen while a run was worked on; killed attempts are missing."""

    cpu_s: float = 0.0  # seconds that processors were busy with training
    seen_s: float = 0.0  # seconds of training in which that was counted
    eval_s: float = 0.0  # seconds of separating and scoring


def _read_effort(folder: Path) -> Effort:
    try:
        values = json_file(folder / EFFORT_FILE, special=True)
        return Effort(**{one.name: float(values[one.name]) for one in fields(Effort)})
    except (OSError, ValueError, TypeError, KeyError):
        return Effort()


def _write_effort(folder: Path, effort: Effort) -> None:
    write_whole(folder / EFFORT_FILE, json.dumps(asdict(effort)) + "\n")


def forget_scoring(folder: Path) -> None:
    """Leave out of the effort of a run what its scores took."""
    _write_effort(folder, replace(_read_effort(folder), eval_s=0.0))


def busy_s() -> float:
    """Return the seconds that processors were busy for this process and for those of its children that have ended."""
    if sys.platform == "win32":
        return time.process_time()
    import resource

    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def do_job(job: Job) -> int:
    """Train a run to its end and score it, skipping what is done; return 0, or 128 + the signal that stopped it."""
    torch.set_num_threads(job.threads)
    recipe = TrainConfig.from_yaml(job.recipe)
    run = Path(job.run)
    if not is_trained(run, recipe):
        stopped_by = _train(job, run)
        if stopped_by is not None:
            return 128 + stopped_by
    _score(job, run, recipe)
    return 0


def is_trained(run: Path, recipe: TrainConfig) -> bool:
    """Say whether a run has reached the end of its recipe."""
    if not (run / CONFIG_FILE).is_file() or not (run / BEST_FILE).is_file():
        return False
    summary = summarise(run, run.name)
    if summary.state != "finished" or summary.config is None:
        return False
    return (summary.config.epochs, summary.config.time_budget_s) == (recipe.epochs, recipe.time_budget_s)


def _train(job: Job, run: Path) -> int | None:
    """Train, and note how busy the processors were; return the signal that stopped it."""
    before = _read_effort(run)
    start_cpu_s, start_s = busy_s(), time.monotonic()
    is_there = (run / CONFIG_FILE).exists()
    try:
        return run_training(Path(job.recipe), run, [f"threads={job.threads}"], resume=is_there).stopped_by
    finally:
        seen_s, cpu_s = time.monotonic() - start_s, busy_s() - start_cpu_s
        _write_effort(run, replace(before, cpu_s=before.cpu_s + cpu_s, seen_s=before.seen_s + seen_s))


def _score(job: Job, run: Path, recipe: TrainConfig) -> None:
    """Score the best weights of a run, and say what it has come to."""
    device = resolve_device(recipe.device)
    model = load_model(str(run / BEST_FILE))
    separator = LoadedSeparator(model, job.name, str(device), "fp32")
    options = SeparateOptions(overlap=job.separation.overlap, shifts=job.separation.shifts)
    subject = ModelSubject(separator, origin_of(str(run / BEST_FILE), separator), options)
    tracks = load_tracks(job.data, recipe)
    done, start_s = 0, time.monotonic()

    def report(model: str, part: str, track: str) -> None:
        nonlocal done
        done += 1
        print(
            f"{100 * done / len(tracks) / len(subjects):5.1f} %  scored {track} ({part})", file=sys.stderr, flush=True
        )

    subjects = [subject, *(parts_of(subject) if job.parts and len(recipe.model.n_fft) > 1 else ())]
    evaluate(subjects, tracks, job.scores_folder(), EvaluateOptions(job.metrics, 1, job.data.own_mixture), report)
    for line in tracks.warnings:
        print(f"warning: {line}", file=sys.stderr, flush=True)
    effort = _read_effort(run)
    effort = replace(effort, eval_s=effort.eval_s + time.monotonic() - start_s)
    _write_effort(run, effort)
    summary = summarise(run, run.name)
    seen = summary.elapsed_s / effort.seen_s if effort.seen_s else 1.0
    outcome = Outcome(
        fingerprint=subject.origin.fingerprint or recipe.fingerprint(),
        weights_id=separator.weights_id,
        metrics=job.metrics,
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        train_s=summary.elapsed_s,
        # Of what went unseen it is known how long it took, so it is taken to have been as busy as the rest.
        cpu_s=effort.cpu_s * max(seen, 1.0),
        steps=summary.step,
        device=device_name(device),
        eval_s=effort.eval_s,
        separate_s=_time_separation(separator, options, tracks),
        parts=job.parts,
    )
    write_whole(job.scores_folder() / OUTCOME_FILE, json.dumps(asdict(outcome), indent=2) + "\n")


def _time_separation(separator: LoadedSeparator, options: SeparateOptions, tracks: TracksDataset) -> float:
    """Return the seconds that separating takes per second of audio, on the first track while nothing is scored."""
    mixture, start_s = tracks[0].sum(dim=0), time.monotonic()
    separator.separate(mixture, tracks.config.sample_rate_hz, options)
    return (time.monotonic() - start_s) * tracks.config.sample_rate_hz / mixture.shape[-1]


def load_tracks(data: StudyDataConfig, recipe: TrainConfig) -> TracksDataset:
    """Find the tracks to score on, named with the labels of their roots."""
    folders = resolve_roots(tuple(data.roots.values()), recipe.data_dir)
    model = recipe.model
    sets = []
    for label, folder in zip(data.roots, folders, strict=True):
        config = TracksConfig(
            roots=(folder,),
            layout=data.layout,
            split=data.split,
            sources=model.sources,
            sample_rate_hz=model.sample_rate_hz,
            audio_channels=model.audio_channels,
            max_length_s=data.max_length_s,
        )
        tracks = TracksDataset(config)
        if label:
            tracks.tracks = [replace(track, name=f"{label}/{track.name}") for track in tracks.tracks]
        sets.append(tracks)
    first = sets[0]
    first.tracks = [track for tracks in sets for track in tracks.tracks]
    return first


def device_name(device: torch.device) -> str:
    """Word what trained: `cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


@contextmanager
def ending_with_parent() -> Iterator[None]:
    """End as on SIGTERM when the process that started this one is gone, so that nothing trains on unseen."""
    parent, over = os.getppid(), threading.Event()

    def watch() -> None:
        while not over.wait(_LOOK_FOR_PARENT_S):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()


def main(arguments: Sequence[str]) -> int:
    """Do the job of a file, and word errors as the command line does."""
    try:
        if len(arguments) != 1:
            raise InputError("name one file with a job")
        job = Job.from_yaml(arguments[0])
        with ending_with_parent():
            return do_job(job)
    except PolyresError as error:
        print("error: " + " ".join(str(error).splitlines()), file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt as error:
        raise SystemExit(128 + signal.SIGINT) from error


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
