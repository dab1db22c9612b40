from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import nn

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.metrics.separation import nsdr, si_sdr
from polyres.nn.losses import LOSSES, MAGNITUDE_FLOOR, LossConfig, MultiResolutionStft, PerceptualDistance, WeightedLoss


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=LOSSES.names())
def distance(request):
    return LOSSES.build(request.param, LossConfig())


def test_best_for_equal_signals_and_worse_the_further_apart(distance):
    target = noise(2, 3, 2, 3000)
    other = noise(2, 3, 2, 3000, seed=1)
    values = [distance(target + error * other, target) for error in (0.0, 0.1, 0.5, 1.0)]
    for nearer, further in itertools.pairwise(values):
        assert nearer.shape == (2, 3)
        assert (nearer < further).all()


def test_silent_target_gives_finite_values_and_gradients(distance):
    for estimate in (torch.zeros(1, 2, 2, 3000), 1e-6 * noise(1, 2, 2, 3000), noise(1, 2, 2, 3000)):
        estimate.requires_grad_()
        distance(estimate, torch.zeros(1, 2, 2, 3000)).sum().backward()
        assert estimate.grad is not None
        assert estimate.grad.isfinite().all()
        assert estimate.grad.abs().max() < 1e3


def test_every_item_counts_on_its_own(distance):
    estimate, target = noise(2, 3, 2, 3000), noise(2, 3, 2, 3000, seed=1)
    torch.testing.assert_close(distance(estimate, target)[1], distance(estimate[1:], target[1:])[0])


@pytest.mark.parametrize("name", [name for name in LOSSES.names() if name != "share"])
def test_every_signal_counts_on_its_own(name):
    distance = LOSSES.build(name, LossConfig())
    estimate, target = noise(2, 3, 2, 3000), noise(2, 3, 2, 3000, seed=1)
    torch.testing.assert_close(distance(estimate, target)[1, 2], distance(estimate[1:, 2:], target[1:, 2:])[0, 0])


def test_share_measures_error_against_the_mixture():
    distance = LOSSES.build("share", LossConfig(share_floor=0.05))
    target = torch.tensor([1.0, 1.0, 0.0]).view(1, 3, 1, 1).expand(1, 3, 1, 8)  # mixture power 4, floor 0.2
    missed = distance(torch.zeros_like(target), target)
    expected = 10 * math.log10(1.2 / 0.2)
    torch.testing.assert_close(missed, torch.tensor([[expected, expected, 0.0]]), atol=1e-3, rtol=0)


def test_gradient_step_brings_the_estimate_closer(distance):
    target = 0.1 * noise(1, 1, 1, 3000)
    estimate = (0.1 * noise(1, 1, 1, 3000, seed=1)).requires_grad_()
    before = distance(estimate, target).sum()
    (gradient,) = torch.autograd.grad(before, estimate)
    after = distance(estimate - 1e-3 * gradient / gradient.norm(), target).sum()
    assert after < before


def test_scale_invariant_closed_form():
    along, across = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 1, 4)
    along[..., :2], across[..., 2:] = 1.0, 1.0
    distance = LOSSES.build("si_sdr", LossConfig())
    for gain in (0.5, 3.0):
        value = distance(gain * (along + 0.1 * across), along).item()
        assert value == pytest.approx(10 * math.log10(0.01), abs=5e-2)


def test_closed_forms():
    target = torch.zeros(1, 2, 2, 100)
    estimate = torch.stack([torch.full((2, 100), 0.5), torch.full((2, 100), -2.0)])[None]
    assert LOSSES.build("l1", LossConfig())(estimate, target).tolist() == [[0.5, 2.0]]
    assert LOSSES.build("mse", LossConfig())(estimate, target).tolist() == [[0.25, 4.0]]


@pytest.mark.parametrize(("name", "metric"), [("nsdr", nsdr), ("si_sdr", si_sdr)])
def test_decibel_losses_are_the_negative_metrics_on_loud_signals(name, metric):
    target = 10 * noise(2, 3, 2, 500)
    estimate = target + 3 * noise(2, 3, 2, 500, seed=1)
    value = LOSSES.build(name, LossConfig())(estimate, target)
    torch.testing.assert_close(value.double(), -metric(target, estimate), atol=2e-3, rtol=0)


def test_nsdr_stops_rewarding_at_the_floor():
    nsdr_loss = LOSSES.build("nsdr", LossConfig())
    target = torch.full((1, 1, 1, 10), 1.0)
    assert nsdr_loss(target, target).item() == pytest.approx(10 * math.log10(1e-5 / (1 + 1e-5)), abs=1e-3)


def slow_stft_distance(estimate: torch.Tensor, target: torch.Tensor, size: int) -> float:
    """One channel, by explicit frames and a DFT matrix."""
    hop, half = size // 4, size // 2
    angle = 2 * math.pi * torch.arange(half + 1)[:, None] * torch.arange(size)[None] / size
    window = torch.tensor([math.sin(math.pi * n / size) ** 2 for n in range(size)], dtype=torch.float64)
    magnitudes = []
    for wave in (estimate, target):
        padded = torch.nn.functional.pad(wave.double(), (half, half))
        rows = []
        for start in range(0, len(wave) + 1, hop):
            frame = padded[start : start + size] * window
            real, imaginary = torch.cos(angle.double()) @ frame, torch.sin(angle.double()) @ frame
            rows.append(((real**2 + imaginary**2) / size + MAGNITUDE_FLOOR**2).sqrt())
        magnitudes.append(torch.stack(rows))
    given, wanted = magnitudes
    return float(((given - wanted).abs() + (given.log() - wanted.log()).abs()).mean())


@pytest.mark.parametrize("length", [3, 64, 333])
def test_spectral_distance_equals_explicit_frames(length: int):
    estimate, target = noise(length), noise(length, seed=1)
    loss = MultiResolutionStft((16, 64))
    value = loss(estimate.view(1, 1, 1, -1), target.view(1, 1, 1, -1))
    expected = (slow_stft_distance(estimate, target, 16) + slow_stft_distance(estimate, target, 64)) / 2
    assert value.item() == pytest.approx(expected, rel=1e-4)


def test_spectral_distance_ignores_sign_where_l1_does_not():
    target = noise(1, 1, 2, 3000)
    assert MultiResolutionStft((512,))(-target, target).item() == pytest.approx(0, abs=1e-5)
    assert LOSSES.build("l1", LossConfig())(-target, target).item() > 1


def test_weighted_sum_over_terms_and_sources():
    target = torch.zeros(2, 2, 1, 10)
    estimate = torch.stack([torch.full((1, 10), 1.0), torch.full((1, 10), 3.0)])[None].repeat(2, 1, 1, 1)
    total, terms = WeightedLoss(LossConfig(terms={"l1": 2.0, "mse": 0.5}), 2)(estimate, target)
    assert {name: value.item() for name, value in terms.items()} == {"l1": 2.0, "mse": 5.0}
    assert total.item() == 2 * 2.0 + 0.5 * 5.0
    total, terms = WeightedLoss(LossConfig(source_weights=(3.0, 1.0)), 2)(estimate, target)
    assert total.item() == terms["l1"].item() == pytest.approx((3 * 1 + 1 * 3) / 4)


def test_one_source_weight_gives_the_sum_and_many_the_mean():
    target, estimate = noise(2, 4, 2, 500), noise(2, 4, 2, 500, seed=1)
    shown = {}
    gradients = {}
    for weights in (None, (1.0,), (7.0,), (1.0, 1.0, 1.0, 1.0), (2.0, 2.0, 2.0, 2.0)):
        given = estimate.clone().requires_grad_()
        total, _ = WeightedLoss(LossConfig(source_weights=weights), 4)(given, target)
        shown[weights] = total.item()
        (gradients[weights],) = torch.autograd.grad(total, given)
    by_source = (estimate - target).abs().mean(dim=(0, 2, 3))
    assert shown[(1.0,)] == shown[(7.0,)] == pytest.approx(by_source.sum().item(), rel=1e-6)
    mean = pytest.approx(by_source.mean().item(), rel=1e-6)
    assert shown[None] == shown[(1.0,) * 4] == shown[(2.0,) * 4] == mean
    torch.testing.assert_close(gradients[(1.0,)], 4 * gradients[(1.0,) * 4])


@pytest.mark.parametrize(("optimiser", "same"), [("Adam", True), ("SGD", False)])
def test_the_path_of_adam_does_not_depend_on_sum_or_mean(optimiser: str, same: bool):
    target, mix = noise(2, 4, 2, 200), noise(2, 1, 2, 200, seed=1)
    paths = []
    for weights in ((1.0,), (1.0, 1.0, 1.0, 1.0)):
        loss = WeightedLoss(LossConfig(terms={"mse": 1.0}, source_weights=weights), 4)
        gains = torch.full((4, 1, 1), 0.25, requires_grad=True)
        steps = getattr(torch.optim, optimiser)([gains], lr=0.01)
        path = []
        for _ in range(20):
            steps.zero_grad()
            loss(mix * gains, target)[0].backward()
            steps.step()
            path.append(gains.detach().clone())
        paths.append(torch.stack(path))
    assert torch.allclose(*paths, atol=1e-6, rtol=0) == same
    assert (paths[0][-1] - 0.25).abs().max() > 0.01


def test_branches_count_as_their_mean_and_are_told_apart():
    target, waves = noise(2, 2, 1, 300), noise(2, 3, 2, 1, 300, seed=1)
    loss = WeightedLoss(LossConfig(terms={"l1": 2.0, "mse": 1.0}, source_weights=(3.0, 1.0)), 2)
    total, terms = loss.branches(waves, target, torch.full((3, 2), 1 / 3), (512, 1024, 2048))
    alone = [loss(wave, target) for wave in waves.unbind(dim=1)]
    assert total.item() == pytest.approx(sum(value.item() for value, _ in alone) / 3, rel=1e-6)
    assert set(terms) == {f"{name}@{n_fft}" for name in ("l1", "mse") for n_fft in (512, 1024, 2048)}
    assert terms["mse@1024"].item() == pytest.approx(alone[1][1]["mse"].item(), rel=1e-6)


def test_a_source_counts_only_where_it_has_a_share():
    target, waves = torch.zeros(1, 2, 1, 10), torch.ones(1, 2, 2, 1, 10)
    waves[:, 1, 0] = 5.0  # the second resolution's first source
    loss = WeightedLoss(LossConfig(), 2)
    total, terms = loss.branches(waves, target, torch.tensor([[1.0, 0.5], [0.0, 0.5]]), "ab")
    assert total.item() == pytest.approx(1.0)
    assert (terms["l1@a"] + terms["l1@b"]).item() / 2 == pytest.approx(1.0)
    waves[:, 1, 1] = 3.0
    assert loss.branches(waves, target, torch.tensor([[1.0, 0.5], [0.0, 0.5]]), "ab")[0].item() == pytest.approx(1.5)


def test_weight_zero_leaves_a_default_term_out():
    config = LossConfig.from_dict({"terms": {"l1": 0.0, "mse": 1.0}})
    _, terms = WeightedLoss(config, 1)(torch.ones(1, 1, 1, 4), torch.zeros(1, 1, 1, 4))
    assert list(terms) == ["mse"]


def test_buffers_of_terms_follow_the_module():
    loss = WeightedLoss(LossConfig(terms={"stft": 1.0}), 1).double()
    wave = noise(1, 1, 1, 9000).double()
    assert loss(wave, wave)[0].dtype == torch.float64


def test_wrong_configs():
    with pytest.raises(UnknownNameError, match="unknown loss 'sisdr'; did you mean 'si_sdr'"):
        LossConfig(terms={"sisdr": 1.0})
    with pytest.raises(ConfigError, match=r"terms = .* at least one term needs a weight above 0"):
        LossConfig(terms={"l1": 0.0})
    with pytest.raises(ConfigError, match=r"source_weights is \[1.0, 2.0\]; give 4 numbers, .* or one number for all"):
        WeightedLoss(LossConfig(source_weights=(1.0, 2.0)), 4)
    with pytest.raises(ConfigError, match=r"source_weights is \[-1.0, 2.0\]"):
        WeightedLoss(LossConfig(source_weights=(-1.0, 2.0)), 2)
    with pytest.raises(ConfigError, match=r"source_weights is \[0.0\]"):
        WeightedLoss(LossConfig(source_weights=(0.0,)), 2)


def network() -> nn.Sequential:
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.eye(4))
        second.weight.copy_(torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0]]))
    return nn.Sequential(first, second, nn.Dropout(0.5))


def test_each_layer_counts_by_its_own_size() -> None:
    target, estimate = torch.tensor([[1.0, -1.0, 1.0, -1.0]]), torch.tensor([[2.0, -1.0, 1.0, -1.0]])
    # First layer: mean difference 1/4 over a deviation of 1; second: (1 + 0) / 2 over the deviation of (1, -2), 1.5.
    distance = PerceptualDistance(network(), ["0", "1"])
    assert float(distance(estimate, target)) == pytest.approx((0.25 + 0.5 / 1.5) / 2)
    assert float(distance(10 * estimate, 10 * target)) == pytest.approx(float(distance(estimate, target)))
    assert float(distance(target, target)) == 0


def test_the_network_is_a_frozen_copy_and_gradients_pass_through() -> None:
    source = network()
    distance = PerceptualDistance(source, ["1"]).train()
    assert not distance.network.training
    before = float(distance(torch.ones(1, 4), torch.zeros(1, 4) + torch.arange(4)))
    with torch.no_grad():
        source[0].weight.zero_()
    assert float(distance(torch.ones(1, 4), torch.zeros(1, 4) + torch.arange(4))) == before
    estimate = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    distance(estimate, torch.zeros(3, 4) + torch.arange(4)).backward()
    assert estimate.grad is not None
    assert estimate.grad.abs().sum() > 0
    assert all(parameter.grad is None for parameter in distance.network.parameters())
    assert not distance.network[0]._forward_hooks


def test_layers_that_are_not_there_are_named() -> None:
    with pytest.raises(ConfigError, match="the network has no layer '7'; known: 0, 1"):
        PerceptualDistance(network(), ["7"])
    with pytest.raises(ConfigError, match="needs at least one layer"):
        PerceptualDistance(network(), [])
