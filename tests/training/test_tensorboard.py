from __future__ import annotations

import warnings

import pytest

from polyres.core.errors import TrainingError
from polyres.training import tensorboard as board
from polyres.training.tensorboard import Board, check_board, scalars

ROW = {
    "epoch": 2, "step": 6, "loss": {"total": 0.5, "l1": 0.25}, "valid": {"raw": {"score": 3.0}}, "memory_mb": None,
    "best": {"score": 9.0}, "fusion": {"output": [[0.25, 0.75]]}, "done": True, "name": "x",
}  # fmt: skip


def test_numbers_of_a_row_have_paths_as_names():
    assert dict(scalars(ROW)) == {
        "epoch": 2.0, "loss/total": 0.5, "loss/l1": 0.25, "valid/raw/score": 3.0,
        "fusion/output/0/0": 0.25, "fusion/output/0/1": 0.75,
    }  # fmt: skip


def test_a_board_that_is_off_writes_nothing(tmp_path):
    with Board(tmp_path, 1, on=False) as off:
        off.write(ROW)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"tensorboard: true needs the package tensorboard; install it with: pip"):
        check_board()


def curves(folder):
    """Return (step, value) by name, as TensorBoard shows them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
        events = accumulator.EventAccumulator(str(folder)).Reload()
    return {name: [(event.step, event.value) for event in events.Scalars(name)] for name in events.Tags()["scalars"]}


def test_rows_become_curves_and_a_resumed_run_takes_the_place_of_what_it_repeats(tmp_path):
    pytest.importorskip("tensorboard")
    with Board(tmp_path, 1, on=True) as first:
        for step in (3, 6, 9):
            first.write({"step": step, "loss": {"total": 1.0 / step}})
    with Board(tmp_path, 7, on=True) as second:
        second.write({"step": 9, "loss": {"total": 5.0}})
    found = curves(tmp_path / "tensorboard")["loss/total"]
    assert [step for step, _ in found] == [3, 6, 9]
    assert [value for _, value in found] == pytest.approx([1 / 3, 1 / 6, 5.0])


def test_training_shows_the_rows_it_writes(make_solver, toy_config):
    pytest.importorskip("tensorboard")
    solver = make_solver(toy_config.with_values({"tensorboard": True}))
    solver.fit()
    found = curves(solver.run.path / "tensorboard")
    rows = solver.run.rows()
    assert found["loss/total"] == [(row["step"], pytest.approx(row["loss"]["total"], rel=1e-6)) for row in rows]
    assert "valid/ema_0.9/score" in found
    plain = make_solver(toy_config, "plain")
    plain.fit()
    assert not (plain.run.path / "tensorboard").exists()


def test_training_without_the_package(make_solver, toy_config, monkeypatch):
    monkeypatch.setattr(board, "find_spec", lambda name: None)
    with pytest.raises(TrainingError, match=r"or set tensorboard: false"):
        make_solver(toy_config.with_values({"tensorboard": True}))
