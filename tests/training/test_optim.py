from __future__ import annotations

import copy
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from polyres.core.errors import ConfigError, TrainingError, UnknownNameError
from polyres.training.checkpoint import load_optimiser, optimiser_tensors
from polyres.training.config import OptimiserConfig, ScheduleConfig, SolverConfig
from polyres.training.optim import (
    OPTIMISERS,
    SCHEDULES,
    Ema,
    Place,
    Plateau,
    build_optimiser,
    linear_matrices,
    parameter_groups,
    rate_factor,
    rates,
    set_rates,
)


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


def set_weights(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


@given(decay=st.floats(0.01, 0.999), values=st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_average_equals_the_weighted_mean_of_all_steps(decay: float, values: list[float]):
    model = nn.Linear(2, 1)
    ema = Ema(model, decay)
    for value in values:
        set_weights(model, value)
        ema.update()
    shares = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    expected = sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
    for average in ema.state().values():
        torch.testing.assert_close(average, torch.full_like(average, expected), atol=1e-4, rtol=1e-4)


def test_first_step_counts_fully_whatever_the_start():
    model = nn.Linear(2, 1)
    ema = Ema(model, 0.9999)
    set_weights(model, 7.0)
    ema.update()
    assert ema.state()["weight"].tolist() == [[7.0, 7.0]]


def test_applied_puts_the_averages_in_and_the_same_bits_back():
    model = nn.Linear(3, 2)
    ema = Ema(model, 0.5)
    set_weights(model, 1.0)
    ema.update()
    set_weights(model, 0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fail_inside() -> None:
        with ema.applied():
            assert model.weight.unique().tolist() == [1.0]
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())
    assert ema.state()["weight"].unique().tolist() == [1.0]


def test_state_round_trip_goes_on_as_if_never_stopped():
    model = nn.Linear(2, 1)
    ema = Ema(model, 0.8)
    for value in (1.0, 2.0):
        set_weights(model, value)
        ema.update()
    other = Ema(model, 0.8)
    other.load({name: tensor.clone() for name, tensor in ema.state().items()}, 2)
    set_weights(model, 5.0)
    ema.update()
    other.update()
    assert all(tensor.equal(other.state()[name]) for name, tensor in ema.state().items())


def test_foreign_state_is_refused():
    with pytest.raises(TrainingError, match=r"saved ema_0.8 does not fit the model \(first difference: bias\)"):
        Ema(nn.Linear(2, 1), 0.8).load({"weight": torch.zeros(1, 2)}, 1)


def test_shapes_of_another_model_are_refused():
    model = nn.Linear(2, 1)
    saved = {"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}
    with pytest.raises(
        TrainingError, match=r"ema_0.8 does not fit the model \(weight has the shape \(1, 1\) there and"
    ):
        Ema(model, 0.8).load(saved, 1)


def test_names_tell_averages_by_step_and_by_epoch_apart():
    model = nn.Linear(2, 1)
    assert Ema(model, 0.9).name == "ema_0.9"
    assert Ema(model, 0.9, "epoch").name == "ema_epoch_0.9"


def test_length_counts_steps():
    model = nn.Linear(2, 1)
    assert Ema(model, 0.9).length_steps(50) == pytest.approx(10)
    assert Ema(model, 0.9, "epoch").length_steps(50) == pytest.approx(500)


def test_distance_is_relative_to_the_weights():
    model = nn.Linear(3, 1)
    ema = Ema(model, 0.5)
    set_weights(model, 2.0)
    ema.update()
    assert ema.distance() == 0
    set_weights(model, 1.0)
    assert ema.distance() == pytest.approx(1.0)  # 2 against 1
    ema.update()
    assert ema.distance() == pytest.approx((0.5 * 2 + 1) / 1.5 - 1)
    set_weights(model, 0.0)
    assert ema.distance() == 0


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
