from __future__ import annotations

import copy
import json

import pytest
import torch
from lightning_fabric.plugins import Precision
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from polyres.core.errors import OutputError, TrainingError
from polyres.training.checkpoint import (
    Parts,
    load_optimiser,
    load_state,
    optimiser_tensors,
    restore_run,
    save_run,
    save_state,
    under_prefix,
    with_prefix,
)
from polyres.training.optim import Ema
from polyres.training.progress import RunState
from tests.full_disk import at_most


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


def parts_of(model: nn.Module) -> Parts:
    optimiser = torch.optim.Adam(model.parameters(), lr=0.1)
    model(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    ema = Ema(model, 0.9)
    ema.update()
    return Parts(model, optimiser, [ema], Precision())


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "checkpoint.safetensors"
    parts = parts_of(nn.Linear(3, 2))
    save_run(path, parts, RunState(step=1, sums={"loss/total": 0.1 + 0.2}), {"seed": 1})
    return path, parts


def change(path, tensors=(), facts=None):
    """Write a checkpoint again with some things different."""
    with safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["polyres"])
        held = {name: file.get_tensor(name) for name in file.keys()} | dict(tensors)  # noqa: SIM118
    header["state"] |= facts or {}
    save_file({name: t for name, t in held.items() if t is not None}, path, {"polyres": json.dumps(header)})


def test_everything_comes_back(saved):
    path, parts = saved
    other = parts_of(nn.Linear(3, 2))
    assert restore_run(path, other) == RunState(step=1, sums={"loss/total": 0.1 + 0.2})
    assert other.model.weight.equal(parts.model.weight)
    assert other.averages[0].state()["weight"].equal(parts.averages[0].state()["weight"])
    moments = [p.optimiser.state[p.model.weight]["exp_avg"] for p in (parts, other)]
    assert moments[0].equal(moments[1])


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: nn.Linear(3, 4), r"the model: weight has the shape \(2, 3\) there and \(4, 3\) here"),
        (lambda: nn.Linear(3, 2, bias=False), r"does not fit the model: bias is not part of the model"),
        (lambda: nn.Sequential(nn.Linear(3, 2)), r"does not fit the model: 0.weight is missing there"),
    ],
)  # fmt: skip
def test_another_model_is_refused_before_anything_is_loaded(saved, model, message):
    path, _ = saved
    other = parts_of(model())
    before = [p.detach().clone() for p in other.model.parameters()]
    with pytest.raises(TrainingError, match=message):
        restore_run(path, other)
    assert all(p.equal(q) for p, q in zip(before, other.model.parameters(), strict=True))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"optimiser/0/exp_avg": torch.zeros(3, 2)}, r"optimiser: the saved '0/exp_avg' has the shape \(3, 2\)"),
        ({"optimiser/7/exp_avg": torch.zeros(2)}, r"optimiser: there is no parameter for the saved '7/exp_avg'"),
        ({"optimiser/x": torch.zeros(2)}, r"optimiser: there is no parameter for the saved 'x'"),
        ({"ema_0.9/weight": torch.zeros(1, 3)}, r"saved ema_0.9 does not fit .*weight has the shape \(1, 3\) there"),
        ({"ema_0.9/bias": None}, r"saved ema_0.9 does not fit the model \(first difference: bias\)"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_are_named(saved, tensors, message):
    path, parts = saved
    change(path, tensors)
    with pytest.raises(TrainingError, match=message):
        restore_run(path, parts)


def test_an_unknown_entry_of_the_state_is_named(saved):
    path, parts = saved
    change(path, facts={"moon": "full"})
    with pytest.raises(
        TrainingError, match=r"has an entry 'moon' that this version does not know; resume with the version"
    ):
        restore_run(path, parts)


def test_a_full_disk_leaves_the_checkpoint_before(saved):
    path, parts = saved
    before = path.read_bytes()
    text = r"cannot write .*checkpoint.safetensors: .*; make room or choose another"
    with at_most(100), pytest.raises(OutputError, match=text):
        save_run(path, parts, RunState(step=2), {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


@pytest.mark.parametrize("where", ["os.replace", "os.fsync", "save_file"])
def test_a_write_that_fails_at_any_point_leaves_the_checkpoint_before(saved, monkeypatch, where):
    path, parts = saved
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"polyres.training.checkpoint.{where}", full)
    with pytest.raises(OutputError, match=r"No space left on device; make room"):
        save_run(path, parts, RunState(step=2), {})
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]
