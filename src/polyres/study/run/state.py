"""Find out which runs of a study are done as planned."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from polyres.core.config import diff
from polyres.core.errors import ConfigError, OutputError
from polyres.separation.training.task import TrainConfig
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.plan.arms import Plan, Run
from polyres.study.run.files import RUNS_FOLDER, STUDY_FILE, read_study, run_folder, write_study
from polyres.study.run.job import SCORES_FOLDER, Job, Outcome, forget_scoring, is_trained, read_outcome, read_scores
from polyres.training.run_folder import CONFIG_FILE, MAY_CHANGE, is_held


@dataclass(frozen=True)
class Places:
    """Files of a run within a study."""

    run: Path
    recipe: Path
    job: Path
    log: Path


def places_of(folder: Path, run: Run) -> Places:
    """Return where the files of a run lie."""
    place = run_folder(folder, run.arm, run.seed)
    beside = [place.with_name(f"{place.name}{suffix}") for suffix in (".yaml", ".job.yaml", ".log")]
    return Places(place, beside[0], beside[1], beside[2])


def job_of(plan: Plan, run: Run, folder: Path, threads: int = 1) -> Job:
    """Return what has to be done for a run."""
    places, config = places_of(folder, run), plan.config
    return Job(
        name=run.name,
        run=str(places.run),
        recipe=str(places.recipe),
        data=config.data,
        metrics=config.metrics,
        parts=config.parts,
        separation=config.separation,
        threads=min(run.config.threads or threads, threads),
    )


def outcome_of(plan: Plan, run: Run, folder: Path) -> Outcome | None:
    """Return the result of a run that was trained and scored as planned, else None."""
    job = job_of(plan, run, folder)
    _refuse_another(Path(job.run), run)
    if not is_trained(Path(job.run), run.config):
        return None
    outcome = read_outcome(job.scores_folder())
    if outcome is None or plan.config.parts > outcome.parts:
        return None
    return outcome if set(plan.config.metrics) <= set(outcome.metrics) else None


def config_of(place: Path) -> TrainConfig:
    """Return the config of a run folder, cached while the file does not change."""
    path = place / CONFIG_FILE
    return _config(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=256)
def _config(path: Path, changed_ns: int) -> TrainConfig:
    return TrainConfig.from_yaml(path)


def _refuse_another(place: Path, run: Run) -> None:
    """Refuse a run folder whose recipe differs in what shapes the weights."""
    if not (place / CONFIG_FILE).is_file():
        return
    changes = diff(config_of(place), run.config)
    for key, (there, here) in changes.items():
        if key not in MAY_CHANGE:
            raise ConfigError(
                f"{place} holds a run with other settings ({key} was {there!r} and is now {here!r}); "
                "choose another --out, or remove that run"
            )


def open_folder(plan: Plan, folder: Path) -> Plan:
    """Write down what is compared; seeds of earlier calls stay part of the study.

    Args:
        plan: of this call.
        folder: of the study.

    Returns:
        The plan with the seeds of all calls in its study.

    Raises:
        ConfigError: if another study lies there, or one of its runs has other settings.
        InputError: if the study there cannot be read.
        OutputError: if the folder cannot be written.
    """
    study = plan.study
    if (folder / STUDY_FILE).is_file():
        before = read_study(folder)
        if before.name != study.name:
            raise ConfigError(f"{folder} holds the study {before.name!r}; choose another --out for {study.name!r}")
        kept = {arm.name: arm.config for arm in before.arms}
        arms = tuple(replace(arm, config=arm.config or kept.get(arm.name, {})) for arm in study.arms)
        study = replace(study, arms=arms, seeds=tuple(dict.fromkeys((*before.seeds, *study.seeds))))
    for run in plan.runs:
        _refuse_another(places_of(folder, run).run, run)
    write_study(folder, study)
    return replace(plan, study=study)


def take_over(run: Run, folder: Path) -> Path | None:
    """Copy the run of a study beside this one that was trained just so; return where it came from, None without one.

    Its scores stay behind, as they have another run's name.
    """
    place = places_of(folder, run).run
    for found in sorted(folder.parent.glob(f"*/{RUNS_FOLDER}/*/{place.name}/{CONFIG_FILE}")):
        other = found.parent
        if place.exists() or set(diff(config_of(other), run.config)) - MAY_CHANGE or not is_trained(other, run.config):
            continue
        part = place.with_name(f"{place.name}.part")
        try:
            shutil.rmtree(part, ignore_errors=True)
            shutil.copytree(other, part, ignore=shutil.ignore_patterns(SCORES_FOLDER))
            forget_scoring(part)
            part.rename(place)
        except OSError as error:
            raise OutputError(f"cannot copy {other} to {place}: {error.strerror}; free space") from error
        return other
    return None


def scores_of(plan: Plan, run: Run, folder: Path) -> list[ScoreRow]:
    """Return the rows of a run that has been scored."""
    place = job_of(plan, run, folder).scores_folder()
    outcome = read_outcome(place)
    return [] if outcome is None else read_scores(place, outcome, plan.config.metrics)


def state_of(plan: Plan, run: Run, folder: Path) -> str:
    """Word how far a run is: new, stopped, running, trained or done.

    Raises:
        ConfigError: if another run lies in its folder.
    """
    if outcome_of(plan, run, folder) is not None:
        return "done"
    place = places_of(folder, run).run
    if not (place / CONFIG_FILE).is_file():
        return "new"
    if is_trained(place, run.config):
        return "trained"
    return "running" if is_held(place) else "stopped"


class Clock:
    """Estimates the remaining time from earlier runs of the same arm, else from all."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._seconds: dict[str, list[float]] = {}

    def note(self, arm: str, seconds: float) -> None:
        """Record the duration of a run."""
        self._seconds.setdefault(arm, []).append(seconds)

    def expected_s(self, arm: str) -> float | None:
        """Return how long a run of an arm takes; None while nothing is known."""
        taken = self._seconds.get(arm) or [value for values in self._seconds.values() for value in values]
        return sum(taken) / len(taken) if taken else None

    def left_s(self, running: Sequence[tuple[str, float]], waiting: Sequence[str]) -> float | None:
        """Estimate the seconds until all is done; None while nothing is known."""
        started = [(self.expected_s(arm), so_far) for arm, so_far in running]
        rest = [max(expected - so_far, 0.0) for expected, so_far in started if expected is not None]
        whole = [expected for expected in map(self.expected_s, waiting) if expected is not None]
        if len(rest) < len(running) or len(whole) < len(waiting):
            return None
        # No run is split, so the longest of those under way is the least it takes.
        return max([(sum(rest) + sum(whole)) / max(self._slots, 1), *rest])

    def words(self, running: Sequence[tuple[str, float]], waiting: Sequence[str]) -> str:
        """Word the time that is left; nothing while it is unknown."""
        left = self.left_s(running, waiting)
        if left is None:
            return ""
        minutes, seconds = divmod(round(left), 60)
        return f"to go {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
