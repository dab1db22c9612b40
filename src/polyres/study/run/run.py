"""Run a study: start, watch and gather its runs; a failed run does not stop the others."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from polyres.core.config import diff
from polyres.core.errors import OutputError, PolyresError
from polyres.core.whole_files import write_whole
from polyres.separation.training.task import TrainConfig
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.evaluate.run import EvaluateOptions, evaluate
from polyres.study.evaluate.subjects import GuessSubject
from polyres.study.paper.data import BASELINES, read_lines
from polyres.study.paper.weights import fusion_report
from polyres.study.plan.arms import Plan, Run
from polyres.study.run.files import (
    BASELINES_FILE,
    Cost,
    History,
    read_costs,
    read_history,
    run_folder,
    write_costs,
    write_history,
    write_rows,
)
from polyres.study.run.job import Outcome, load_tracks, scores_id
from polyres.study.run.processes import Backend, Handle
from polyres.study.run.state import Clock, config_of, job_of, outcome_of, places_of, scores_of, take_over
from polyres.training.progress import StopRequest
from polyres.training.run_folder import CONFIG_FILE, MAY_CHANGE, METRICS_FILE

KILL_AFTER_S = 60.0
BASELINES_FOLDER = "baselines"
EPOCH_KEYS = ("epoch", "step", "elapsed_s", "loss", "grad_norm", "grad_norms")
"""What is kept of the rows of a run's metrics, beside the validation scores."""

_POLL_S = 0.2
_TELL_EVERY_S = 30.0

Report = Callable[[str], None]
CountMacs = Callable[[TrainConfig], float]
"""Multiply-accumulates per second of audio of a recipe's model."""


@dataclass(frozen=True)
class Failure:
    """A run that could not be trained or scored."""

    run: str  # its name
    status: int  # exit status of its process
    reason: str  # what it said last
    log: Path  # file with all it said


@dataclass
class StudyResult:
    """Result of a study."""

    done: list[str] = field(default_factory=list)  # runs with scores in the rows, of this and earlier calls
    failures: list[Failure] = field(default_factory=list)  # runs of this call that came to nothing
    stopped_by: int | None = None  # the signal that ended it early


def run_study(plan: Plan, folder: Path, backend: Backend, report: Report, count_macs: CountMacs | None) -> StudyResult:
    """Carry a study out: what is not yet done of it, as many runs at a time as the backend has slots.

    Args:
        plan: from `open_folder`.
        folder: of the study.
        backend: where jobs are done.
        report: told a line per event, and how far it is now and then.
        count_macs: counts for the costs; None leaves them out.

    Returns:
        How it went; `rows.jsonl` and `costs.jsonl` hold all that is done, and are written after every run.

    Raises:
        OutputError: if results cannot be written.
        InputError: if results of earlier runs cannot be read.
    """
    carrying = _Carrying(plan, folder, backend, report, count_macs)
    carrying.gather()
    with StopRequest() as stop:
        try:
            carrying.work(stop)
        except BaseException:
            carrying.end_all(hard=True)
            raise
    carrying.result.stopped_by = stop.number
    if carrying.result.done and stop.number is None:
        carrying.score_baselines()
    return carrying.result


@dataclass
class _Going:
    """A run that is under way."""

    run: Run
    handle: Handle
    slot: int
    started_s: float
    log: Path


class _Carrying:
    """The state of a study while it is carried out."""

    def __init__(
        self, plan: Plan, folder: Path, backend: Backend, report: Report, count_macs: CountMacs | None
    ) -> None:
        self.plan, self.folder, self.backend, self.report = plan, folder, backend, report
        self.result = StudyResult()
        self._count = count_macs
        self._macs: dict[str, float] = {}
        self._going: list[_Going] = []
        done = {run.name for run in plan.runs if outcome_of(plan, run, folder) is not None}
        self._waiting = [run for run in plan.runs if run.name not in done]
        self._clock = Clock(backend.slots())
        self._finished = 0
        if done:
            report(f"{len(done)} of {len(plan.runs)} runs are done already")

    def work(self, stop: StopRequest) -> None:
        """Start and watch jobs until all are over; on a signal, let those that are going on save and end."""
        total, told_s, stopped_s = len(self._waiting), time.monotonic(), 0.0
        while self._waiting or self._going:
            if stop.number is not None and not stopped_s:
                stopped_s = time.monotonic()
                self.report(f"stopping: {len(self._going)} runs save where they are")
                self._waiting.clear()
                self.end_all(hard=False)
            if stopped_s and time.monotonic() - stopped_s > KILL_AFTER_S:
                self.end_all(hard=True)
            self._start_some()
            time.sleep(_POLL_S)
            for going in [one for one in self._going if one.handle.poll() is not None]:
                self._going.remove(going)
                self._close(going, total, stopping=stop.number is not None)
            if time.monotonic() - told_s >= _TELL_EVERY_S:
                told_s = time.monotonic()
                self._tell(total)

    def end_all(self, hard: bool) -> None:
        """End the jobs that are going on."""
        for going in self._going:
            going.handle.stop(hard)

    def _start_some(self) -> None:
        """Fill the free slots."""
        taken = {going.slot for going in self._going}
        for slot in [slot for slot in range(self.backend.slots()) if slot not in taken]:
            if not self._waiting:
                return
            run = self._waiting.pop(0)
            places, twin = places_of(self.folder, run), take_over(run, self.folder)
            if twin is not None:
                self.report(f"{run.name}  trained already as {twin}")
            job = job_of(self.plan, run, self.folder, self.backend.threads())
            write_whole(places.recipe, run.config.to_yaml())
            write_whole(places.job, job.to_yaml())
            try:
                handle = self.backend.start(places.job, places.log, slot, job.threads)
            except OSError as error:
                raise OutputError(f"cannot start a process for {run.name}: {error.strerror or error}") from error
            self._going.append(_Going(run, handle, slot, time.monotonic(), places.log))

    def _close(self, going: _Going, total: int, stopping: bool) -> None:
        """Record a job that has ended."""
        status, run = going.handle.poll() or 0, going.run
        if stopping and status != 0:
            return
        self._finished += 1
        seconds = time.monotonic() - going.started_s
        outcome = outcome_of(self.plan, run, self.folder) if status == 0 else None
        head = f"{self._finished}/{total}  {run.name}"
        if outcome is None:
            failure = Failure(run.name, status, last_words(going.log), going.log)
            self.result.failures.append(failure)
            self.report(f"{head}  failed: {failure.reason}")
            return
        self._clock.note(run.arm, seconds)
        self.gather()
        score = mean_score(scores_of(self.plan, run, self.folder), self.plan.study.primary)
        figures = f"{outcome.steps} steps in {outcome.train_s:.0f} s, scored in {outcome.eval_s:.0f} s"
        self.report(f"{head}  {figures}, {self.plan.study.primary} {score}  {self._to_go()}")

    def _to_go(self) -> str:
        """Word the time that is left."""
        running = [(one.run.arm, time.monotonic() - one.started_s) for one in self._going]
        return self._clock.words(running, [run.arm for run in self._waiting])

    def _tell(self, total: int) -> None:
        """Say how far the jobs are that are going on."""
        for going in self._going:
            self.report(f"{self._finished}/{total}  {going.run.name}  {last_words(going.log)}  {self._to_go()}")

    def gather(self) -> None:
        """Write the rows and costs of all runs of the study that are done, those of earlier calls included."""
        known = {(cost.arm, cost.seed): cost for cost in read_costs(self.folder)}
        planned = {(run.arm, run.seed): run for run in self.plan.runs}
        before = read_history(self.folder)
        rows, costs, history, self.result.done = [], [], [], []
        for seed in self.plan.study.seeds:
            for arm in self.plan.study.arms:
                run = planned.get((arm.name, seed)) or self._earlier(arm.name, seed)
                outcome = outcome_of(self.plan, run, self.folder) if run is not None else None
                if run is None or outcome is None:
                    continue
                self.result.done.append(run.name)
                rows += scores_of(self.plan, run, self.folder)
                costs.append(self._cost(run, outcome, known.get((run.arm, run.seed))))
                kept = before.get(run.name)
                same = kept is not None and kept.weights_id == outcome.weights_id
                history.append(kept if kept is not None and same else self._history(run, outcome))
        write_rows(self.folder, rows)
        write_costs(self.folder, costs)
        write_history(self.folder, history)

    def _history(self, run: Run, outcome: Outcome) -> History:
        """Gather what a paper wants to know of a run, so that its folder is not needed."""
        place = run_folder(self.folder, run.arm, run.seed)
        epochs = []
        for row in read_lines(place / METRICS_FILE):
            valid = {name: {"score": one["score"]} for name, one in (row.get("valid") or {}).items() if "score" in one}
            epochs.append({**{key: row[key] for key in EPOCH_KEYS if key in row}, "valid": valid})
        report = fusion_report(place, run.name) if len(run.config.model.n_fft) > 1 else None
        return History(run.name, outcome.weights_id, tuple(epochs), None if report is None else report.to_dict())

    def score_baselines(self) -> None:
        """Score silence and an equal share of the mixture on the same tracks."""
        config = self.plan.config
        place = self.folder / BASELINES_FOLDER / scores_id(config.data, config.separation)
        options = EvaluateOptions(config.metrics, 1, config.data.own_mixture)
        try:
            tracks = load_tracks(config.data, self.plan.runs[0].config)
            rows = evaluate([GuessSubject(name) for name in BASELINES], tracks, place, options, lambda *_: None)
        except PolyresError as error:
            self.report(f"silence and the share of the mixture are not scored: {error}")
            return
        write_rows(self.folder, rows, BASELINES_FILE)

    def _earlier(self, arm: str, seed: int) -> Run | None:
        """Return a run that an earlier call asked for; None if it is not what this study would train now."""
        place = run_folder(self.folder, arm, seed)
        like = next((run for run in self.plan.runs if run.arm == arm), None)
        if not (place / CONFIG_FILE).is_file():
            return None
        config = config_of(place)
        if like is not None and set(diff(like.config, config)) - MAY_CHANGE - {"seed"}:
            return None
        return Run(arm, seed, config)

    def _cost(self, run: Run, outcome: Outcome, known: Cost | None) -> Cost:
        """Compute the cost of a run."""
        macs = known.macs_per_s if known is not None and known.fingerprint == outcome.fingerprint else None
        if macs is None and self._count is not None:
            if run.arm not in self._macs:
                self._macs[run.arm] = self._count(run.config)
            macs = self._macs[run.arm]
        watts, on_cpu = self.plan.config.watts_per_core, outcome.device == "cpu"
        return Cost(
            arm=run.arm,
            seed=run.seed,
            fingerprint=outcome.fingerprint,
            parameters=outcome.parameters,
            macs_per_s=macs,
            train_s=round(outcome.train_s, 1),
            cpu_s=round(outcome.cpu_s, 1),
            steps=outcome.steps,
            energy_wh=round(outcome.cpu_s * watts / 3600, 4) if on_cpu else None,
            watts_per_core=watts,
            device=outcome.device,
            eval_s=round(outcome.eval_s, 1),
            separate_s=None if outcome.separate_s is None else round(outcome.separate_s, 4),
        )


def mean_score(rows: Sequence[ScoreRow], metric: str) -> str:
    """Word the mean of a metric over all rows."""
    values = [row.value for row in rows if row.metric == metric and row.value is not None]
    return f"{sum(values) / len(values):.2f}" if values else "–"


def last_words(log: Path, limit: int = 200) -> str:
    """Return the last line of a log, or the error that the process ended with."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 20_000))
            lines = [line.strip() for line in file.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        return "nothing was said"
    if not lines:
        return "nothing was said"
    line = lines[-1].removeprefix("error: ")
    return line if len(line) <= limit else line[: limit - 1] + "…"


def exit_status(result: StudyResult) -> int:
    """Return what the command ends with: 0, 1 where a run failed, or 128 + the signal that stopped it."""
    if result.stopped_by is not None:
        return 128 + result.stopped_by
    return 1 if result.failures else 0
