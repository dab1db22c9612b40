"""The separator with one resolution against the official implementation, same tensors."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
import torch
from demucs.htdemucs import HTDemucs
from torch import Tensor, nn

from polyres.separation.model import Separator
from polyres.separation.official import convert
from tests.separation.oracle import (
    FOUR,
    RELEASED,
    RELEASED_6S,
    SMALL,
    demucs_model,
    noise,
    package_of,
    relative_error,
)

pytestmark = pytest.mark.usefixtures("one_thread")

BOUND = 1e-5

Pair = tuple[HTDemucs, Separator]


def pair_of(arguments: dict[str, Any], seed: int = 0) -> Pair:
    official = demucs_model(arguments, seed)
    return official, convert(package_of(official))


def check(pair: Pair, mix: Tensor) -> None:
    official, ours = pair
    with torch.no_grad():
        assert relative_error(ours(mix), official(mix)) <= BOUND


@pytest.fixture(scope="module")
def padding() -> Pair:
    """Shorter input is padded to the segment, 22050 samples."""
    return pair_of({**SMALL, "bottom_channels": 64, "dconv_mode": 3})


@pytest.fixture(scope="module")
def free() -> Pair:
    """Input of any length is taken as it is."""
    return pair_of({**SMALL, "use_train_segment": False})


@pytest.mark.parametrize("length", [1, 5, 1023, 2048, 10_001, 22_049, 22_050])
def test_up_to_a_segment(padding: Pair, length: int) -> None:
    check(padding, noise(1, 2, length))


@pytest.mark.parametrize("length", [5, 1024, 3073, 10_001, 50_003])
def test_any_length_without_a_training_segment(free: Pair, length: int) -> None:
    check(free, noise(1, 2, length))


@pytest.mark.parametrize("level", [1e-4, 1.0, 30.0])
def test_levels_and_offsets_in_a_batch(padding: Pair, level: float) -> None:
    check(padding, level * noise(3, 2, 20_000) + torch.tensor([0.0, 0.5, -2.0])[:, None, None] * level)


def test_mono_as_stereo(padding: Pair) -> None:
    check(padding, noise(1, 1, 15_000).expand(1, 2, -1))


def test_silence_and_a_constant(padding: Pair) -> None:
    silence = torch.zeros(1, 2, 15_000)
    with torch.no_grad():
        assert torch.equal(padding[1](silence), padding[0](silence))
    check(padding, silence + 0.25)


@pytest.mark.parametrize(
    "changes",
    [
        {"dconv_mode": 0},
        {"dconv_mode": 2, "dconv_depth": 3, "dconv_comp": 4},
        {"norm_starts": 2, "dconv_mode": 3},
        {"norm_starts": 0, "norm_groups": 2},
        {"nfft": 2048, "depth": 3},
        {"nfft": 8192, "context": 2},
        {"t_layers": 0},
        {"t_layers": 2, "t_heads": 2, "t_hidden_scale": 2.0},
        {"t_weight_pos_embed": 0.5, "t_max_period": 500.0},
        {"freq_emb": 0.0},
        {"freq_emb": 0.7, "emb_scale": 3},
        {"audio_channels": 1, "sources": ["a", "b"]},
        {"kernel_size": 4, "stride": 2, "growth": 3, "depth": 3, "t_layers": 1},
    ],
    ids=str,
)
def test_arguments(changes: dict[str, Any]) -> None:
    arguments = {**SMALL, "segment": Fraction(1, 4), **changes}
    check(pair_of(arguments), noise(2, arguments.get("audio_channels", 2), 10_001))


def test_every_part_of_the_oracle_counts(padding: Pair) -> None:
    official, _ = padding
    mix = noise(1, 2, 22_050)

    def effect_of(part: str) -> float:
        changed = demucs_model({**SMALL, "bottom_channels": 64, "dconv_mode": 3})
        with torch.no_grad():
            for name, value in changed.named_parameters():
                if part in name:
                    value.zero_()
            return relative_error(changed(mix), wanted)

    with torch.no_grad():
        wanted = official(mix)
    parts = ("layers.0.gamma_1", "layers_t.1.gamma_1", "layers.4.gamma_2", "dconv", "freq_emb", "decoder.0.rewrite")
    for part in parts:
        assert effect_of(part) > 100 * BOUND, part


ARCHITECTURES = [
    pytest.param(RELEASED, 41_984_456, 533, id="htdemucs"),
    pytest.param(RELEASED_6S, 27_414_996, 525, id="htdemucs_6s"),
    pytest.param({"sources": FOUR}, 26_899_536, 381, id="defaults"),
]


@pytest.mark.parametrize(("arguments", "parameters", "tensors"), ARCHITECTURES)
def test_full_size_on_a_short_segment(arguments: dict[str, Any], parameters: int, tensors: int) -> None:
    pair = pair_of({**arguments, "segment": Fraction(1, 2)})
    assert count(pair[1]) == count(pair[0]) == parameters
    assert len(pair[1].state_dict()) == len(pair[0].state_dict()) == tensors
    check(pair, noise(1, 2, 20_001))


@pytest.mark.slow
def test_the_released_architecture_on_a_full_segment() -> None:
    pair = pair_of(RELEASED)
    assert pair[1].segment_samples == 343_980
    check(pair, noise(1, 2, 343_980))


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [RELEASED_6S, {"sources": FOUR}], ids=["htdemucs_6s", "defaults"])
def test_full_size_on_full_and_short_segments(arguments: dict[str, Any]) -> None:
    pair = pair_of(arguments, seed=1)
    for length in (pair[1].segment_samples, 200_001):
        check(pair, noise(1, 2, length))


def count(model: nn.Module) -> int:
    return sum(value.numel() for value in model.parameters())
