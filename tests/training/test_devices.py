from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only
from safetensors.torch import load_file

from polyres.core.errors import ConfigError, OutputError, TrainingError
from polyres.study.run.train import run_training
from polyres.training import devices as spawning
from polyres.training.checkpoint import load_state
from polyres.training.config import SolverConfig
from polyres.training.devices import build_fabric, device_kind, is_to_be_spawned, started_outside
from polyres.training.run_folder import RunFolder


def config(**changes) -> SolverConfig:
    return SolverConfig(epochs=1).with_values(changes)


def pretend(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)


@pytest.mark.parametrize(
    ("cuda", "mps", "kind"), [(True, False, "cuda"), (False, True, "mps"), (False, False, "cpu"), (True, True, "cuda")]
)
def test_auto_takes_the_fastest_there_is(monkeypatch, cuda, mps, kind):
    pretend(monkeypatch, cuda, mps)
    assert device_kind(config()) == kind
    assert device_kind(config(device="cpu")) == "cpu"


def test_a_device_that_is_not_there(monkeypatch):
    pretend(monkeypatch, False, True)
    with pytest.raises(TrainingError, match=r"device 'cuda' is not available here; use one of: auto, mps, cpu"):
        device_kind(config(device="cuda"))


def test_fp16_is_for_cuda_alone(monkeypatch):
    pretend(monkeypatch, False, False)
    with pytest.raises(TrainingError, match=r"'fp16' needs gradient scaling.* the device is 'cpu'; use precision bf16"):
        build_fabric(config(precision="fp16"))
    pretend(monkeypatch, True, False)
    assert device_kind(config(precision="fp16")) == "cuda"


def test_more_devices_than_there_are(monkeypatch):
    pretend(monkeypatch, True, False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(TrainingError, match=r"devices is 3 but there is 2 of the kind 'cuda' here; use 2 or fewer"):
        build_fabric(config(devices=3))
    pretend(monkeypatch, False, True)
    with pytest.raises(TrainingError, match=r"devices is 2 but there is 1 of the kind 'mps' here"):
        build_fabric(config(devices=2))


def test_several_processes_are_spawned_or_those_that_were_started(monkeypatch):
    assert is_to_be_spawned(build_fabric(config(device="cpu", devices=2)))
    assert not is_to_be_spawned(build_fabric(config(device="cpu")))
    monkeypatch.setattr(rank_zero_only, "rank", 0, raising=False)  # Fabric writes there what it finds below
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    assert started_outside() == (4, 2)
    fabric = build_fabric(config(device="cpu", strategy="ddp_find_unused_parameters_true"))
    assert not is_to_be_spawned(fabric)
    assert fabric.strategy.num_nodes == 2
    assert fabric.strategy.num_processes == 2
    assert fabric.strategy._ddp_kwargs["find_unused_parameters"]
    with pytest.raises(
        TrainingError, match=r"devices is 4 but 2 processes were started on this machine; leave devices"
    ):
        build_fabric(config(device="cpu", devices=4))
    monkeypatch.setenv("WORLD_SIZE", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "1")
    assert build_fabric(config(device="cpu")).world_size == 1


def test_unknown_precision():
    with pytest.raises(ConfigError, match=r"precision = 'fp8' is not allowed; allowed: 'fp32', 'bf16' or 'fp16'"):
        config(precision="fp8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_fp16_on_cuda_has_a_scaler():
    assert build_fabric(config(precision="fp16")).strategy.precision.scaler.is_enabled()


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
