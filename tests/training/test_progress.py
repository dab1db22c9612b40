from __future__ import annotations

import pytest

from polyres.training.progress import add, epoch_figures, timed


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
