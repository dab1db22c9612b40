from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.training.config import OptimiserConfig, ScheduleConfig, SolverConfig
from polyres.training.optim import OPTIMISERS, SCHEDULES, build_optimiser, rate_factor


@pytest.mark.parametrize("name", SCHEDULES.names())
def test_warm_up_is_a_straight_line_from_zero(name: str):
    config = ScheduleConfig(name=name, warmup=0.2)
    assert rate_factor(0.0, config) == 0
    assert rate_factor(0.05, config) == pytest.approx(0.25)
    assert rate_factor(0.2, config) == 1


@pytest.mark.parametrize("name", SCHEDULES.names())
@given(progress=st.floats(0, 1), warmup=st.floats(0, 0.9), final=st.floats(0, 1))
def test_factor_is_a_share(name: str, progress: float, warmup: float, final: float):
    assert 0 <= rate_factor(progress, ScheduleConfig(name=name, warmup=warmup, final_ratio=final)) <= 1


def test_cosine_by_formula():
    config = ScheduleConfig(name="cosine", warmup=0.0, final_ratio=0.1)
    assert rate_factor(0.0, config) == 1
    assert rate_factor(0.25, config) == pytest.approx(0.1 + 0.9 * (1 + math.sqrt(0.5)) / 2)
    assert rate_factor(0.5, config) == pytest.approx(0.55)
    assert rate_factor(1.0, config) == pytest.approx(0.1)


def test_constant_stays():
    assert rate_factor(0.9, ScheduleConfig()) == 1


class Lone(nn.Module):
    """One vector."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_optimisers_take_their_settings_and_approach_a_minimum(name: str, fused: bool):
    model = Lone([1.0, -2.0])
    optimiser = build_optimiser(model, OptimiserConfig(name=name, lr=0.05, betas=(0.8, 0.9)), fused)
    (group,) = optimiser.param_groups
    assert group["lr"] == 0.05
    assert group["betas"] == (0.8, 0.9)
    for _ in range(200):
        optimiser.zero_grad()
        (model.weight - 3).square().sum().backward()
        optimiser.step()
    torch.testing.assert_close(model.weight.detach(), torch.tensor([3.0, 3.0]), atol=0.05, rtol=0)


def test_weight_decay_is_decoupled_in_adamw_alone():
    moved = {}
    for name in ("adam", "adamw"):
        model = Lone([10.0])
        optimiser = build_optimiser(model, OptimiserConfig(name=name, lr=0.1, weight_decay=0.5))
        model.weight.grad = torch.tensor([1.0])
        optimiser.step()
        moved[name] = 10 - model.weight.item()
    assert moved["adam"] == pytest.approx(0.1, rel=1e-5)
    assert moved["adamw"] == pytest.approx(0.1 + 0.1 * 0.5 * 10, rel=1e-5)


def test_unknown_names_suggest_the_right_one():
    with pytest.raises(UnknownNameError, match=r"unknown optimiser 'adamn'; did you mean 'adam"):
        OptimiserConfig(name="adamn")
    with pytest.raises(UnknownNameError, match=r"unknown schedule 'cosin'; did you mean 'cosine'"):
        ScheduleConfig(name="cosin")


def test_a_run_needs_an_end():
    with pytest.raises(ConfigError, match=r"neither epochs nor time_budget_s is set; give the run an end"):
        SolverConfig()


@pytest.mark.parametrize("ema", [(0.9, 0.9), (1.0,), (0.0,)])
def test_averages_need_distinct_decays_between_zero_and_one(ema):
    with pytest.raises(ConfigError, match=r"every decay must be between 0 and 1 and stand there once"):
        SolverConfig(epochs=1, ema=ema)
