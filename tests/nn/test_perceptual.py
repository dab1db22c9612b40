from __future__ import annotations

import pytest
import torch
from torch import nn

from polyres.core.errors import ConfigError
from polyres.nn.losses import PerceptualDistance


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
