"""Small blocks of the branches."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from polyres.nn.layers import (
    FrequencyEmbedding,
    LayerScale,
    ResidualDilated,
    gated_convolution,
    glu_channels,
    optional_norm,
    rescale_convolutions,
    start_at_zero,
)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_layer_scale_starts_with_its_gain_on_the_right_axis() -> None:
    x = noise(2, 3, 5)
    scale = LayerScale(3, 0.25)
    torch.testing.assert_close(scale(x), 0.25 * x)
    last = LayerScale(5, 0.25, channel_last=True)
    with torch.no_grad():
        scale.scale.copy_(torch.tensor([1.0, 2, 3]))
        last.scale.copy_(torch.arange(5.0))
    torch.testing.assert_close(scale(x)[:, 2], 3 * x[:, 2])
    torch.testing.assert_close(last(x)[..., 4], 4 * x[..., 4])


def test_residual_block_equals_the_written_out_formula() -> None:
    block = ResidualDilated(8, 4, 2, 0.5)
    x = noise(2, 8, 31)
    wanted = x
    for depth, layers in enumerate(block.blocks):
        assert isinstance(layers, nn.Sequential)
        widen, norm, _, narrow, norm_out, _, scale = layers
        y = nn.functional.conv1d(wanted, widen.weight, widen.bias, padding=2**depth, dilation=2**depth)
        mean, var = y.mean((1, 2), keepdim=True), y.var((1, 2), keepdim=True, unbiased=False)
        y = nn.functional.gelu((y - mean) / (var + 1e-5).sqrt() * norm.weight[:, None] + norm.bias[:, None])
        y = torch.einsum("bct,oc->bot", y, narrow.weight[:, :, 0]) + narrow.bias[:, None]
        mean, var = y.mean((1, 2), keepdim=True), y.var((1, 2), keepdim=True, unbiased=False)
        y = (y - mean) / (var + 1e-5).sqrt() * norm_out.weight[:, None] + norm_out.bias[:, None]
        wanted = wanted + scale.scale[:, None] * y[:, :8] * y[:, 8:].sigmoid()
    torch.testing.assert_close(block(x), wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_residual_block_treats_every_bin_on_its_own(channels_last: bool) -> None:
    block = ResidualDilated(8, 4, 2, 0.5)
    x = noise(2, 8, 5, 13)
    given = x.contiguous(memory_format=torch.channels_last) if channels_last else x
    together = block(given)
    assert together.shape == x.shape
    for index in range(5):
        torch.testing.assert_close(together[:, :, index], block(x[:, :, index]), atol=1e-5, rtol=1e-5)


def test_residual_block_starts_near_identity_and_keeps_one_hidden_channel() -> None:
    block = ResidualDilated(4, 8, 3, 1e-3)
    x = noise(2, 4, 20)
    torch.testing.assert_close(block(x), x, atol=0.02, rtol=0)
    assert block.blocks[0][0].out_channels == 1
    assert [layers[0].dilation for layers in block.blocks] == [(1,), (2,), (4,)]


def test_embedding_adds_one_offset_per_bin_and_channel() -> None:
    embedding = FrequencyEmbedding(6, 3, 0.2, 10.0, smooth=True)
    x = noise(2, 3, 6, 4)
    offset = embedding(x) - x
    torch.testing.assert_close(offset, (2.0 * embedding.weight.t())[None, :, :, None].expand_as(x), atol=1e-6, rtol=0)


def test_embedding_boost_changes_what_is_stored_not_what_is_added() -> None:
    torch.manual_seed(0)
    plain = FrequencyEmbedding(6, 3, 0.2, 1.0, smooth=True)
    torch.manual_seed(0)
    boosted = FrequencyEmbedding(6, 3, 0.2, 10.0, smooth=True)
    zero = torch.zeros(1, 3, 6, 1)
    torch.testing.assert_close(plain(zero), boosted(zero))
    torch.testing.assert_close(plain.weight, 10 * boosted.weight)


def test_smooth_embedding_starts_alike_in_neighbouring_bins() -> None:
    torch.manual_seed(0)
    rough = FrequencyEmbedding(512, 48, 0.2, 1.0, smooth=False).weight.detach()
    smooth = FrequencyEmbedding(512, 48, 0.2, 1.0, smooth=True).weight.detach()
    assert float((rough[1:] * rough[:-1]).mean()) == pytest.approx(0, abs=0.05)
    assert float((smooth[256:] - smooth[255:-1]).square().mean()) < 0.01
    assert float(smooth.square().mean()) == pytest.approx(1, abs=0.3)


def test_optional_norm() -> None:
    assert isinstance(optional_norm(8, 4, on=True), nn.GroupNorm)
    assert isinstance(optional_norm(8, 4, on=False), nn.Identity)


def test_rescaling_moves_deviations_to_their_geometric_mean_with_the_reference() -> None:
    module = nn.Sequential(
        nn.Conv1d(3, 8, 5), nn.ConvTranspose2d(3, 8, 5), nn.Linear(4, 4), nn.Conv2d(2, 2, 3, bias=False)
    )
    before = {name: value.clone() for name, value in module.state_dict().items()}
    rescale_convolutions(module, 0.1)
    for index in (0, 1, 3):
        std = before[f"{index}.weight"].std()
        torch.testing.assert_close(module[index].weight.std(), (std * 0.1).sqrt())
        if module[index].bias is not None:
            torch.testing.assert_close(module[index].bias, before[f"{index}.bias"] * (0.1 / std).sqrt())
    torch.testing.assert_close(module[2].weight, before["2.weight"])


def test_start_at_zero_silences_a_layer() -> None:
    layer = nn.Conv1d(2, 3, 3)
    start_at_zero(layer)
    assert not layer(noise(1, 2, 9)).any()


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 6, 5, 3)])
def test_gated_unit_gates_the_first_half_by_the_second(shape: tuple[int, ...]) -> None:
    x = noise(*shape)
    torch.testing.assert_close(glu_channels(x), x[:, :3] / (1 + torch.exp(-x[:, 3:])))
    with torch.no_grad():
        torch.testing.assert_close(glu_channels(x), x[:, :3] / (1 + torch.exp(-x[:, 3:])))


@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_gated_convolution_is_convolution_norm_and_gate(normed: bool, size: int, layout: torch.memory_format) -> None:
    flat, line = nn.Conv2d(4, 12, size, 1, size // 2), nn.Conv1d(4, 12, size, 1, size // 2)
    norm = nn.GroupNorm(2, 12) if normed else nn.Identity()
    for conv, x in ((flat, noise(2, 4, 5, 7).contiguous(memory_format=layout)), (line, noise(2, 4, 7))):
        value, gate = norm(conv(x)).chunk(2, dim=1)
        torch.testing.assert_close(gated_convolution(conv, norm, x), value * gate.sigmoid())
        with torch.no_grad():
            torch.testing.assert_close(gated_convolution(conv, norm, x), value * gate.sigmoid())
