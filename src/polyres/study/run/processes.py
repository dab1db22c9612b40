"""Backends for the jobs of a study: local processes or a Ray cluster."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Protocol

from polyres.core.errors import ConfigError
from polyres.core.process import usable_processors

JOB_MODULE = "polyres.study.run.job"

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


CANCELLED_STATUS = 143
LOST_STATUS = 1
RETRIES = 2
"""How often a job is started again whose machine was lost; it goes on from its last checkpoint."""

_SAVE_S = 60.0


def require_ray() -> Any:
    """Import ray, or say how to install it."""
    try:
        return importlib.import_module("ray")
    except ImportError as error:
        raise ConfigError("--ray needs Ray; install it with: pip install 'polyres[ray]'") from error


def do_here(job: str, log: str, threads: int) -> int:
    """Run a job file in a process beside this worker of Ray and return its exit status."""
    with Path(log).open("ab") as file:
        process = subprocess.Popen(
            command(Path(job)), stdout=file, stderr=file, stdin=subprocess.DEVNULL, env=environment(threads)
        )
        try:
            return process.wait()
        except BaseException:  # cancelled: what the run has learnt is saved before it ends
            process.terminate()
            try:
                process.wait(timeout=_SAVE_S)
            except subprocess.TimeoutExpired:
                process.kill()
            raise


class _Remote:
    """A job on the cluster."""

    def __init__(self, ray: Any, reference: Any, log: Path) -> None:
        self._ray, self._reference, self._log = ray, reference, log
        self._status: int | None = None

    def poll(self) -> int | None:
        """Return its exit status, None while it is going on or waits for a machine."""
        if self._status is None and self._ray.wait([self._reference], timeout=0)[0]:
            self._status = self._get()
        return self._status

    def _get(self) -> int:
        """Return the status of a job that is over."""
        try:
            return int(self._ray.get(self._reference))
        except self._ray.exceptions.TaskCancelledError:
            return CANCELLED_STATUS
        except self._ray.exceptions.RayError as error:
            words = str(error).strip().splitlines()
            with self._log.open("a", encoding="utf-8") as file:
                file.write(f"error: lost on the cluster: {words[-1] if words else type(error).__name__}\n")
            return LOST_STATUS

    def stop(self, hard: bool) -> None:
        self._ray.cancel(self._reference, force=hard)


class RayBackend:
    """Jobs on a Ray cluster, each with so many processors and, where there are GPUs, one of them."""

    def __init__(self, address: str, threads: int) -> None:
        """Connect to a cluster, unless this process is connected already.

        Args:
            address: `HOST:PORT`, or `auto` for the cluster of this machine.
            threads: processors of a job.

        Raises:
            ConfigError: if Ray is missing, no cluster answers, or none of its machines is large enough.
        """
        self._ray, self._threads = require_ray(), threads
        if not self._ray.is_initialized():
            try:
                self._ray.init(address=address, log_to_driver=False, logging_level="error")
            except (ConnectionError, ValueError, RuntimeError) as error:
                raise ConfigError(f"no Ray cluster answers at {address!r}; start one with: ray start --head") from error
        nodes = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        gpus = sum(int(node.get("GPU", 0)) for node in nodes)
        fitting = sum(int(node.get("CPU", 0) // threads) for node in nodes)
        self._slots, self._gpus = (min(gpus, fitting), 1) if gpus else (fitting, 0)
        if not self._slots:
            raise ConfigError(f"no machine of the cluster has {threads} processors; set threads to fewer")

    def slots(self) -> int:
        return self._slots

    def threads(self) -> int:
        return self._threads

    def start(self, job: Path, log: Path, slot: int, threads: int) -> Handle:
        remote = self._ray.remote(num_cpus=self._threads, num_gpus=self._gpus, max_retries=RETRIES)(do_here)
        reference = remote.remote(str(job.resolve()), str(log.resolve()), threads)
        return _Remote(self._ray, reference, log)
