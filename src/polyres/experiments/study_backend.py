"""Where the jobs of a study are done: processes of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Protocol

from polyres.core.cpu import usable_processors
from polyres.core.errors import ConfigError

JOB_MODULE = "polyres.experiments.study_job"

OWN_GROUP = None if sys.platform == "win32" else 0
"""Process group of a job, as Popen takes it: a new one where there are such groups."""


class Handle(Protocol):
    """A job that was started."""

    def poll(self) -> int | None:
        """Return its exit status, None while it is going on."""

    def stop(self, hard: bool) -> None:
        """Ask it to save and end, or end it at once."""


class Backend(Protocol):
    """Where jobs are done."""

    def slots(self) -> int:
        """Return how many jobs may be under way at a time."""

    def threads(self) -> int:
        """Return how many processors each may take."""

    def start(self, job: Path, log: Path, slot: int, threads: int) -> Handle:
        """Start the job of a file; what it says goes to the log."""


def command(job: Path) -> list[str]:
    """Return the command that does the job of a file."""
    return [sys.executable, "-m", JOB_MODULE, str(job)]


def environment(threads: int) -> dict[str, str]:
    """Return the environment of a job: this one's, with libraries held to so many threads."""
    return {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))}


class _Process:
    """A job in a process of this machine."""

    def __init__(self, job: Path, log: Path, threads: int, gpu: int | None) -> None:
        env = environment(threads)
        if gpu is not None:
            env["CUDA_VISIBLE_DEVICES"] = str(gpu)
        with log.open("ab") as file:
            # In a group of its own, Ctrl-C reaches only the study, which then ends its jobs.
            self._process = subprocess.Popen(
                command(job), stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=env, process_group=OWN_GROUP
            )

    def poll(self) -> int | None:
        """Return its exit status, None while it is going on."""
        return self._process.poll()

    def stop(self, hard: bool) -> None:
        """Ask it to save and end, or end it at once."""
        if hard:
            self._process.kill()
        else:
            self._process.terminate()


class LocalBackend:
    """Jobs in processes of this machine; with several GPUs, every slot has one of them."""

    def __init__(self, jobs: int) -> None:
        """Prepare so many slots.

        Raises:
            ConfigError: if there are none.
        """
        if jobs < 1:
            raise ConfigError(f"--jobs {jobs} is not possible; choose 1 or more")
        self._jobs = jobs

    def slots(self) -> int:
        """Return how many jobs may be under way at a time."""
        return self._jobs

    def threads(self) -> int:
        """Return how many processors each may take."""
        return max(1, usable_processors() // self._jobs)

    def start(self, job: Path, log: Path, slot: int, threads: int) -> Handle:
        """Start the job of a file; what it says goes to the log."""
        import torch

        gpus = torch.cuda.device_count()
        return _Process(job, log, threads, slot % gpus if gpus > 1 and self._jobs > 1 else None)
