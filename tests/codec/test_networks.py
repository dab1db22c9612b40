from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from polyres.codec.networks import KINDS, build_network, load_network, save_network
from polyres.core.errors import ConfigError, OutputError, WeightsError

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
