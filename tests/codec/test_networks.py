from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from polyres.codec.networks import KINDS, ResidualConfig, ResidualNetwork, build_network, load_network, save_network
from polyres.core.errors import ConfigError, InputError, OutputError, WeightsError

SMALL = {
    "latent_enhancer": {"channels": 4, "width": 4, "depth": 1},
    "mel_refiner": {"width": 4, "depth": 1},
    "bandwidth": {"width": 4, "depth": 1, "n_fft": 128, "sample_rate_hz": 16000, "cutoff_hz": 4000},
}


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_round_trip_keeps_weights_config_and_card(tmp_path: Path, kind: str) -> None:
    module = build_network(kind, SMALL[kind], seed=5)
    path = save_network(kind, module, tmp_path / "n.safetensors", {"codec": "some", "score": 1.5})
    found = load_network(path)
    assert found.kind == kind
    assert found.card == {"codec": "some", "score": 1.5}
    assert found.module.config == module.config
    assert not found.module.training
    wanted = module.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in found.module.state_dict().items())


def test_a_folder_stands_for_its_best_weights(tmp_path: Path) -> None:
    save_network("mel_refiner", build_network("mel_refiner", SMALL["mel_refiner"]), tmp_path)
    assert (tmp_path / "best.safetensors").exists()
    assert load_network(tmp_path, ("mel_refiner",)).kind == "mel_refiner"


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    module = build_network("mel_refiner", SMALL["mel_refiner"])
    path = save_network("mel_refiner", module, tmp_path / "n.safetensors")
    with pytest.raises(WeightsError, match="holds mel_refiner, not a network of kind bandwidth"):
        load_network(path, ("bandwidth",))
    with pytest.raises(ConfigError, match="unknown kind of network 'refiner'; known: latent_enhancer"):
        build_network("refiner", {})
    with pytest.raises(WeightsError, match="there is no weight file"):
        load_network(tmp_path / "none.safetensors")
    with pytest.raises(WeightsError, match="cannot be written as JSON"):
        save_network("mel_refiner", module, path, {"x": float("nan")})
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        save_network("mel_refiner", module, tmp_path / "file" / "n.safetensors")
    save_file({"a": torch.zeros(1)}, tmp_path / "bad.safetensors", {"polyres": "{"})
    with pytest.raises(WeightsError, match="its metadata is damaged"):
        load_network(tmp_path / "bad.safetensors")
    about = json.dumps({"format": 1, "kind": "mel_refiner", "config": {"wdth": 3}, "card": {}})
    save_file({"a": torch.zeros(1)}, tmp_path / "odd.safetensors", {"polyres": about})
    with pytest.raises(WeightsError, match="its config is not usable"):
        load_network(tmp_path / "odd.safetensors")


@pytest.mark.parametrize("config", [{"depth": 10_000, "width": 99}, {"width": 10**6}, {"channels": 10**9}])
def test_a_config_that_asks_for_more_than_the_file_holds_is_refused_before_it_is_built(
    config: dict[str, int], tmp_path: Path
) -> None:
    about = json.dumps({"format": 1, "kind": "mel_refiner", "config": config, "card": {}})
    save_file({"a": torch.zeros(1)}, tmp_path / "n.safetensors", {"polyres": about})
    with pytest.raises(
        WeightsError, match=r"n\.safetensors: its config is not usable: it asks for far more than the tens"
    ):
        load_network(tmp_path / "n.safetensors")


SMALL_RESIDUAL = ResidualConfig(width=8, depth=3)


def picture(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def awake(network: ResidualNetwork) -> ResidualNetwork:
    """Give the last layer weights, as training does."""
    with torch.no_grad():
        network.last.weight.copy_(picture(*network.last.weight.shape, seed=9) * 0.3)
    return network.eval()


def test_before_training_nothing_is_added() -> None:
    assert not ResidualNetwork(SMALL_RESIDUAL)(picture(2, 20, 64)).any()
    latents = ResidualConfig(channels=8, width=8, depth=2)
    assert not ResidualNetwork(latents)(picture(2, 8, 10, 16)).any()


def test_seeds_give_the_same_weights_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    one, same, other = (
        ResidualNetwork(SMALL_RESIDUAL, 3),
        ResidualNetwork(SMALL_RESIDUAL, 3),
        ResidualNetwork(SMALL_RESIDUAL, 4),
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(one.first.weight, same.first.weight)
    assert not torch.equal(one.first.weight, other.first.weight)


def test_frames_beyond_the_context_do_not_matter() -> None:
    network = awake(ResidualNetwork(SMALL_RESIDUAL))
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
        said = awake(ResidualNetwork(SMALL_RESIDUAL))(torch.zeros(1, 30, 64))[0, 15]
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
    blind, informed = (
        ResidualNetwork(SMALL_RESIDUAL),
        ResidualNetwork(SMALL_RESIDUAL.model_copy(update={"informed": True})),
    )
    value = picture(1, 20, 64)
    with pytest.raises(InputError, match="this network is blind and must not see the original"):
        blind(value, value)
    with pytest.raises(InputError, match="this network needs the original"):
        informed(value)
    with pytest.raises(InputError, match=r"shape \[1, 8, 20, 16\] does not fit a network for 1 channels"):
        blind(picture(1, 8, 20, 16))
