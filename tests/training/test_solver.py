from __future__ import annotations

import math
import os
import shutil
import signal
import threading
import time
import warnings
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision
from safetensors.torch import load_file
from torch import Tensor

from polyres.core.errors import InputError, OutputError, TrainingError
from polyres.training.checkpoint import load_state
from polyres.training.optim import Place, rate_factor
from tests.toy_training import ToySource

STEPS_PER_EPOCH = 3  # 10 items in batches of 4


def stop_at(step: int):
    """Return a hook that sends SIGTERM during a step."""
    return lambda now: os.kill(os.getpid(), signal.SIGTERM) if now == step else None


def assert_same_run(a, b):
    """Compare everything but times."""
    tensors_a, facts_a = load_state(a / "checkpoint.safetensors")
    tensors_b, facts_b = load_state(b / "checkpoint.safetensors")
    assert tensors_a.keys() == tensors_b.keys()
    assert [name for name in tensors_a if not tensors_a[name].equal(tensors_b[name])] == []
    for key in ("step", "closed_step", "best"):
        assert facts_a["state"][key] == facts_b["state"][key]
    best_a, best_b = (load_file(run / "best.safetensors") for run in (a, b))
    assert all(best_a[name].equal(best_b[name]) for name in best_a)


def without_times(rows):
    times = ("ms_per_step", "waiting_share", "elapsed_s", "validation_s", "memory_mb")
    return [{key: value for key, value in row.items() if key not in times} for row in rows]


def whole_and_parts(make_solver, config, task):
    """Train without a stop, and with the stop that the task makes; both must come to the same."""
    whole = make_solver(config, "whole")
    whole.fit()
    assert not make_solver(config, "parts", task).fit().finished
    second = make_solver(config, "parts", resume=True)
    second.fit()
    assert_same_run(whole.run.path, second.run.path)
    assert without_times(whole.run.rows()) == without_times(second.run.rows())
    return whole, second


def test_training_lowers_the_loss_and_reports_every_epoch(make_solver, toy_config):
    solver = make_solver(toy_config.with_values({"epochs": 20}))
    result = solver.fit()
    assert (result.finished, result.stopped_by, result.step, result.epoch) == (True, None, 60, 20)
    rows = solver.run.rows()
    assert [(row["epoch"], row["step"]) for row in rows] == [(e, e * STEPS_PER_EPOCH) for e in range(1, 21)]
    assert rows[-1]["loss"]["total"] < 0.5 * rows[0]["loss"]["total"]
    assert set(rows[0]["valid"]) == {"raw", "ema_0.5", "ema_0.9"}
    assert set(rows[0]["ms_per_step"]) == {"data", "forward", "loss", "backward", "optimiser", "ema"}
    assert rows[0]["fingerprint"] == solver.config.fingerprint()
    assert rows[-1]["bias"] == solver.model[3].bias.tolist()


def test_rows_show_means_over_the_steps(make_solver, toy_config):
    config = toy_config.with_values({"epochs": 1})
    solver = make_solver(config)
    losses = []
    plain = solver.task.losses

    def noted(forward, batch):
        loss, terms = plain(forward, batch)
        losses.append(loss.item())
        return loss, terms

    solver.task.losses = noted
    solver.fit()
    (row,) = solver.run.rows()
    assert row["loss"]["total"] == pytest.approx(sum(losses) / STEPS_PER_EPOCH, rel=1e-12)
    assert row["loss"]["mse"] == row["loss"]["total"]


def test_rate_follows_the_absolute_progress(make_solver, toy_config):
    solver = make_solver(toy_config)
    rates = []
    solver.task.hook = lambda step: rates.append(solver.optimiser.param_groups[0]["lr"])
    solver.fit()
    total = 3 * STEPS_PER_EPOCH
    expected = [
        toy_config.optimiser.lr * rate_factor(Place(step / total), toy_config.schedule) for step in range(total)
    ]
    assert rates == expected


def test_schedule_by_epoch_keeps_the_rate_within_one(make_solver, toy_config):
    solver = make_solver(toy_config.with_values({"schedule.unit": "epoch"}))
    rates = []
    solver.task.hook = lambda step: rates.append(solver.optimiser.param_groups[0]["lr"])
    result = solver.fit()
    assert result.step == 9
    expected = [toy_config.optimiser.lr * rate_factor(Place(epoch / 3), toy_config.schedule) for epoch in range(3)]
    assert rates == [rate for rate in expected for _ in range(STEPS_PER_EPOCH)]


def rates_of(solver) -> list[float]:
    """Return a list that fills with the rate of every step of the first group."""
    rates = []
    before = solver.task.hook

    def note(step: int) -> None:
        rates.append(solver.optimiser.param_groups[0]["lr"])
        if before is not None:
            before(step)

    solver.task.hook = note
    return rates


def test_cosine_by_absolute_epoch_goes_on_along_the_same_curve(make_solver, toy_config, toy_task):
    config = toy_config.with_values({"schedule": {"name": "cosine_epochs", "warmup_epochs": 2}, "epochs": 6})
    whole = make_solver(config, "whole")
    expected = rates_of(whole)
    whole.fit()
    by_epoch = [0.5, 1.0] + [0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    assert expected == pytest.approx([1e-2 * factor for factor in by_epoch for _ in range(STEPS_PER_EPOCH)])
    first = make_solver(config, "parts", toy_task(hook=stop_at(7)))
    rates = rates_of(first)
    first.fit()
    second = make_solver(config, "parts", resume=True)
    more = rates_of(second)
    second.fit()
    assert rates + more == expected
    assert_same_run(whole.run.path, second.run.path)


def test_groups_have_rates_of_their_own_and_go_on(make_solver, toy_config, toy_task):
    groups = [{"match": r"^0\.", "lr": 1e-3, "weight_decay": 0.1}]
    config = toy_config.with_values({"optimiser.groups": groups, "optimiser.decay_norms": False})
    slow = make_solver(config, "slow")
    plain = make_solver(toy_config, "plain")
    tenth, fast = rates_of(slow), rates_of(plain)
    slow.fit()
    plain.fit()
    assert tenth == pytest.approx([rate / 10 for rate in fast])
    row = slow.run.rows()[-1]
    assert row["lr_groups"] == pytest.approx({r"^0\.": row["lr"] / 10, "rest": row["lr"]})
    whole_and_parts(make_solver, config, toy_task(hook=stop_at(4)))


def test_averages_by_epoch_are_weighted_means_of_the_epochs(make_solver, toy_config):
    solver = make_solver(toy_config.with_values({"ema": [], "ema_epoch": [0.5, 0.9]}))
    ends = []
    plain = solver.task.describe

    def noted(model):
        ends.append({name: p.detach().clone() for name, p in model.named_parameters()})
        return plain(model)

    solver.task.describe = noted
    solver.fit()
    assert [ema.name for ema in solver.emas] == ["ema_epoch_0.5", "ema_epoch_0.9"]
    for ema in solver.emas:
        shares = [ema.decay ** (2 - epoch) for epoch in range(3)]
        for name, average in ema.state().items():
            mean = sum(share * end[name] for share, end in zip(shares, ends, strict=True)) / sum(shares)
            torch.testing.assert_close(average, mean, atol=1e-6, rtol=1e-5)
    rows = solver.run.rows()
    assert rows[0]["ema_distance"] == {"ema_epoch_0.5": 0, "ema_epoch_0.9": 0}
    assert rows[-1]["ema_distance"] == {ema.name: ema.distance() for ema in solver.emas}
    assert rows[-1]["ema_distance"]["ema_epoch_0.9"] > rows[-1]["ema_distance"]["ema_epoch_0.5"] > 0
    assert set(rows[0]["valid"]) == {"raw", "ema_epoch_0.5", "ema_epoch_0.9"}


@pytest.mark.parametrize("averages", [{}, {"ema_epoch": [0.5]}])
def test_stopping_while_validating_repeats_the_validation(make_solver, toy_config, toy_task, averages):
    task = toy_task()

    def stopping(loss: float) -> float:
        if task.step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return -loss

    task.scores = stopping
    whole_and_parts(make_solver, toy_config.with_values(averages), task)


def test_without_validation_an_average_by_epoch_is_the_longer_one(make_solver, toy_config, toy_task):
    task = toy_task()
    task.has_valid = False
    make_solver(toy_config.with_values({"ema_epoch": [0.8]}), task=task).fit()  # 15 steps against 10
    assert [card["weights"] for card in task.exported] == ["ema_epoch_0.8"] * 3


@pytest.mark.parametrize(
    ("changes", "step"),
    [
        ({"optimiser.name": "sgd"}, 4),
        ({"optimiser.name": "adamw"}, 4),
        ({"accumulate": 2}, 5),
        ({"ema_epoch": [0.5]}, 4),
    ],
    ids=str,
)
def test_other_runs_go_on_too(make_solver, toy_config, toy_task, changes, step):
    whole_and_parts(make_solver, toy_config.with_values(changes), toy_task(hook=stop_at(step)))


def test_plateau_lowers_the_rate_when_the_score_stops_rising_and_goes_on(make_solver, toy_config, toy_task):
    schedule = {"name": "plateau", "patience": 1, "factor": 0.1, "warmup": 0.0}
    config = toy_config.with_values({"schedule": schedule, "valid.roots": ["any"], "epochs": 7, "ema": []})
    scores = [1.0, 2.0, 2.0, 1.5, 3.0, 2.0, 2.0]

    def scored(task):
        task.scores = lambda loss: scores[-(-task.step // STEPS_PER_EPOCH) - 1]
        return task

    whole = make_solver(config, "whole", scored(toy_task()))
    expected = rates_of(whole)
    whole.fit()
    # The second validation without a better one is the fourth.
    assert expected == pytest.approx([1e-2] * 12 + [1e-3] * 9)
    for step in (10, 13):
        name = f"parts{step}"
        first = make_solver(config, name, scored(toy_task(hook=stop_at(step))))
        rates = rates_of(first)
        first.fit()
        task = scored(toy_task())
        task.step = step + 1
        second = make_solver(config, name, task, resume=True)
        more = rates_of(second)
        second.fit()
        assert rates + more == expected
        assert_same_run(whole.run.path, second.run.path)
        assert whole.state.plateau == second.state.plateau


@pytest.mark.parametrize("step", [0, 2, 4, 8])
def test_stop_and_go_on_equals_never_stopping(make_solver, toy_config, toy_task, step):
    whole = make_solver(toy_config, "whole")
    whole.fit()
    first = make_solver(toy_config, "parts", toy_task(hook=stop_at(step)))
    result = first.fit()
    assert (result.finished, result.stopped_by, result.step) == (False, signal.SIGTERM, step + 1)
    torch.manual_seed(99)
    second = make_solver(toy_config, "parts", resume=True)
    result = second.fit()
    assert result.finished
    assert_same_run(whole.run.path, second.run.path)
    assert without_times(whole.run.rows()) == without_times(second.run.rows())


def test_rows_written_after_the_checkpoint_are_done_again(make_solver, toy_config, toy_task):
    whole = make_solver(toy_config, "whole")
    whole.fit()
    first = make_solver(toy_config, "parts", toy_task(hook=stop_at(4)))
    first.fit()
    first.run.append_row({"epoch": 2, "step": 6, "loss": "of a run that crashed before its checkpoint"})
    second = make_solver(toy_config, "parts", resume=True)
    second.fit()
    assert without_times(whole.run.rows()) == without_times(second.run.rows())


def test_resuming_before_the_first_checkpoint_starts_anew(make_solver, toy_config):
    whole = make_solver(toy_config, "whole")
    whole.fit()
    first = make_solver(toy_config, "parts")
    first.run.append_row({"epoch": 1, "step": 3})
    second = make_solver(toy_config, "parts", resume=True)
    second.fit()
    assert_same_run(whole.run.path, second.run.path)
    assert len(second.run.rows()) == 3


def test_resuming_a_finished_run_changes_nothing(make_solver, toy_config):
    make_solver(toy_config).fit()
    again = make_solver(toy_config, resume=True)
    before = again.run.checkpoint.read_bytes()
    result = again.fit()
    assert result.finished
    assert result.step == 9
    assert again.run.checkpoint.read_bytes() == before
    assert len(again.run.rows()) == 3


def test_more_epochs_continue_a_finished_run(make_solver, toy_config):
    make_solver(toy_config).fit()
    result = make_solver(toy_config.with_values({"epochs": 5}), resume=True).fit()
    assert (result.step, result.epoch) == (15, 5)


class FailingSource(ToySource):
    """Cannot give one of its items, in whatever process."""

    def __init__(self, fail: Callable[[], None]) -> None:
        super().__init__()
        self.fail = fail

    def __getitem__(self, index: int) -> Tensor:
        if index == 3 and self.epoch == 1:
            self.fail()
        return super().__getitem__(index)


def scaled(batch: Tensor, generator: torch.Generator) -> Tensor:
    """Do as the toy task does, from a place that other processes find."""
    return batch * torch.rand(len(batch), 1, 1, generator=generator)


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def lose_a_file() -> None:
    raise InputError("'a.wav' is gone; restore it")


@pytest.mark.parametrize(
    ("fail", "num_workers", "text"),
    [
        (lose_a_file, 0, r"^'a.wav' is gone; restore it; step \d+ is saved, go on with --resume$"),
        (lose_a_file, 1, r"^'a.wav' is gone; restore it; step \d+ is saved, go on with --resume$"),
        (kill_this_process, 1, r"^a process that loads data was killed, .* step \d+ is saved, go on with --resume$"),
    ],
)
def test_data_that_cannot_be_loaded_costs_nothing(make_solver, toy_config, toy_task, fail, num_workers, text):
    make_solver(toy_config, "whole").fit()
    task = toy_task()
    task.build_source = lambda: FailingSource(fail)
    task.build_prepare = lambda: scaled
    failing = make_solver(toy_config.with_values({"num_workers": num_workers}), "parts", task)
    with pytest.raises(TrainingError, match=text):
        failing.fit()
    assert 1 <= failing.state.step < 8
    second = make_solver(toy_config, "parts", resume=True)
    assert second.state.step == failing.state.step
    second.fit()
    assert_same_run(failing.run.path.parent / "whole", second.run.path)


def test_a_second_ctrl_c_stops_at_once(make_solver, toy_config, toy_task):
    def twice(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        make_solver(toy_config, task=toy_task(hook=twice)).fit()
    assert signal.getsignal(signal.SIGINT) is before


def test_runs_outside_the_main_thread(make_solver, toy_config):
    results = []
    solver = make_solver(toy_config)
    thread = threading.Thread(target=lambda: results.append(solver.fit()))
    thread.start()
    thread.join()
    assert results[0].finished


def test_accumulating_two_batches_equals_one_of_double_size(make_solver, toy_config, plain_task):
    small = make_solver(toy_config.with_values({"batch_size": 2, "accumulate": 2}), "small", plain_task())
    large = make_solver(toy_config, "large", plain_task())
    small.fit()
    large.fit()
    for a, b in zip(small.model.parameters(), large.model.parameters(), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-5)
    assert small.run.rows()[0]["loss"]["total"] == pytest.approx(large.run.rows()[0]["loss"]["total"], rel=1e-5)


def test_gradients_are_clipped_to_the_norm(make_solver, toy_config):
    config = toy_config.with_values({"optimiser.name": "adam", "clip_norm": 1e-3, "epochs": 1})
    solver = make_solver(config)
    norms = []
    step = solver.optimiser.step

    def noted(*arguments, **named):
        gradients = [parameter.grad.flatten() for parameter in solver.model.parameters()]
        norms.append(torch.cat(gradients).norm().item())
        return step(*arguments, **named)

    solver.optimiser.step = noted
    solver.fit()
    assert norms == pytest.approx([1e-3] * 3, rel=1e-3)
    assert solver.run.rows()[0]["grad_norm"] > 1e-2  # reported before clipping


def test_not_a_number_stops_with_the_batch_saved(make_solver, toy_config, toy_task):
    task = toy_task(bad_step=4)
    solver = make_solver(toy_config, task=task)
    with pytest.raises(TrainingError, match=r"the loss became nan at step 5; its batch is in .*bad_batch"):
        solver.fit()
    tensors, facts = load_state(solver.run.path / "bad_batch.safetensors")
    assert tensors["batch"].equal(task.batches[4])
    assert facts["step"] == 4
    assert all(p.isfinite().all() for p in solver.model.parameters())
    assert load_state(solver.run.checkpoint)[1]["state"]["step"] == 3


def test_infinite_gradient_stops_before_it_reaches_the_weights(make_solver, toy_config):
    solver = make_solver(toy_config)
    solver.model[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"the gradient norm became (nan|inf) at step 1"):
        solver.fit()
    assert all(p.isfinite().all() for p in solver.model.parameters())


def test_best_of_raw_and_averages_is_kept(make_solver, toy_config, toy_task):
    task = toy_task()
    scores = iter([1.0, 3.0, 2.0, 2.0, 2.5, 1.0, 0.0, 0.0, 4.0])  # raw, ema_0.5, ema_0.9 in each of three epochs
    task.scores = lambda loss: next(scores)
    solver = make_solver(toy_config, task=task)
    exported = []
    plain = task.export

    def noted(model, path, card):
        exported.append({name: p.detach().clone() for name, p in model.named_parameters()})
        plain(model, path, card)

    task.export = noted
    result = solver.fit()
    assert [(card["weights"], card["epoch"], card["score"]) for card in task.exported] == [
        ("ema_0.5", 1, 3.0),
        ("ema_0.9", 3, 4.0),
    ]
    assert result.best == {"score": 4.0, "weights": "ema_0.9", "epoch": 3, "step": 9, "valid": {"score": 4.0}}
    assert all(exported[1][name].equal(average) for name, average in solver.emas[1].state().items())
    assert not exported[1]["0.weight"].equal(solver.model[0].weight)
    assert {"fingerprint", "commit", "seed", "versions"} <= set(task.exported[0])


def test_without_validation_the_longest_average_is_exported(make_solver, toy_config, toy_task):
    task = toy_task()
    task.has_valid = False
    result = make_solver(toy_config, task=task).fit()
    assert result.best is None
    assert [card["weights"] for card in task.exported] == ["ema_0.9"] * 3


def test_validation_every_other_epoch_and_always_at_the_end(make_solver, toy_config):
    solver = make_solver(toy_config.with_values({"valid.every": 2}))
    solver.fit()
    assert [bool(row["valid"]) for row in solver.run.rows()] == [False, True, True]


def test_validation_leaves_no_trace_in_training(make_solver, toy_config):
    often, never = make_solver(toy_config, "often"), make_solver(toy_config.with_values({"valid.every": 99}), "never")
    often.fit()
    never.fit()
    for a, b in zip(often.model.state_dict().values(), never.model.state_dict().values(), strict=True):
        assert a.equal(b)


class Clock:
    """Time that moves by a fixed amount per step; the other clock of the two runs faster."""

    def __init__(self, kind: str) -> None:
        self.now_s, self.kind = 0.0, kind

    def monotonic(self) -> float:
        return self.now_s if self.kind == "wall" else 3 * self.now_s

    def process_time(self) -> float:
        return self.now_s if self.kind == "cpu" else 3 * self.now_s


@pytest.mark.parametrize("kind", ["wall", "cpu"])
def test_time_budget_ends_schedule_and_run_together(make_solver, toy_config, toy_task, monkeypatch, kind):
    clock = Clock(kind)
    monkeypatch.setattr("polyres.training.solver.time", clock)
    config = toy_config.with_values({"epochs": None, "time_budget_s": 100.0, "clock": kind})

    def run(name: str, resume: bool = False, until_s: float = float("inf")) -> list[float]:
        task = toy_task()
        solver = make_solver(config, name, task, resume)
        rates = []

        def tick(step: int) -> None:
            clock.now_s += 8
            rates.append(solver.optimiser.param_groups[0]["lr"])
            if clock.now_s > until_s:
                os.kill(os.getpid(), signal.SIGTERM)

        def validation(loss: float) -> float:
            clock.now_s += 2
            return -loss

        task.hook, task.scores = tick, validation
        result = solver.fit()
        assert result.finished or until_s < 100
        assert result.elapsed_s <= 108
        return rates

    rates = run("whole")
    # 8 s per step, 6 s per validation every 3 steps, and the last 6 s kept for the last validation.
    elapsed, expected = 0.0, []
    for step in range(len(rates)):
        expected.append(1e-2 * rate_factor(Place((elapsed + (6 if step >= 3 else 0)) / 100), config.schedule))
        elapsed += 8 + (6 if (step + 1) % 3 == 0 else 0)
    assert rates == pytest.approx(expected)
    assert len(rates) == 10
    clock.now_s = 0.0
    first = run("parts", until_s=40)
    clock.now_s = 1000.0  # hours may lie between
    assert first + run("parts", resume=True) == pytest.approx(rates)


def test_epochs_end_a_run_before_its_time_budget(make_solver, toy_config):
    result = make_solver(toy_config.with_values({"time_budget_s": 1e6})).fit()
    assert result.step == 9


def test_checkpoints_within_an_epoch(make_solver, toy_config, toy_task):
    task = toy_task(bad_step=4)
    solver = make_solver(toy_config.with_values({"checkpoint_every_s": 1e-9}), task=task)
    with pytest.raises(TrainingError):
        solver.fit()
    assert load_state(solver.run.checkpoint)[1]["state"]["step"] == 4


def test_a_full_disk_ends_training_with_the_checkpoint_before(make_solver, toy_config, toy_task, monkeypatch):
    whole = make_solver(toy_config, "whole")
    whole.fit()
    solver = make_solver(toy_config, "parts")
    replace = os.replace

    def full(source, target):
        if solver.state.step == 6 and str(target).endswith("checkpoint.safetensors"):
            raise OSError(28, "No space left on device")
        replace(source, target)

    monkeypatch.setattr("polyres.training.checkpoint.os.replace", full)
    with pytest.raises(
        OutputError, match=r"cannot write .*checkpoint.safetensors: .*No space left on device; make room"
    ):
        solver.fit()
    assert load_state(solver.run.checkpoint)[1]["state"]["step"] == 3
    assert [row["step"] for row in solver.run.rows()] == [3, 6]
    monkeypatch.undo()
    second = make_solver(toy_config, "parts", resume=True)
    second.fit()
    assert_same_run(whole.run.path, second.run.path)
    assert without_times(whole.run.rows()) == without_times(second.run.rows())


@pytest.mark.parametrize(("device", "pinned"), [("cuda", True), ("cpu", False)])
def test_batches_for_a_gpu_are_loaded_into_pinned_memory(make_solver, toy_config, monkeypatch, device, pinned):
    seen = []
    monkeypatch.setattr("polyres.training.solver.endless_batches", lambda *arguments, pin: seen.append(pin))
    solver = make_solver(toy_config)
    solver.fabric = SimpleNamespace(device=torch.device(device))
    solver._load_batches()
    assert seen == [pinned]


def test_share_of_the_time_spent_waiting_for_data(make_solver, toy_config, toy_task):
    class Slow(toy_task):
        def build_prepare(self):
            prepare = super().build_prepare()

            def slowly(batch, generator):
                time.sleep(0.2)
                return prepare(batch, generator)

            return slowly

    solver = make_solver(toy_config.with_values({"epochs": 1}), task=Slow())
    solver.fit()
    (row,) = solver.run.rows()
    assert row["ms_per_step"]["data"] >= 200
    parts = row["ms_per_step"]
    assert row["waiting_share"] == pytest.approx(parts["data"] / sum(parts.values()), abs=1e-3)


def test_checkpoint_of_another_model_is_refused(make_solver, toy_config, toy_task):
    class Wider(toy_task):
        def build_model(self):
            return torch.nn.Conv1d(2, 2, 1)

    make_solver(toy_config).fit()
    with pytest.raises(
        TrainingError, match=r"checkpoint.safetensors does not fit the model: weight is missing there; resume"
    ):
        make_solver(toy_config, task=Wider(), resume=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_missing_device(make_solver, toy_config):
    with pytest.raises(TrainingError, match=r"device 'cuda' is not available here; use one of: auto, cpu"):
        make_solver(toy_config.with_values({"device": "cuda"}))


def test_bf16_trains_with_full_precision_weights(make_solver, toy_config):
    solver = make_solver(toy_config.with_values({"precision": "bf16"}))
    seen = []
    solver.model[0].register_forward_hook(lambda module, args, out: seen.append(out.dtype))
    result = solver.fit()
    assert result.finished
    assert set(seen) == {torch.bfloat16}
    assert {parameter.dtype for parameter in solver.model.parameters()} == {torch.float32}


def with_scaler(monkeypatch, start: float, growth_interval: int = 2000):
    """Let solvers train in fp16 with gradient scaling on the CPU, which recipes are refused."""

    def build(config):
        scaler = torch.amp.GradScaler("cpu", init_scale=start, growth_interval=growth_interval)
        return Fabric(accelerator="cpu", devices=1, plugins=[MixedPrecision("16-mixed", "cpu", scaler)])

    monkeypatch.setattr("polyres.training.solver.build_fabric", build)


def test_fp16_scales_gradients_and_reports_them_unscaled(make_solver, toy_config, monkeypatch):
    config = toy_config.with_values({"gradient_norms_every": 1, "epochs": 1})
    plain = make_solver(config, "plain")
    plain.fit()
    with_scaler(monkeypatch, 2.0**12)
    scaled = make_solver(config.with_values({"precision": "fp16"}), "scaled")
    dtypes = set()
    scaled.model[0].register_forward_hook(lambda module, args, out: dtypes.add(out.dtype))
    scaled.fit()
    assert dtypes == {torch.float16}
    (a,), (b,) = plain.run.rows(), scaled.run.rows()
    assert b["grad_norm"] == pytest.approx(a["grad_norm"], rel=0.02)
    assert b["grad_norms"] == pytest.approx(a["grad_norms"], rel=0.1, abs=1e-3)
    for p, q in zip(plain.model.parameters(), scaled.model.parameters(), strict=True):
        torch.testing.assert_close(p, q, atol=5e-3, rtol=0.05)


def test_fp16_skips_steps_that_overflow_and_takes_a_smaller_factor(make_solver, toy_config, monkeypatch):
    with_scaler(monkeypatch, 2.0**30)
    solver = make_solver(toy_config.with_values({"precision": "fp16", "epochs": 10}))
    before = {name: p.detach().clone() for name, p in solver.model.named_parameters()}
    after_one = {}
    solver.task.hook = lambda step: after_one.update(
        {name: p.detach().clone() for name, p in solver.model.named_parameters()} if step == 1 else {}
    )
    assert solver.fit().finished
    assert all(before[name].equal(after_one[name]) for name in before)
    assert solver.run.rows()[0]["skipped_steps"] == 3
    assert "skipped_steps" not in solver.run.rows()[-1]
    assert 1 <= solver._scaler.get_scale() < 2.0**30


def test_fp16_goes_on_with_the_factor_it_had(make_solver, toy_config, toy_task, monkeypatch):
    with_scaler(monkeypatch, 2.0**14, growth_interval=3)
    config = toy_config.with_values({"precision": "fp16"})
    whole = make_solver(config, "whole")
    whole.fit()
    make_solver(config, "parts", toy_task(hook=stop_at(4))).fit()
    with_scaler(monkeypatch, 8.0, growth_interval=3)
    second = make_solver(config, "parts", resume=True)
    second.fit()
    assert_same_run(whole.run.path, second.run.path)
    assert whole._scaler.state_dict() == second._scaler.state_dict()
    assert whole._scaler.get_scale() > 2.0**14


def test_fp16_that_overflows_at_any_factor_stops(make_solver, toy_config, monkeypatch):
    with_scaler(monkeypatch, 0.5)
    solver = make_solver(toy_config.with_values({"precision": "fp16"}))
    solver.model[0].weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(TrainingError, match=r"the gradient norm became (nan|inf) at step 1"):
        solver.fit()


def test_gradient_norms_by_part_are_means_over_every_few_steps(make_solver, toy_config):
    config = toy_config.with_values({"gradient_norms_every": 2, "clip_norm": 1e-3, "epochs": 1, "steps_per_epoch": 5})
    solver = make_solver(config)
    seen = []
    plain = solver.task.gradient_norms

    def noted(model):
        seen.append(plain(model))
        return seen[-1]

    solver.task.gradient_norms = noted
    solver.fit()
    assert len(seen) == 3  # steps 1, 3 and 5
    norms = solver.run.rows()[0]["grad_norms"]
    assert norms == pytest.approx({name: sum(norms[name] for norms in seen) / 3 for name in seen[0]})
    assert sum(norm**2 for norm in seen[0].values()) ** 0.5 > 1e-2  # before clipping
    never = make_solver(config.with_values({"gradient_norms_every": 0}), "never")
    never.fit()
    assert never.run.rows()[0]["grad_norms"] == {}


def test_forward_hands_extra_inputs_to_the_model(make_solver, toy_config, toy_task):
    class Doubling(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(1))

        def forward(self, mix, active=None, both=False):
            return (self.weight * mix, active) if both else self.weight * mix

    class Asking(toy_task):
        def build_model(self):
            return Doubling()

        def losses(self, forward, batch):
            assert forward(batch, [1], True)[1] == [1]
            return super().losses(forward, batch)

        def validate(self, forward):
            answer, active = forward(self.valid, None, True)
            assert active is None
            return super().validate(lambda mix: answer)

        def describe(self, model):
            return {}

    assert make_solver(toy_config, task=Asking()).fit().finished


def test_a_compiler_that_does_not_work_is_named_at_the_start(make_solver, toy_config, monkeypatch):
    def broken(function):
        raise RuntimeError("no C++ compiler\nfound")

    monkeypatch.setattr("polyres.training.devices.torch.compile", broken)
    with pytest.raises(
        TrainingError, match=r"compile: true does not work here \(no C\+\+ compiler found\); set compile"
    ):
        make_solver(toy_config.with_values({"compile": True}))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler")
def test_compiled_model_trains_like_the_plain_one(make_solver, toy_config, plain_task):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the compiler are its own
        configs = [toy_config.with_values({"compile": on}) for on in (False, True)]
        solvers = [make_solver(config, str(config.compile), plain_task()) for config in configs]
        for solver in solvers:
            solver.fit()
    plain, compiled = (dict(solver.model.named_parameters()) for solver in solvers)
    assert plain.keys() == compiled.keys()
    for name, parameter in plain.items():
        torch.testing.assert_close(parameter, compiled[name], atol=1e-4, rtol=1e-3)
    names = [set(load_state(solver.run.checkpoint)[0]) for solver in solvers]
    assert names[0] == names[1]


def test_two_runs_with_one_seed_are_equal_and_with_another_differ(make_solver, toy_config):
    a, b = make_solver(toy_config, "a"), make_solver(toy_config, "b")
    c = make_solver(toy_config.with_values({"seed": 1}), "c")
    for solver in (a, b, c):
        solver.fit()
    assert_same_run(a.run.path, b.run.path)
    assert not a.model[0].weight.equal(c.model[0].weight)


def test_steps_per_epoch_can_be_set(make_solver, toy_config):
    solver = make_solver(toy_config.with_values({"steps_per_epoch": 5}))
    assert solver.fit().step == 15
    assert [row["step"] for row in solver.run.rows()] == [5, 10, 15]
