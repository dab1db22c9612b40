from __future__ import annotations

import signal
import threading
import warnings

import pytest

from polyres.core.errors import TrainingError
from polyres.training import progress as board
from polyres.training.progress import Board, StopRequest, add, check_board, epoch_figures, scalars, timed


def test_figures_are_means_over_the_steps():
    sums: dict[str, float] = {}
    for loss in (1.0, 3.0):
        add(sums, "loss/total", loss)
        add(sums, "grad_norm", 10 * loss)
        add(sums, "steps", 1)
    add(sums, "grad_norms/encoder", 6.0)
    add(sums, "grad_norms_steps", 1)
    figures = epoch_figures(sums)
    assert figures["loss"] == {"total": 2.0}
    assert figures["grad_norm"] == 20.0
    assert figures["grad_norms"] == {"encoder": 6.0}
    assert "skipped_steps" not in figures


def test_waiting_share_is_that_of_the_data():
    seconds = {"data": 1.0, "forward": 2.0, "forward_and_loss": 3.0, "backward": 4.0, "optimiser": 1.5, "ema": 0.5}
    figures = epoch_figures({"steps": 10.0, **{f"seconds/{name}": value for name, value in seconds.items()}})
    assert figures["waiting_share"] == pytest.approx(1 / 10)
    assert figures["ms_per_step"] == {
        "data": 100.0, "forward": 200.0, "backward": 400.0, "optimiser": 150.0, "ema": 50.0, "loss": 100.0,
    }  # fmt: skip


def test_skipped_steps_count_for_the_loss_but_not_for_the_norm():
    figures = epoch_figures({"steps": 4.0, "skipped": 2.0, "grad_norm": 6.0, "loss/total": 8.0})
    assert (figures["loss"]["total"], figures["grad_norm"], figures["skipped_steps"]) == (2.0, 3.0, 2)


def test_an_epoch_without_steps():
    assert epoch_figures({})["waiting_share"] == 0.0


def test_time_is_added_up(monkeypatch):
    moments = iter([1.0, 3.0, 10.0, 10.5])
    monkeypatch.setattr("polyres.training.progress.time.perf_counter", lambda: next(moments))
    sums: dict[str, float] = {}
    for _ in range(2):
        with timed(sums, "data"):
            pass
    assert sums == {"seconds/data": 2.5}


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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_handler_comes_back(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.number is None
        signal.raise_signal(number)
        assert stop.number == number
    assert signal.getsignal(number) is before


def test_termination_may_be_asked_for_twice_but_a_second_ctrl_c_stops_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_it_can_be_used_again():
    stop = StopRequest()
    with stop:
        signal.raise_signal(signal.SIGTERM)
    with stop:
        assert stop.number is None


def test_outside_the_main_thread_nothing_is_noted():
    seen = []

    def inside() -> None:
        with StopRequest() as stop:
            seen.append((stop.number, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
