"""Jobs in processes of their own, on this machine and on a Ray cluster."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from polyres.core.errors import ConfigError
from polyres.core.process import usable_processors
from polyres.study.plan.arms import Request, make_plan
from polyres.study.run import processes as study_backend
from polyres.study.run.files import read_rows
from polyres.study.run.job import main as job_main
from polyres.study.run.processes import Handle, LocalBackend, RayBackend, do_here, environment, require_ray
from polyres.study.run.run import last_words, run_study
from polyres.study.run.state import open_folder
from tests.study.cases import write_study

needs_groups = pytest.mark.skipif(sys.platform == "win32", reason="signals as POSIX has them")


def run_code(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let jobs run this code instead of a job; the job's file is sys.argv[1]."""
    for place in ("polyres.study.run.processes.command", "polyres.study.run.processes.command"):
        monkeypatch.setattr(place, lambda job: [sys.executable, "-c", code, str(job)])


def wait_for(handle: Handle) -> int:
    while (status := handle.poll()) is None:
        time.sleep(0.01)
    return status


def test_a_job_is_a_process_whose_words_go_to_its_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import os, sys; print(sys.argv[1], os.environ['OMP_NUM_THREADS']); sys.exit('error: too bad')"
    run_code(monkeypatch, code)
    log = tmp_path / "log"
    log.write_text("before\n")
    assert wait_for(LocalBackend(1).start(tmp_path / "job", log, 0, 3)) == 1
    assert f"{tmp_path / 'job'} 3" in log.read_text()
    assert log.read_text().startswith("before\n")
    assert last_words(log) == "too bad"


@needs_groups
def test_jobs_are_asked_to_end_and_made_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(7)); print('up', flush=True); time.sleep(60)"
    )
    run_code(monkeypatch, code)
    for hard, status in ((False, 7), (True, -signal.SIGKILL)):
        log = tmp_path / f"log {hard}"
        handle = LocalBackend(1).start(tmp_path / "job", log, 0, 1)
        while last_words(log) != "up":
            time.sleep(0.01)
        handle.stop(hard)
        assert wait_for(handle) == status


@needs_groups
def test_jobs_do_not_get_the_ctrl_c_of_the_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_code(monkeypatch, "import os; print(os.getpgid(0) == os.getpid())")
    log = tmp_path / "log"
    wait_for(LocalBackend(1).start(tmp_path / "job", log, 0, 1))
    assert last_words(log) == "True"


def test_slots_share_processors_and_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert (LocalBackend(3).slots(), LocalBackend(1).threads()) == (3, usable_processors())
    assert LocalBackend(10**6).threads() == 1
    run_code(monkeypatch, "import os; print(os.environ.get('CUDA_VISIBLE_DEVICES', 'all'))")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for gpus, jobs, slot, seen in (
        (0, 2, 1, "all"),
        (1, 2, 1, "all"),
        (2, 2, 1, "1"),
        (2, 3, 2, "0"),
        (2, 1, 0, "all"),
    ):
        monkeypatch.setattr(torch.cuda, "device_count", lambda gpus=gpus: gpus)
        log = tmp_path / f"{gpus}{jobs}{slot}"
        wait_for(LocalBackend(jobs).start(tmp_path / "job", log, slot, 1))
        assert last_words(log) == seen
    with pytest.raises(ConfigError, match="--jobs 0 is not possible; choose 1 or more"):
        LocalBackend(0)


def test_the_environment_is_this_one_with_fewer_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_WORD", "here")
    assert {"OMP_NUM_THREADS": "2", "MKL_NUM_THREADS": "2", "SOME_WORD": "here"}.items() <= environment(2).items()
    assert study_backend.command(Path("x"))[1:] == ["-m", "polyres.study.run.job", "x"]


@pytest.mark.parametrize(
    ("words", "text"), [([], "name one file with a job"), (["/nowhere/job.yaml"], "no such config file")]
)
def test_jobs_word_errors_as_the_command_line_does(
    capsys: pytest.CaptureFixture[str], words: list[str], text: str
) -> None:
    assert job_main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert text in error


def is_there(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@needs_groups
@pytest.mark.slow
def test_jobs_end_with_the_study_that_started_them(tmp_path: Path) -> None:
    child = (
        "import time\nfrom polyres.study.run.job import ending_with_parent\n"
        "with ending_with_parent():\n    print('up', flush=True)\n    time.sleep(120)\n"
    )
    parent = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], stdout=subprocess.PIPE)\n"
        "child.stdout.readline()\nprint(child.pid)\n"
    )
    done = subprocess.run([sys.executable, "-c", parent], capture_output=True, text=True, check=True)
    pid = int(done.stdout)
    deadline = time.monotonic() + 30
    while is_there(pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    went_on = is_there(pid)
    if went_on:
        os.kill(pid, signal.SIGKILL)
    assert not went_on


# -- Ray --------------------------------------------------------------------------------------------------------------


class FakeRay:
    """As much of Ray as the backend uses, in this process."""

    class exceptions:
        class RayError(Exception):
            pass

        class TaskCancelledError(RayError):
            pass

    def __init__(self, nodes: list[dict[str, Any]], outcome: Any = 0) -> None:
        self._nodes, self.outcome = nodes, outcome
        self.asked: dict[str, Any] = {}
        self.cancelled: list[bool] = []
        self.ready = True

    def is_initialized(self) -> bool:
        return bool(self._nodes)

    def init(self, **words: Any) -> None:
        raise ConnectionError(f"nobody at {words['address']}")

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": node} for node in self._nodes] + [
            {"Alive": False, "Resources": {"CPU": 99.0}}
        ]

    def remote(self, **asked: Any) -> Any:
        self.asked = asked

        class Remote:
            def __init__(self, function: Any) -> None:
                self.function = function

            def remote(self, *given: Any) -> Any:
                return given

        return Remote

    def wait(self, references: list[Any], timeout: float) -> tuple[list[Any], list[Any]]:
        return (references, []) if self.ready else ([], references)

    def get(self, reference: Any) -> Any:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome

    def cancel(self, reference: Any, force: bool) -> None:
        self.cancelled.append(force)


def fake(monkeypatch: pytest.MonkeyPatch, ray: FakeRay) -> FakeRay:
    monkeypatch.setattr("polyres.study.run.processes.require_ray", lambda: ray)
    return ray


@pytest.mark.parametrize(
    ("nodes", "threads", "slots", "gpus"),
    [
        ([{"CPU": 4.0}, {"CPU": 3.0}], 2, 3, 0),
        ([{"CPU": 4.0, "GPU": 1.0}, {"CPU": 8.0, "GPU": 2.0}], 2, 3, 1),
        ([{"CPU": 2.0, "GPU": 8.0}], 2, 1, 1),
    ],
)
def test_a_cluster_has_as_many_slots_as_jobs_fit(
    monkeypatch: pytest.MonkeyPatch, nodes: list[dict[str, Any]], threads: int, slots: int, gpus: int
) -> None:
    ray = fake(monkeypatch, FakeRay(nodes))
    backend = RayBackend("auto", threads)
    assert (backend.slots(), backend.threads()) == (slots, threads)
    backend.start(Path("job"), Path("log"), 0, threads)
    assert ray.asked == {"num_cpus": threads, "num_gpus": gpus, "max_retries": 2}


def test_how_jobs_on_a_cluster_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ray, log = fake(monkeypatch, FakeRay([{"CPU": 4.0}])), tmp_path / "log"
    errors = ray.exceptions
    for outcome, status in ((0, 0), (2, 2), (errors.TaskCancelledError(), 143), (errors.RayError("a\nnode died"), 1)):
        ray.outcome = outcome
        handle = RayBackend("auto", 1).start(Path("job"), log, 0, 1)
        ray.ready = False
        assert handle.poll() is None
        ray.ready = True
        assert handle.poll() == status
        assert handle.poll() == status
    assert last_words(log) == "lost on the cluster: node died"
    handle.stop(True)
    assert ray.cancelled == [True]


def test_no_cluster_and_no_machine_large_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    fake(monkeypatch, FakeRay([]))
    with pytest.raises(ConfigError, match="no Ray cluster answers at 'there:1'; start one with: ray start --head"):
        RayBackend("there:1", 1)
    fake(monkeypatch, FakeRay([{"CPU": 2.0}]))
    with pytest.raises(ConfigError, match="no machine of the cluster has 3 processors"):
        RayBackend("auto", 3)


def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"--ray needs Ray; install it with: pip install 'polyres\[ray\]'"):
        require_ray()


@needs_groups
def test_a_cancelled_job_is_asked_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_code(monkeypatch, "import sys; sys.exit(3)")
    assert do_here(str(tmp_path / "job"), str(tmp_path / "log"), 1) == 3
    code = "import signal, sys, time; signal.signal(15, lambda *_: sys.exit(print('saved'))); print('up', flush=True)"
    run_code(monkeypatch, f"{code}; time.sleep(60)")
    plain = subprocess.Popen.wait

    def cancelled(self: Any, timeout: float | None = None) -> int:
        if timeout is None:
            while last_words(tmp_path / "log") != "up":
                time.sleep(0.01)
            raise KeyboardInterrupt
        return plain(self, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", cancelled)
    with pytest.raises(KeyboardInterrupt):
        do_here(str(tmp_path / "job"), str(tmp_path / "log"), 1)
    assert last_words(tmp_path / "log") == "saved"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.filterwarnings("default")
def test_a_study_on_a_cluster_of_two_machines(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    write_study(tmp_path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        plan = make_plan(tmp_path / "study.yaml", Request(seeds=(1,)))
        backend = RayBackend(cluster.address, 1)
        assert backend.slots() == 2
        told: list[str] = []
        result = run_study(open_folder(plan, tmp_path / "out"), tmp_path / "out", backend, told.append, None)
        assert [failure.reason for failure in result.failures] == []
        assert result.done == ["one/seed1", "two/seed1"]
        assert len(read_rows(tmp_path / "out")) == 2 * 3 * 4
    finally:
        ray.shutdown()
        cluster.shutdown()
