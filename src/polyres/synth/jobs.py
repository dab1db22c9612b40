"""Run synthesis jobs over processes, skip finished ones, and count time and stems."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from polyres.core.errors import OutputError
from polyres.synth.instruments.render import SAMPLE_RATE_HZ, is_finished, read_manifest, write_track

MADE_FROM = "made_from"


class Job(Protocol):
    """One track to synthesise; jobs must pickle."""

    @property
    def folder(self) -> Path:
        """Output folder of the track."""

    @property
    def made_from(self) -> str:
        """Fingerprint of everything that the track depends on but its folder."""

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return stems as float32 `[2, T]` and the manifest."""


@dataclass(frozen=True)
class Made:
    """Result of a job; `cpu_s` counts the processes it started, and is 0 where the track was there already."""

    name: str
    length_s: float
    stems: tuple[str, ...]
    cpu_s: float = 0.0
    skipped: bool = False


@dataclass
class Totals:
    """Sums over tracks; hours of stems in `stem_s` are seconds by name."""

    tracks: int = 0
    skipped: int = 0
    made_s: float = 0.0
    there_s: float = 0.0
    cpu_s: float = 0.0
    stem_tracks: dict[str, int] = field(default_factory=dict)
    stem_s: dict[str, float] = field(default_factory=dict)

    def add(self, made: Made) -> None:
        """Count one track."""
        self.tracks += not made.skipped
        self.skipped += made.skipped
        self.made_s += 0.0 if made.skipped else made.length_s
        self.there_s += made.length_s
        self.cpu_s += made.cpu_s
        for stem in made.stems:
            self.stem_tracks[stem] = self.stem_tracks.get(stem, 0) + 1
            self.stem_s[stem] = self.stem_s.get(stem, 0.0) + made.length_s

    @property
    def hours_per_cpu_hour(self) -> float | None:
        """Hours of audio per core hour; None without new audio."""
        return self.made_s / self.cpu_s if self.cpu_s > 0 and self.made_s > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the sums as JSON holds them, in hours."""
        speed = self.hours_per_cpu_hour
        return {
            "tracks_made": self.tracks,
            "tracks_there_before": self.skipped,
            "hours_made": round(self.made_s / 3600.0, 5),
            "hours": round(self.there_s / 3600.0, 5),
            "cpu_hours": round(self.cpu_s / 3600.0, 5),
            "hours_per_cpu_hour": None if speed is None else round(speed, 2),
            "stems": {
                stem: {"tracks": self.stem_tracks[stem], "hours": round(self.stem_s[stem] / 3600.0, 5)}
                for stem in sorted(self.stem_s)
            },
        }


def cpu_seconds() -> float:
    """Return the seconds that this process and those it waited for have spent on the processor."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def already_made(job: Job) -> Made | None:
    """Return the existing result of a job, or None."""
    if not is_finished(job.folder):
        return None
    manifest = read_manifest(job.folder)
    if manifest.get(MADE_FROM, job.made_from) != job.made_from:
        raise OutputError(
            f"'{job.folder}' was made with another seed or other options; choose another folder or remove it"
        )
    return Made(job.folder.name, float(manifest.get("length_s", 0.0)), tuple(manifest.get("stems", ())), skipped=True)


def work(job: Job) -> Made:
    """Synthesise one track in a worker process."""
    before_s = cpu_seconds()
    waves, manifest = job.make()
    length_s = next((wave.shape[1] for wave in waves.values()), 0) / SAMPLE_RATE_HZ
    facts = {**manifest, "stems": list(waves), "length_s": length_s, MADE_FROM: job.made_from}
    write_track(job.folder, waves, facts)
    return Made(job.folder.name, length_s, tuple(waves), cpu_seconds() - before_s)


def _leave_interrupts_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def run_jobs(jobs: Iterable[Job], processes: int = 1, tell: Callable[[Made], None] | None = None) -> list[Made]:
    """Run jobs in parallel; the tracks do not depend on the number of processes.

    Args:
        processes: worker processes; 1 works in this one.
        tell: called for every track that is there, in any order.

    Returns:
        What became of every job, in order.

    Raises:
        OutputError: if a track cannot be written, or a worker dies.
        InputError: if a track cannot be made.
    """
    jobs = list(jobs)
    results: list[Made | None] = [already_made(job) for job in jobs]
    for made in results:
        if made is not None and tell is not None:
            tell(made)
    pending = [number for number, made in enumerate(results) if made is None]
    processes = min(processes, len(pending))
    if processes <= 1:
        for number in pending:
            results[number] = made = work(jobs[number])
            if tell is not None:
                tell(made)
    else:
        _run_pool(jobs, pending, processes, results, tell)
    return [made for made in results if made is not None]


def _run_pool(
    jobs: Sequence[Job],
    pending: Sequence[int],
    processes: int,
    results: list[Made | None],
    tell: Callable[[Made], None] | None,
) -> None:
    """Fill the gaps of `results` with worker processes, started alike on every platform."""
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_leave_interrupts_to_the_parent)
    try:
        numbers = {pool.submit(work, jobs[number]): number for number in pending}
        for future in as_completed(numbers):
            made = future.result()
            results[numbers[future]] = made
            if tell is not None:
                tell(made)
    except BrokenProcessPool as error:
        raise OutputError("a worker process died, perhaps for want of memory; go on with fewer --jobs") from error
    finally:
        pool.shutdown(cancel_futures=True)


def seeds(seed: int, number: int, purposes: Mapping[str, int]) -> dict[str, np.random.Generator]:
    """Return independent generators for one track."""
    return {name: np.random.default_rng([seed, number, purpose]) for name, purpose in purposes.items()}
