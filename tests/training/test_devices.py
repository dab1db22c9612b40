from __future__ import annotations

import pytest
import torch
from lightning_fabric.utilities.rank_zero import rank_zero_only

from polyres.core.errors import ConfigError, TrainingError
from polyres.training.config import SolverConfig
from polyres.training.devices import build_fabric, device_kind, started_outside
from polyres.training.processes import is_to_be_spawned


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
