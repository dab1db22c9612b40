from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from polyres.core.errors import ConfigError, TrainingError, UnknownNameError
from polyres.training.checkpoint import load_optimiser, optimiser_tensors
from polyres.training.config import OptimiserConfig, ScheduleConfig, SolverConfig
from polyres.training.optim import OPTIMISERS, build_optimiser, linear_matrices, parameter_groups, rates, set_rates


class Lone(nn.Module):
    """One vector."""

    def __init__(self, values: list[float]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(values))


class Small(nn.Module):
    """A bit of everything: `in` is a convolution, `table` is looked up, `out` is linear with a norm before it."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.conv = nn.Conv1d(2, 3, 1)
        self.table = nn.Embedding(5, 3)
        self.transformer = nn.Sequential(nn.LayerNorm(3), nn.Linear(3, 4), nn.Linear(4, 2))
        for parameter in self.parameters():
            nn.init.normal_(parameter, std=0.5, generator=generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.transformer((self.conv(x) + self.table.weight.t()).transpose(1, 2))


def loss_of(model: nn.Module, seed: int = 0) -> torch.Tensor:
    x = torch.randn(4, 2, 5, generator=torch.Generator().manual_seed(seed))
    return (model(x) - x.transpose(1, 2)).square().mean()


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_optimisers_lower_a_loss_and_take_their_settings(name: str, fused: bool):
    model = Small()
    config = OptimiserConfig(name=name, lr=0.02, betas=(0.8, 0.95), momentum=0.7, weight_decay=0.01)
    optimiser = build_optimiser(model, config, fused)
    for group in optimiser.param_groups:
        assert (group["lr"], group["initial_lr"], group["weight_decay"], group["name"]) == (0.02, 0.02, 0.01, "rest")
        assert group.get("betas", (0.8, 0.95)) == (0.8, 0.95)
        assert group.get("momentum", 0.7) == 0.7
    before = loss_of(model).item()
    for _ in range(60):
        optimiser.zero_grad()
        loss_of(model).backward()
        optimiser.step()
    assert loss_of(model).item() < 0.5 * before


@pytest.mark.parametrize(("name", "momentum"), [("sgd", 0.9), ("muon", 0.95)])
def test_momentum_has_a_default_of_each_optimiser(name, momentum):
    assert build_optimiser(Small(), OptimiserConfig(name=name)).param_groups[0]["momentum"] == momentum


@pytest.mark.parametrize("name", OPTIMISERS.names())
def test_optimisers_go_on_from_a_checkpoint_bit_for_bit(name: str):
    model = Small()
    config = OptimiserConfig(name=name, lr=0.02, groups=({"match": "transformer", "lr": 0.01},), decay_norms=False)
    optimiser = build_optimiser(model, config)

    def step(model: nn.Module, optimiser: torch.optim.Optimizer, seed: int) -> None:
        optimiser.zero_grad()
        loss_of(model, seed).backward()
        optimiser.step()

    for seed in range(3):
        step(model, optimiser, seed)
    other = copy.deepcopy(model)
    resumed = build_optimiser(other, config)
    load_optimiser(resumed, {key: value.clone() for key, value in optimiser_tensors(optimiser).items()})
    for seed in range(3, 6):
        step(model, optimiser, seed)
        step(other, resumed, seed)
    assert all(p.equal(q) for p, q in zip(model.parameters(), other.parameters(), strict=True))


def test_muon_moves_linear_matrices_alone_and_leaves_the_rest_to_adamw():
    model = Small()
    assert linear_matrices(model) == {model.transformer[1].weight, model.transformer[2].weight}
    attention = nn.MultiheadAttention(4, 2)
    assert linear_matrices(attention) == {attention.in_proj_weight, attention.out_proj.weight}
    other = copy.deepcopy(model)
    for moved, name in ((model, "muon"), (other, "adamw")):
        optimiser = build_optimiser(moved, OptimiserConfig(name=name, lr=0.1, weight_decay=0.1))
        loss_of(moved).backward()
        optimiser.step()
    changed = {n for (n, p), q in zip(model.named_parameters(), other.parameters(), strict=True) if not p.equal(q)}
    assert changed == {"transformer.1.weight", "transformer.2.weight"}


def test_muon_makes_an_orthogonal_step_of_the_size_of_adamws():
    linear = nn.Linear(6, 4, bias=False)
    before = linear.weight.detach().clone()
    optimiser = build_optimiser(linear, OptimiserConfig(name="muon", lr=0.1))
    linear.weight.grad = torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    optimiser.step()
    moved = (before - linear.weight.detach()) / (0.1 * 0.2 * math.sqrt(6))  # 0.2 sqrt(max(rows, columns))
    singular = torch.linalg.svdvals(moved)
    assert ((singular > 0.6) & (singular < 1.3)).all()  # five steps of the iteration come that near to 1


def test_muon_without_a_linear_layer_or_with_an_old_torch(monkeypatch):
    with pytest.raises(
        TrainingError, match=r"'muon' moves matrices of linear layers and the model has none; use adamw"
    ):
        build_optimiser(nn.Conv1d(1, 1, 1), OptimiserConfig(name="muon"))
    monkeypatch.delattr(torch.optim, "Muon")
    with pytest.raises(TrainingError, match=r"'muon' needs torch 2.9 or newer and this is .*; use adamw"):
        build_optimiser(Small(), OptimiserConfig(name="muon"))


def names_in(model: nn.Module, group) -> set[str]:
    return {name for name, parameter in model.named_parameters() if any(parameter is p for p in group["params"])}


def test_without_groups_there_is_one_with_all_parameters_in_order():
    model = Small()
    (group,) = parameter_groups(model, OptimiserConfig(weight_decay=0.1))
    assert all(p is q for p, q in zip(group["params"], model.parameters(), strict=True))
    assert group["weight_decay"] == 0.1


def test_first_matching_group_takes_a_parameter():
    model = Small()
    groups = ({"match": r"transformer\.[12]\.weight$", "lr": 1e-5}, {"match": "transformer", "weight_decay": 0.5})
    config = OptimiserConfig(lr=1e-3, weight_decay=0.1, groups=groups)
    first, second, rest = parameter_groups(model, config)
    assert names_in(model, first) == {"transformer.1.weight", "transformer.2.weight"}
    assert names_in(model, second) == {f"transformer.{n}" for n in ("0.weight", "0.bias", "1.bias", "2.bias")}
    assert names_in(model, rest) == {"conv.weight", "conv.bias", "table.weight"}
    settings = [(group["lr"], group["weight_decay"]) for group in (first, second, rest)]
    assert settings == [(1e-5, 0.1), (1e-3, 0.5), (1e-3, 0.1)]


def test_norms_and_biases_can_go_without_decay():
    model = Small()
    config = OptimiserConfig(weight_decay=0.1, decay_norms=False, groups=({"match": "transformer", "lr": 1e-5},))
    groups = parameter_groups(model, config)
    assert len(groups) == 4
    for group in groups:
        axes = {parameter.ndim for parameter in group["params"]}
        assert (group["weight_decay"] == 0.0) == (axes == {1})
    assert sum(len(group["params"]) for group in groups) == len(list(model.parameters()))


def test_rates_of_groups_keep_their_proportion():
    optimiser = build_optimiser(Small(), OptimiserConfig(lr=0.1, groups=({"match": "conv", "lr": 0.02},)))
    set_rates(optimiser, 0.5)
    assert rates(optimiser) == {"conv": 0.01, "rest": 0.05}
    set_rates(optimiser, 1.0)
    assert rates(optimiser) == {"conv": 0.02, "rest": 0.1}


def test_a_group_without_parameters_is_an_error():
    config = OptimiserConfig(groups=({"match": "transfomer", "lr": 0.1},))
    with pytest.raises(
        TrainingError, match=r"groups.0.match is 'transfomer'.* names start with: conv, table, transfor"
    ):
        build_optimiser(Small(), config)
    shadowed = OptimiserConfig(groups=({"match": "conv", "lr": 0.1}, {"match": "conv.weight", "lr": 0.2}))
    with pytest.raises(TrainingError, match=r"groups.1.match is 'conv.weight'.* no name of a parameter that is left"):
        build_optimiser(Small(), shadowed)
    everything = OptimiserConfig(groups=({"match": ".", "lr": 0.1}, {"match": "conv", "lr": 0.2}))
    with pytest.raises(TrainingError, match=r"names start with: \(none is left\)"):
        build_optimiser(Small(), everything)


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ({"match": "(", "lr": 0.1}, r"no regular expression .*; write a part of the names"),
        ({"match": "conv"}, r"the group 'conv' is like the rest; give it an lr or a weight_decay"),
        ({"match": "", "lr": 0.1}, r"groups.0.match"),
        ({"match": "conv", "rate": 0.1}, r"unknown key 'groups.0.rate'"),
    ],
)
def test_wrong_groups_are_refused(group, message):
    with pytest.raises(ConfigError, match=message):
        OptimiserConfig.from_dict({"groups": [group]})


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
