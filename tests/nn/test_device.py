"""Devices and precisions by name."""

from __future__ import annotations

import pytest
import torch

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.nn.device import autocast_for, default_batch, resolve_device, resolve_precision


@pytest.fixture
def only_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)


@pytest.mark.usefixtures("only_cpu")
def test_auto_takes_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert resolve_device("auto") == torch.device("cpu")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == torch.device("cuda")
    assert resolve_device("cuda:1") == torch.device("cuda:1")
    with pytest.raises(ConfigError, match="device cuda:2 is not available here"):
        resolve_device("cuda:2")


@pytest.mark.usefixtures("only_cpu")
@pytest.mark.parametrize("name", ["cuda", "cuda:0", "mps"])
def test_a_missing_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=f"device {name} is not available here; use --device cpu"):
        resolve_device(name)


@pytest.mark.parametrize("name", ["gpu", "cpu:1", "cuda:x", ""])
def test_an_unknown_device_is_refused(name: str) -> None:
    with pytest.raises(UnknownNameError, match=f"unknown device '{name}'"):
        resolve_device(name)


def test_precision() -> None:
    cpu = torch.device("cpu")
    assert resolve_precision("fp32", cpu) == "fp32"
    with pytest.raises(UnknownNameError, match="unknown precision 'fp23'; did you mean 'fp32'"):
        resolve_precision("fp23", cpu)
    a = torch.eye(4)
    with autocast_for("fp32", cpu):
        assert (a @ a).dtype == torch.float32
    with autocast_for("bf16", cpu):
        assert (a @ a).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("able", "expected"), [({"avx512_bf16": True}, "bf16"), ({"amx_bf16": True}, "bf16"), ({"avx2": True}, "fp32")]
)
def test_auto_precision_follows_the_instructions(
    monkeypatch: pytest.MonkeyPatch, able: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert resolve_precision("auto", torch.device("cpu")) == expected
    assert resolve_precision("auto", torch.device("mps")) == "fp32"


def test_a_gpu_gets_more_segments_per_call() -> None:
    assert default_batch(torch.device("cpu")) == 1
    assert default_batch(torch.device("cuda")) > 1
