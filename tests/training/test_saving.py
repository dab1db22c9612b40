from __future__ import annotations

import json

import pytest
import torch
from lightning_fabric.plugins import Precision
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from polyres.core.errors import OutputError, TrainingError
from polyres.training.checkpoint import Parts, restore_run, save_run
from polyres.training.ema import Ema
from polyres.training.progress import RunState
from tests.full_disk import at_most


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
