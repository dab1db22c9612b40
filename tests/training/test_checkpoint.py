from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from polyres.core.errors import OutputError, TrainingError
from polyres.training.checkpoint import (
    load_optimiser,
    load_state,
    optimiser_tensors,
    save_state,
    under_prefix,
    with_prefix,
)


def test_tensors_and_facts_come_back_exactly(tmp_path):
    shared = torch.randn(4, 6)
    tensors = {
        "a": shared,
        "b": shared.t(),
        "scalar": torch.tensor(3.0),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "parameter": nn.Parameter(torch.ones(2)),
    }
    facts = {"state": {"loss": 0.1 + 0.2, "step": 7, "best": None}}
    save_state(tmp_path / "c.safetensors", tensors, facts)
    loaded, found = load_state(tmp_path / "c.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype
        assert loaded[name].equal(tensor.detach())
    assert found["state"] == facts["state"]
    assert [path.name for path in tmp_path.iterdir()] == ["c.safetensors"]


def test_old_file_survives_a_failed_write(tmp_path, monkeypatch):
    path = tmp_path / "c.safetensors"
    save_state(path, {"a": torch.zeros(1)}, {})

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("polyres.training.checkpoint.save_file", full)
    with pytest.raises(OutputError, match=r"cannot write .*c.safetensors: .*No space left on device; make room"):
        save_state(path, {"a": torch.ones(1)}, {})
    assert load_state(path)[0]["a"].item() == 0
    assert [p.name for p in tmp_path.iterdir()] == ["c.safetensors"]


def test_what_is_no_checkpoint_is_refused(tmp_path):
    with pytest.raises(TrainingError, match=r"cannot read the checkpoint .*none.safetensors"):
        load_state(tmp_path / "none.safetensors")
    (tmp_path / "text.safetensors").write_text("hello")
    with pytest.raises(TrainingError, match=r"cannot read the checkpoint .*text.safetensors"):
        load_state(tmp_path / "text.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "weights.safetensors")
    with pytest.raises(TrainingError, match=r"weights.safetensors is not a training checkpoint of format 1"):
        load_state(tmp_path / "weights.safetensors")


def test_prefixes_keep_groups_apart():
    groups = with_prefix("ema_0.9", {"x.y": torch.zeros(1)}) | with_prefix("ema_0.99", {"x.y": torch.ones(1)})
    assert under_prefix("ema_0.9", groups) == {"x.y": torch.zeros(1)}


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_optimiser_goes_on_as_if_never_stopped(kind):
    def step(model, optimiser, seed):
        x = torch.randn(8, 3, generator=torch.Generator().manual_seed(seed))
        optimiser.zero_grad()
        model(x).square().mean().backward()
        optimiser.step()

    model = nn.Linear(3, 2)
    optimiser = kind(model.parameters(), lr=0.1)
    step(model, optimiser, 0)
    other = copy.deepcopy(model)
    resumed = kind(other.parameters(), lr=0.1)
    load_optimiser(resumed, {name: tensor.clone() for name, tensor in optimiser_tensors(optimiser).items()})
    step(model, optimiser, 1)
    step(other, resumed, 1)
    assert model.weight.equal(other.weight)
