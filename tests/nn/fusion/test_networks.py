"""Output fusions that are small networks, or work per band or moment."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.nn.fusion.base import Fusion, FusionConfig, FusionShape, identity_bank
from polyres.nn.fusion.networks import (
    BandWeights,
    GatedFusion,
    ProgressiveFusion,
    UNetFusion,
    UNetNotesFusion,
    fast_length,
)

SOURCES = ("drums", "bass", "other", "vocals")
FIVE = tuple(1024 * 2**i for i in range(5))


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def shape(count: int = 3) -> FusionShape:
    return FusionShape(FIVE[:count], SOURCES, 2, 44100)


def waves(count: int = 3, length: int = 3001, batch: int = 1) -> Tensor:
    return torch.randn(batch, count, 4, 2, length)


def fuse(fusion: Fusion, y: Tensor) -> Tensor:
    out: Tensor = fusion(y, torch.ones(y.shape[1]))
    return out.detach()


def stir(fusion: Fusion, amount: float = 0.1) -> None:
    with torch.no_grad():
        for value in fusion.parameters():
            value.add_(amount * torch.randn_like(value))


# -- U-Net ------------------------------------------------------------------------------------------------------------


def test_unet_has_the_stated_size() -> None:
    parameters = sum(value.numel() for value in UNetFusion(FusionConfig(), shape(5)).parameters())
    assert 100_000 <= parameters <= 1_000_000


def test_unet_first_layer_takes_all_resolutions_and_the_decoder_mirrors_the_encoder() -> None:
    net = UNetFusion(FusionConfig(widths=(6, 10, 14), strides=(4, 2, 2), kernel_size=8), shape(5)).net
    assert [tuple(layer.weight.shape) for layer in net.down] == [(6, 8, 5, 8), (10, 6, 1, 8), (14, 10, 1, 8)]
    assert [tuple(layer.weight.shape) for layer in net.up] == [(14, 10, 8), (20, 6, 8), (12, 8, 8)]
    assert [layer.stride[-1] for layer in net.down] == [4, 2, 2]
    assert [layer.stride[-1] for layer in net.up] == [2, 2, 4]


def test_unet_adds_its_net_to_the_mean() -> None:
    fusion, y = UNetFusion(FusionConfig(widths=(6, 8), strides=(4, 4)), shape()), waves(length=500)
    stir(fusion)
    rows = torch.cat([y[:, :, s, c] for s in range(4) for c in range(2)])[None]
    change = fusion.net(rows).detach()[0].view(4, 2, 500)
    assert float(change.std()) > 1e-3
    torch.testing.assert_close(fuse(fusion, y)[0], y[0].mean(dim=0) + change)


def test_unet_can_give_large_negative_samples_and_that_of_the_notes_cannot() -> None:
    config = FusionConfig(widths=(6, 8), strides=(4, 4))
    right, notes = UNetFusion(config, shape()), UNetNotesFusion(config, shape())
    stir(right, 0.5)
    stir(notes, 0.5)
    y = 10 * waves(length=400)
    assert float(fuse(right, y).min()) < -5
    assert float(fuse(notes, y).min()) >= -0.1701
    assert float(fuse(notes, y).max()) > 5


def test_unet_reaches_around_a_sample_evenly() -> None:
    """The net's answer to an impulse lies around it, not before or after it."""
    fusion = UNetFusion(FusionConfig(widths=(6, 8), strides=(2, 2), kernel_size=6), shape(1))
    stir(fusion)
    silence = torch.zeros(1, 1, 4, 2, 201)
    click = silence.clone()
    click[..., 100] = 1
    touched = (fuse(fusion, click) - fuse(fusion, silence)).abs().amax((0, 1, 2)).nonzero().flatten()
    assert 80 < int(touched.min()) < 98
    assert 102 < int(touched.max()) < 120


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"widths": (4, 4), "strides": (4,)}, r"widths \(4, 4\) and strides \(4,\) must be equally long"),
        ({"widths": (), "strides": ()}, "must be equally long, 1 or more"),
        ({"widths": (4,), "strides": (9,)}, "kernel_size 8 is below the largest stride 9"),
    ],
)
def test_impossible_unets_are_refused(values: dict[str, tuple[int, ...]], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        UNetFusion(FusionConfig.from_dict(values), shape())


# -- progressive ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "stages"), [(1, []), (2, [2]), (3, [3, 2]), (5, [5, 3, 2])])
def test_progressive_halves_until_one_is_left(count: int, stages: list[int]) -> None:
    fusion, y = ProgressiveFusion(FusionConfig(), shape(count)), waves(count, 100)
    assert [stage.merge.shape[1] for stage in fusion.stages] == stages
    torch.testing.assert_close(fuse(fusion, y), y.mean(dim=1), atol=1e-6, rtol=1e-5)


def test_progressive_treats_sources_and_channels_apart() -> None:
    fusion, y = ProgressiveFusion(FusionConfig(), shape(5)), waves(5, 100)
    stir(fusion)
    other = y.clone()
    other[:, :, 2, 1] = torch.randn_like(other[:, :, 2, 1])
    changed = (fuse(fusion, y) - fuse(fusion, other)).abs().amax((0, 3)) > 1e-6
    assert changed.nonzero().tolist() == [[2, 1]]


def test_progressive_learns_away_from_the_mean() -> None:
    fusion, y = ProgressiveFusion(FusionConfig(), shape()), waves(length=100)
    stir(fusion)
    assert not torch.allclose(fuse(fusion, y), y.mean(dim=1), atol=1e-2)


# -- bands ------------------------------------------------------------------------------------------------------------


def test_equal_weights_in_all_bands_are_plain_source_weights() -> None:
    fusion, y = BandWeights(FusionConfig(), shape()), waves()
    row = torch.randn(4, 3)
    assert fusion.table.logits is not None
    with torch.no_grad():
        fusion.table.logits.copy_(row.expand(4, 4, 3).flatten())
    wanted = torch.einsum("brsct,sr->bsct", y, row.softmax(dim=1))
    torch.testing.assert_close(fuse(fusion, y), wanted, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(fusion.weights(), row.softmax(dim=1))


@pytest.mark.parametrize("length", [1, 40, 301])
def test_bands_equal_filtering_every_branch(length: int) -> None:
    fusion, y = BandWeights(FusionConfig(band_taps=65), shape()), waves(length=length)
    stir(fusion, 1.0)
    bank = identity_bank((250.0, 1000.0, 4000.0), 65, 44100)
    weights = fusion.band_weights().detach()
    assert weights.shape == (4, 4, 3)
    wanted = torch.zeros(1, 4, 2, length)
    for band in range(4):
        filtered = torch.nn.functional.conv1d(y.reshape(-1, 1, length), bank[band].flip(0)[None, None], padding=32)
        wanted += torch.einsum("brsct,sr->bsct", filtered.view_as(y), weights[band])
    torch.testing.assert_close(fuse(fusion, y), wanted, atol=1e-5, rtol=1e-4)


def test_one_resolution_can_rule_the_lows_and_another_the_highs() -> None:
    fusion = BandWeights(FusionConfig(bands_hz=(1000.0,)), shape(2))
    assert fusion.table.logits is not None
    with torch.no_grad():
        fusion.table.logits.copy_(torch.tensor([[-20.0, 20], [20, -20]])[:, None].expand(2, 4, 2).flatten())
    time = torch.arange(8000) / 44100
    low, high = torch.sin(2 * torch.pi * 200 * time), torch.sin(2 * torch.pi * 6000 * time)
    y = torch.stack([high + low, torch.zeros_like(low)])[None, :, None, None].expand(1, 2, 4, 2, 8000)
    inner = slice(1000, -1000)
    torch.testing.assert_close(fuse(fusion, y)[0, 0, 0, inner], high[inner], atol=5e-3, rtol=0)
    torch.testing.assert_close(fuse(fusion, y.flip(1))[0, 0, 0, inner], low[inner], atol=5e-3, rtol=0)


def test_impossible_bands_are_refused() -> None:
    with pytest.raises(ConfigError, match="must rise and lie between 0 and 22050 Hz"):
        BandWeights(FusionConfig(bands_hz=(30000.0,)), shape())
    with pytest.raises(ConfigError, match="band_taps is 64; an odd number"):
        BandWeights(FusionConfig(band_taps=64), shape())


@given(length=st.integers(1, 3000))
def test_fast_length_is_the_next_product_of_small_primes(length: int) -> None:
    def rest(number: int) -> int:
        for prime in (2, 3, 5):
            while number % prime == 0:
                number //= prime
        return number

    wanted = length
    while rest(wanted) != 1:
        wanted += 1
    assert fast_length(length) == wanted


# -- gate -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 15, 16, 17, 1000])
def test_moving_weights_sum_to_one_at_every_sample(length: int) -> None:
    fusion, y = GatedFusion(FusionConfig(gate_hop_samples=16), shape()), waves(length=length)
    stir(fusion, 0.5)
    moving = fusion.moving_weights(y, torch.ones(3)).detach()
    assert moving.shape == (1, 3, 4, length)
    torch.testing.assert_close(moving.sum(dim=1), torch.ones(1, 4, length))
    absent = fusion.moving_weights(y, torch.tensor([1.0, 0, 1])).detach()
    assert not absent[:, 1].any()
    torch.testing.assert_close(absent.sum(dim=1), torch.ones(1, 4, length))
    torch.testing.assert_close(fuse(fusion, y), (y * moving[:, :, :, None]).sum(dim=1))


def test_weights_move_with_the_branches_energies() -> None:
    fusion = GatedFusion(FusionConfig(gate_hop_samples=16), shape())
    stir(fusion, 0.5)
    y = waves(length=640)
    y[..., 320:] *= 1e-3
    moving = fusion.moving_weights(y, torch.ones(3)).detach()
    early, late = moving[..., 64:256].mean(dim=-1), moving[..., 384:576].mean(dim=-1)
    assert float((early - late).abs().max()) > 0.05
    assert float(moving[..., 128:192].std(dim=-1).max()) < float((early - late).abs().max())


def test_silence_gives_finite_weights() -> None:
    fusion = GatedFusion(FusionConfig(), shape())
    y = torch.zeros(1, 3, 4, 2, 3000, requires_grad=True)
    out: Tensor = fusion(y, torch.ones(3))
    out.sum().backward()
    assert not out.any()
    assert y.grad is not None
    assert bool(y.grad.isfinite().all())
