from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from safetensors.torch import load_file

from polyres.core.errors import TrainingError
from polyres.training.checkpoint import load_state
from polyres.training.devices import Ranks
from polyres.training.run_folder import RunFolder

PROGRAM = Path(__file__).with_name("two_processes.py")
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


pytestmark = pytest.mark.slow  # two processes are started, or a large model is measured


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes leave that go through all scenarios of the program together."""
    out = tmp_path_factory.mktemp("pair")
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    command = [sys.executable, "-W", "error", str(PROGRAM), str(out)]
    pair = [
        subprocess.Popen(
            command, env={**os.environ, **shared, "RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in ("0", "1")
    ]
    try:
        errors = [process.communicate(timeout=250)[1] for process in pair]
    finally:
        for process in pair:
            process.kill()
    assert [process.returncode for process in pair] == [0, 0], "\n".join(errors)
    assert "epoch 3" in errors[0]
    assert "epoch" not in errors[1]  # the first process alone shows progress
    return out


@pytest.fixture
def facts(pair: Path) -> list[dict]:
    return [json.loads((pair / f"rank{rank}.json").read_text()) for rank in (0, 1)]


def test_a_process_on_its_own_is_its_own_group():
    ranks = Ranks(Fabric(accelerator="cpu", devices=1))
    assert (ranks.size, ranks.number, ranks.is_first) == (1, 0, True)
    assert ranks.largest([1.0, 2.0]) == [1.0, 2.0]
    assert ranks.total(3.0) == 3.0
    assert ranks.means({"a": 2.0}) == {"a": 2.0}
    assert ranks.together(torch.ones(2)).tolist() == [1, 1]
    assert ranks.from_first(lambda: "x") == "x"
    with pytest.raises(TrainingError, match="no"):
        ranks.from_first(lambda: (_ for _ in ()).throw(TrainingError("no")))


def test_two_processes_agree(facts):
    for found in facts:
        assert found["size"] == 2
        assert found["largest"] == [1.0, 0.0]
        assert found["total"] == 3.0
        assert found["nan"] == "nan"
        assert found["means"] == {"a": 0.5, "b": 3.0}
        assert found["together"] == [[0], [1]]
        assert found["from_first"] == 0


def test_gradients_of_two_processes_equal_those_of_one(pair, make_solver, toy_config, plain_task):
    config = toy_config.with_values({"ema": [0.5], "ema_epoch": [0.5]})
    solver = make_solver(config, task=plain_task())
    expected = {}
    step = solver.optimiser.step

    def noted(*arguments, **named):
        for key, parameter in solver.model.named_parameters():
            expected[f"{solver.state.step}/{key}"] = parameter.grad.clone()
        return step(*arguments, **named)

    solver.optimiser.step = noted
    solver.fit()
    expected |= {f"end/{key}": parameter.detach() for key, parameter in solver.model.named_parameters()}
    found = [load_file(pair / f"gradients_{rank}.safetensors") for rank in (0, 1)]
    assert found[0].keys() == found[1].keys() == expected.keys()
    assert len(expected) == 4 * 10
    for name, tensor in expected.items():
        assert found[0][name].equal(found[1][name])
        torch.testing.assert_close(found[0][name], tensor, atol=1e-6, rtol=1e-5)
    row = RunFolder(pair / "gradients", "", 0, None).rows()[0]
    assert row["loss"]["total"] == pytest.approx(solver.run.rows()[0]["loss"]["total"], rel=1e-5)
    assert row["grad_norm"] == pytest.approx(solver.run.rows()[0]["grad_norm"], rel=1e-5)


def test_accumulated_gradients_in_bf16_are_the_same_in_both(pair):
    found = [load_file(pair / f"accumulated_{rank}.safetensors") for rank in (0, 1)]
    assert all(tensor.equal(found[1][name]) for name, tensor in found[0].items())


def test_a_signal_to_one_stops_both_and_going_on_equals_never_stopping(pair, facts):
    assert [found["stopped"] for found in facts] == [[15, 5]] * 2
    assert [found["finished"] for found in facts] == [True, True]
    (whole, first), (parts, second) = (
        load_state(pair / name / "checkpoint.safetensors") for name in ("whole", "parts")
    )
    # Running statistics of a norm are those of the first process; no layer of ours has them.
    assert [name for name in whole if not whole[name].equal(parts[name]) and "running" not in name] == []
    assert first["state"]["step"] == second["state"]["step"] == 9
    rows = [RunFolder(pair / name, "", 0, None).rows() for name in ("whole", "parts")]
    for a, b in zip(*rows, strict=True):
        assert (a["step"], a["lr"], a["grad_norm"]) == (b["step"], b["lr"], b["grad_norm"])
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-12)


def test_a_bad_batch_of_one_stops_both_and_is_saved_whole(pair, facts):
    for found in facts:
        assert found["bad"].startswith("TrainingError: the loss became nan at step 3; its batch is in")
    assert load_state(pair / "bad" / "bad_batch.safetensors")[0]["batch"].shape == (4, 2, 64)


def test_a_time_budget_ends_both_together(facts):
    assert facts[0]["budget"] == facts[1]["budget"]
    assert facts[0]["budget"][0]


def test_errors_reach_both(facts):
    for found in facts:
        assert "batch_size 3 cannot be shared by 2 devices; make it a multiple" in found["shared"]
        assert "already holds a run" in found["again"]
