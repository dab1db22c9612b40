from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import load_file

from polyres.core.errors import OutputError, TrainingError
from polyres.study.run.train import run_training
from polyres.training import processes as spawning
from polyres.training.checkpoint import load_state
from polyres.training.run_folder import RunFolder

TWO = ["devices=2", "threads=1"]


@pytest.mark.slow
def test_two_devices_train_like_one_that_accumulates(recipe, tmp_path):
    result = run_training(recipe, tmp_path / "two", TWO)
    assert (result.finished, result.step) == (True, 4)
    assert "MASTER_PORT" not in os.environ
    run_training(recipe, tmp_path / "one", ["batch_size=1", "accumulate=2"])
    two, one = (load_file(tmp_path / name / "best.safetensors") for name in ("two", "one"))
    for name, tensor in one.items():
        torch.testing.assert_close(two[name], tensor, atol=1e-4, rtol=1e-3)
    rows = [RunFolder(tmp_path / name, "", 0, None).rows() for name in ("two", "one")]
    for a, b in zip(*rows, strict=True):
        assert a["loss"]["total"] == pytest.approx(b["loss"]["total"], rel=1e-4)
        assert a["valid"]["raw"]["score"] == pytest.approx(b["valid"]["raw"]["score"], abs=1e-2)


@pytest.mark.slow
def test_an_error_in_the_processes_is_that_of_the_call(recipe, tmp_path):
    with pytest.raises(TrainingError, match=r"batch_size 3 cannot be shared by 2 devices"):
        run_training(recipe, tmp_path / "run", [*TWO, "batch_size=3"])


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGTERM")
@pytest.mark.parametrize("launcher", ["own", "torchrun"])
def test_termination_is_passed_on_and_the_run_goes_on_with_any_number_of_devices(recipe, tmp_path, launcher):
    start = ["-m"] if launcher == "own" else ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    words = ["polyres", "train", str(recipe), "--out", str(tmp_path / "run")]
    settings = [*(TWO if launcher == "own" else ["threads=1"]), "epochs=1000", "log_every_s=0.001"]
    command = [sys.executable, *start, *words, *(word for setting in settings for word in ("--set", setting))]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        for line in process.stderr:
            if "step 3 " in line:
                break
        process.send_signal(signal.SIGTERM)
        rest = process.stderr.read()
    assert "go on with: polyres train --out" in rest
    assert process.returncode == 128 + signal.SIGTERM if launcher == "own" else process.returncode != 0
    stopped_at = load_state(tmp_path / "run" / "checkpoint.safetensors")[1]["state"]["step"]
    assert stopped_at >= 3
    end = stopped_at // 2 + 1
    result = run_training(None, tmp_path / "run", ["devices=1", f"epochs={end}"], resume=True)
    assert (result.finished, result.step) == (True, 2 * end)


class FakeFabric:
    """Launches by doing what it is told."""

    def __init__(self, act) -> None:
        self.act = act

    def launch(self, function, *arguments):
        os.environ["MASTER_PORT"] = "1"
        return self.act(function, self, *arguments)


class FakeChild:
    """A process that counts how often it was asked to end."""

    def __init__(self) -> None:
        self.asked = 0

    def terminate(self) -> None:
        self.asked += 1


@pytest.mark.skipif(sys.platform == "win32", reason="not passed on there")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_are_passed_on_as_termination(monkeypatch, number):
    child = FakeChild()
    monkeypatch.setattr(spawning.multiprocessing, "active_children", lambda: [child])
    before = signal.getsignal(number)

    def act(function, *arguments):
        signal.raise_signal(number)
        return function(*arguments)

    assert spawning.spawned(FakeFabric(act), lambda fabric, value: value + 1, 1) == 2
    assert child.asked == 1
    assert signal.getsignal(number) is before
    assert "MASTER_PORT" not in os.environ


def test_a_signal_before_the_processes_are_ready_ends_quietly(monkeypatch):
    monkeypatch.setattr(spawning.multiprocessing, "active_children", list)
    stopped = spawning.ProcessExitedException("gone", 0, 1, -15)

    def act(*arguments):
        signal.raise_signal(signal.SIGINT)
        raise stopped

    with pytest.raises(SystemExit) as caught:
        spawning.spawned(FakeFabric(act), print)
    assert caught.value.code == 128 + signal.SIGINT

    def die(*arguments):
        raise stopped

    with pytest.raises(spawning.ProcessExitedException):
        spawning.spawned(FakeFabric(die), print)


def test_outside_the_main_thread_it_works_without_signals():
    results = []
    fabric = FakeFabric(lambda function, *arguments: function(*arguments))
    thread = threading.Thread(target=lambda: results.append(spawning.spawned(fabric, lambda _: OutputError("x"))))
    thread.start()
    thread.join()
    assert isinstance(results[0], OutputError)
