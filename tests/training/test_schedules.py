from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import ConfigError
from polyres.training.config import ScheduleConfig, SolverConfig
from polyres.training.optim import SCHEDULES, Place, Plateau, rate_factor

BY_SHARE = [name for name in SCHEDULES.names() if name != "cosine_epochs"]


@pytest.mark.parametrize("name", BY_SHARE)
def test_warm_up_is_a_straight_line_from_zero(name: str):
    config = ScheduleConfig(name=name, warmup=0.2)
    assert rate_factor(Place(0.0), config) == 0
    assert rate_factor(Place(0.05), config) == pytest.approx(0.25)
    assert rate_factor(Place(0.2), config) == 1


@given(
    name=st.sampled_from(BY_SHARE),
    place=st.builds(Place, st.floats(0, 1), st.integers(0, 99), st.integers(1, 50), st.integers(0, 9)),
    warmup=st.floats(0, 0.9),
    final=st.floats(0, 1),
)
def test_factor_is_a_share(name: str, place: Place, warmup: float, final: float):
    assert 0 <= rate_factor(place, ScheduleConfig(name=name, warmup=warmup, final_ratio=final)) <= 1


def test_cosine_by_formula():
    config = ScheduleConfig(name="cosine", warmup=0.0, final_ratio=0.1)
    assert rate_factor(Place(0.0), config) == 1
    assert rate_factor(Place(0.25), config) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rate_factor(Place(0.5), config) == pytest.approx(0.55)
    assert rate_factor(Place(1.0), config) == pytest.approx(0.1)


def test_constant_stays():
    assert rate_factor(Place(0.9, 7, 8, 3), ScheduleConfig()) == 1


@given(warmup=st.integers(0, 8), rest=st.integers(1, 30), beyond=st.integers(0, 40), final=st.floats(0, 1))
def test_cosine_by_absolute_epoch_is_that_of_the_notes(warmup: int, rest: int, beyond: int, final: float):
    total = warmup + rest
    config = ScheduleConfig(name="cosine_epochs", warmup_epochs=warmup, final_ratio=final)
    for epoch in range(total + 1):
        if epoch < warmup:
            expected = (epoch + 1) / warmup
        else:
            expected = max(final, 0.5 * (1 + math.cos(math.pi * (epoch - warmup) / (total - warmup))))
        # Where the run stands by steps or seconds must not matter.
        assert rate_factor(Place(0.123, epoch, total), config) == pytest.approx(expected, abs=1e-12)
    assert rate_factor(Place(1.0, total + beyond, total), config) == pytest.approx(final, abs=1e-12)


def test_the_setting_of_the_notes():
    config = ScheduleConfig(name="cosine_epochs", warmup_epochs=2, final_ratio=1e-5 / 1e-3)
    rates = [1e-3 * rate_factor(Place(0.0, epoch, 10), config) for epoch in range(10)]
    assert rates[:3] == pytest.approx([5e-4, 1e-3, 1e-3])
    assert rates[6] == pytest.approx(5e-4)
    assert rates[9] == pytest.approx(1e-3 * 0.5 * (1 + math.cos(math.pi * 7 / 8)))
    assert min(rates) >= 1e-5


def test_step_lowers_the_rate_after_every_so_many_epochs():
    config = ScheduleConfig(name="step", every_epochs=3, factor=0.1, final_ratio=0.005)
    factors = [rate_factor(Place(0.5, epoch), config) for epoch in range(12)]
    assert factors == pytest.approx([1] * 3 + [0.1] * 3 + [0.01] * 3 + [0.005] * 3)


def test_plateau_lowers_the_rate_by_its_reductions():
    config = ScheduleConfig(name="plateau", factor=0.5, final_ratio=0.1)
    factors = [rate_factor(Place(0.5, 3, None, reductions), config) for reductions in range(5)]
    assert factors == pytest.approx([1, 0.5, 0.25, 0.125, 0.1])


@given(scores=st.lists(st.integers(0, 4), max_size=30), patience=st.integers(0, 4))
def test_plateau_agrees_with_torch(scores: list[int], patience: int):
    import torch

    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimiser, mode="max", factor=0.5, patience=patience, threshold=0.0, threshold_mode="abs", eps=0.0
    )
    plateau = Plateau()
    for score in scores:
        oracle.step(score)
        plateau.take(float(score), patience)
        assert 0.5**plateau.reductions == optimiser.param_groups[0]["lr"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schedule": {"name": "plateau"}}, r"plateau goes by validation scores; name tracks in valid.roots"),
        (
            {"schedule": {"name": "cosine_epochs"}, "epochs": None, "time_budget_s": 9.0},
            r"cosine_epochs goes by epochs; set epochs, or take cosine",
        ),
        (
            {"schedule": {"name": "cosine_epochs", "warmup_epochs": 5}},
            r"warmup_epochs must be fewer than the 5 epochs of the run",
        ),
        ({"schedule": {"warmup_epochs": 2}}, r"warmup_epochs is for cosine_epochs; give constant a warmup, a share"),
        (
            {"schedule": {"name": "cosine_epochs", "warmup": 0.1}},
            r"warmup is a share.*give cosine_epochs its warmup_ep",
        ),
    ],
)
def test_schedules_that_cannot_be_followed_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        SolverConfig.from_dict({"epochs": 5, **changes})
