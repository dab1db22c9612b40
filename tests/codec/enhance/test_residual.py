from __future__ import annotations

import pytest
import torch
from torch import Tensor

from polyres.codec.enhance.residual import ResidualConfig, ResidualNetwork
from polyres.core.errors import InputError

SMALL = ResidualConfig(width=8, depth=3)


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(network: ResidualNetwork) -> ResidualNetwork:
    """Give the last layer weights, as training does."""
    with torch.no_grad():
        network.last.weight.copy_(picture(*network.last.weight.shape, seed=9) * 0.3)
    return network.eval()


def test_before_training_nothing_is_added() -> None:
    assert not ResidualNetwork(SMALL)(picture(2, 20, 64)).any()
    latents = ResidualConfig(channels=8, width=8, depth=2)
    assert not ResidualNetwork(latents)(picture(2, 8, 10, 16)).any()


def test_seeds_give_the_same_weights_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = ResidualNetwork(SMALL, 3), ResidualNetwork(SMALL, 3), ResidualNetwork(SMALL, 4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.first.weight, same.first.weight)
    assert not torch.equal(one.first.weight, other.first.weight)


def test_frames_beyond_the_context_do_not_matter() -> None:
    network = awake(ResidualNetwork(SMALL))
    value = picture(1, 60, 64)
    changed = value.clone()
    changed[:, 40:] += 1
    with torch.no_grad():
        apart = (network(value) - network(changed)).abs().amax(dim=(0, 2))
    reach = network.context_frames
    assert reach == 1 + 1 + 2 + 4
    assert apart[: 40 - reach].max() == 0
    assert apart[40 - reach] > 0


def test_places_on_the_frequency_axis_differ() -> None:
    with torch.no_grad():
        said = awake(ResidualNetwork(SMALL))(torch.zeros(1, 30, 64))[0, 15]
    assert (said[10] - said[50]).abs() > 1e-4


def test_an_informed_network_can_learn_to_copy_what_a_blind_one_cannot_know() -> None:
    distances = []
    for informed in (False, True):
        network = ResidualNetwork(ResidualConfig(width=8, depth=1, informed=informed))
        optimiser = torch.optim.Adam(network.parameters(), lr=0.02)
        coarse, original = picture(2, 16, 64), picture(2, 16, 64, seed=1)
        for step in range(60):
            fresh = picture(2, 16, 64, seed=100 + step)
            added = network(coarse, fresh) if informed else network(coarse)
            loss = (coarse + added - fresh).abs().mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            added = network(coarse, original) if informed else network(coarse)
        distances.append(float((coarse + added - original).abs().mean()))
    assert distances[1] < 0.6 * distances[0]


def test_wrong_pictures_are_refused() -> None:
    blind, informed = ResidualNetwork(SMALL), ResidualNetwork(SMALL.model_copy(update={"informed": True}))
    value = picture(1, 20, 64)
    with pytest.raises(InputError, match="this network is blind and must not see the original"):
        blind(value, value)
    with pytest.raises(InputError, match="this network needs the original"):
        informed(value)
    with pytest.raises(InputError, match=r"shape \[1, 8, 20, 16\] does not fit a network for 1 channels"):
        blind(picture(1, 8, 20, 16))
