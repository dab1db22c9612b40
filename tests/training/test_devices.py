from __future__ import annotations

import pytest
import torch

from polyres.core.errors import ConfigError, TrainingError
from polyres.training.config import SolverConfig
from polyres.training.devices import build_fabric, device_kind


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


def test_unknown_precision():
    with pytest.raises(ConfigError, match=r"precision = 'fp8' is not allowed; allowed: 'fp32', 'bf16' or 'fp16'"):
        config(precision="fp8")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_fp16_on_cuda_has_a_scaler():
    assert build_fabric(config(precision="fp16")).strategy.precision.scaler.is_enabled()
