"""Mixing along time and bands: what it reaches, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.nn.attention import ATTENTION
from polyres.nn.band_mixing import BAND_MIXING, TIME_MIXING, BandAttention, BandBlock, ConvMixing, LineAttention
from polyres.nn.body import BodyConfig

WIDTH, BANDS, FRAMES = 8, 5, 7
OVER_TIME = [*TIME_MIXING.names(), *ATTENTION.names()]
OVER_BANDS = [*BAND_MIXING.names(), *ATTENTION.names()]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def reach(part: nn.Module) -> Tensor:
    """Which bands and frames change with one cell in the middle, `[K, N]`; the other item of the batch must not."""
    x = torch.randn(2, BANDS, FRAMES, WIDTH)
    moved = x.clone()
    moved[0, 2, 3] += 1
    with torch.no_grad():
        change = (part(moved) - part(x)).abs().amax(dim=-1)
    assert not (change[1] > 1e-6).any()
    return change[0] > 1e-6


@pytest.mark.parametrize("kind", OVER_TIME)
def test_time_mixing_stays_in_its_band(kind: str) -> None:
    part = TIME_MIXING.build(kind, WIDTH, 0) if kind in TIME_MIXING else LineAttention(kind, WIDTH)
    wanted = torch.zeros(BANDS, FRAMES, dtype=torch.bool)
    wanted[2, slice(2, 5) if kind == "conv" else slice(None)] = True
    assert torch.equal(reach(part), wanted)


@pytest.mark.parametrize("kind", OVER_BANDS)
def test_band_mixing_stays_in_its_frame(kind: str) -> None:
    part = BAND_MIXING.build(kind, BANDS) if kind in BAND_MIXING else BandAttention(kind, WIDTH)
    wanted = torch.zeros(BANDS, FRAMES, dtype=torch.bool)
    wanted[:, 3] = True
    assert torch.equal(reach(part), wanted)


@pytest.mark.parametrize("place", [0, 2, 7])
def test_convolution_is_a_dilated_one(place: int) -> None:
    part, x, apart = ConvMixing(WIDTH, place), torch.randn(2, BANDS, FRAMES, WIDTH), 2 ** (place % 6)
    kernel = part.conv.weight.unflatten(1, (3, WIDTH)).permute(0, 2, 1)
    rows = x.flatten(0, 1).transpose(1, 2)
    gated = F.glu(F.conv1d(rows, kernel, part.conv.bias, padding=apart, dilation=apart), dim=1)
    wanted = F.linear(gated.transpose(1, 2), part.out.weight, part.out.bias).view_as(x)
    torch.testing.assert_close(part(x), wanted)


def test_block_adds_its_parts_one_after_another() -> None:
    block, x = BandBlock(BodyConfig(time_mixing="conv"), WIDTH, BANDS, 0), torch.randn(2, BANDS, FRAMES, WIDTH)
    assert block.feed_forward is not None
    first = x + block.over_time(block.norm_time(x))
    second = first + block.over_bands(block.norm_band(first))
    torch.testing.assert_close(block(x), second + block.feed_forward(second))
    assert BandBlock(BodyConfig(feed_forward=0), WIDTH, BANDS, 0).feed_forward is None
