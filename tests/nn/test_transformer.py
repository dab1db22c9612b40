"""Tokens, positions and the exchange between the two domains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.nn.attention import ATTENTION
from polyres.nn.transformer import CrossTransformer, TransformerConfig, TransformerLayer, grid_positions, line_positions

CPU = torch.device("cpu")
SPARSE = {"block": 8, "global_tokens": 4, "random_tokens": 4}
kinds = pytest.mark.parametrize("kind", ATTENTION.names())


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def config(**values: object) -> TransformerConfig:
    # strong residuals, so that a test can see what a layer does
    return TransformerConfig.from_dict({"layers": 3, "heads": 4, "scale_init": 0.5, "sparse": SPARSE, **values})


def test_line_positions_have_their_closed_form() -> None:
    table = line_positions(7, 12, 10000.0, CPU)
    for place in range(7):
        for channel in range(6):
            phase = place / 10000 ** (channel / 5)
            assert float(table[place, channel]) == pytest.approx(math.cos(phase), abs=1e-5)
            assert float(table[place, 6 + channel]) == pytest.approx(math.sin(phase), abs=1e-5)


def test_grid_positions_have_their_closed_form_and_frequency_runs_fastest() -> None:
    bins, frames, channels = 3, 5, 16
    table = grid_positions(bins, frames, channels, 10000.0, CPU)
    assert table.shape == (15, 16)
    for frame in range(frames):
        for index in range(bins):
            row = table[frame * bins + index]
            for pair in range(4):
                rate = 10000 ** (-2 * pair / 8)
                for offset, place in ((0, frame), (8, index)):
                    assert float(row[offset + 2 * pair]) == pytest.approx(math.sin(place * rate), abs=1e-5)
                    assert float(row[offset + 2 * pair + 1]) == pytest.approx(math.cos(place * rate), abs=1e-5)


def test_layer_equals_the_written_out_formula() -> None:
    layer = TransformerLayer(config(), 16, cross=True)
    x, other = torch.randn(2, 6, 16), torch.randn(2, 9, 16)
    y = x + 0.5 * layer.attention(layer.norm_query(x), layer.norm_memory(other))
    y = y + 0.5 * layer.linear2(torch.nn.functional.gelu(layer.linear1(layer.norm_hidden(y))))
    mean, var = y.mean((1, 2), keepdim=True), y.var((1, 2), keepdim=True, unbiased=False)
    torch.testing.assert_close(layer(x, other), (y - mean) / (var + 1e-5).sqrt(), atol=1e-5, rtol=1e-5)


def test_self_layer_does_not_read_the_other_domain() -> None:
    layer = TransformerLayer(config(), 16, cross=False)
    x = torch.randn(2, 6, 16)
    torch.testing.assert_close(layer(x, torch.randn(2, 9, 16)), layer(x, x))
    assert layer.norm_memory is None


def test_cross_layers_read_the_tokens_from_before_the_layer() -> None:
    net = CrossTransformer(config(layers=2), 16, with_wave=True)
    assert net.wave is not None
    x, wave = torch.randn(1, 16, 2, 3), torch.randn(1, 16, 5)
    tokens = x.permute(0, 3, 2, 1).reshape(1, 6, 16)
    tokens = net.norm_in(tokens) + grid_positions(2, 3, 16, 10000.0, CPU)
    others = net.wave.norm_in(wave.transpose(1, 2)) + line_positions(5, 16, 10000.0, CPU)
    tokens, others = net.layers[0](tokens, others), net.wave.layers[0](others, tokens)
    tokens, others = net.layers[1](tokens, others), net.wave.layers[1](others, tokens)
    out, out_wave = net(x, wave)
    torch.testing.assert_close(out, tokens.reshape(1, 3, 2, 16).permute(0, 3, 2, 1))
    torch.testing.assert_close(out_wave, others.transpose(1, 2))


@kinds
@pytest.mark.parametrize("bottom", [0, 24])
@pytest.mark.parametrize("with_wave", [False, True])
def test_contract(kind: str, bottom: int, with_wave: bool) -> None:
    """Shapes, finite values, items of a batch independent, a gradient for every parameter."""
    net = CrossTransformer(config(kind=kind, bottom_channels=bottom), 16, with_wave)
    x, wave = torch.randn(2, 16, 4, 9), torch.randn(2, 16, 21) if with_wave else None
    out, out_wave = net(x, wave)
    assert out.shape == x.shape
    total = (out * torch.randn(out.shape)).sum()
    alone, _ = net(x[:1], None if wave is None else wave[:1])
    torch.testing.assert_close(alone, out[:1], atol=1e-5, rtol=1e-5)
    if wave is None:
        assert out_wave is None
    else:
        assert out_wave is not None
        assert out_wave.shape == wave.shape
        total = total + (out_wave * torch.randn(wave.shape)).sum()
    total.backward()
    assert bool(out.isfinite().all())
    dead = [name for name, value in net.named_parameters() if value.grad is None or not value.grad.any()]
    assert not dead


def test_state_has_no_parameters_for_a_domain_that_is_not_there() -> None:
    lonely = CrossTransformer(config(), 16, with_wave=False).state_dict()
    paired = CrossTransformer(config(), 16, with_wave=True).state_dict()
    assert not [name for name in lonely if "wave" in name or "norm_memory" in name or name.startswith(("up", "down"))]
    assert {name.split(".")[1] for name in paired if "norm_memory" in name and not name.startswith("wave")} == {"1"}
    resized = CrossTransformer(config(bottom_channels=24), 16, with_wave=True).state_dict()
    assert {name for name in resized if "up" in name or "down" in name} == {
        f"{side}{layer}.{kind}" for side in ("", "wave.") for layer in ("up", "down") for kind in ("weight", "bias")
    }


@pytest.mark.parametrize("kind", ["softmax", "linear"])
def test_only_positions_tell_tokens_apart(kind: str) -> None:
    x = torch.randn(1, 16, 4, 5)
    frames, bins = torch.randperm(5), torch.randperm(4)
    for weight, equal in ((0.0, True), (1.0, False)):
        net = CrossTransformer(config(kind=kind, position_weight=weight), 16, with_wave=False)
        out: Tensor = net(x, None)[0]
        moved: Tensor = net(x[:, :, bins][..., frames], None)[0]
        assert torch.allclose(moved, out[:, :, bins][..., frames], atol=1e-4) == equal


def test_domains_hear_each_other() -> None:
    net = CrossTransformer(config(), 16, with_wave=True)
    x, wave = torch.randn(1, 16, 2, 3, requires_grad=True), torch.randn(1, 16, 5, requires_grad=True)
    out, out_wave = net(x, wave)
    assert bool(torch.autograd.grad(out.square().sum() + out.sum(), wave, retain_graph=True)[0].any())
    assert bool(torch.autograd.grad(out_wave.square().sum() + out_wave.sum(), x)[0].any())


def test_dropout_acts_in_training_only() -> None:
    net = CrossTransformer(config(dropout=0.5), 16, with_wave=False)
    x = torch.randn(1, 16, 4, 5)
    assert not torch.allclose(net(x, None)[0], net(x, None)[0])
    net.eval()
    torch.testing.assert_close(net(x, None)[0], net(x, None)[0])


@pytest.mark.parametrize(
    ("key", "value", "allowed"),
    [
        ("layers", 0, "greater than 0"),
        ("heads", 0, "greater than 0"),
        ("dropout", 1.0, "less than 1"),
        ("dropout", -0.1, "greater than or equal to 0"),
        ("bottom_channels", -1, "greater than or equal to 0"),
        ("max_period", 0, "greater than 0"),
        ("hidden_scale", 0, "greater than 0"),
    ],
)
def test_impossible_values_are_refused(key: str, value: float, allowed: str) -> None:
    with pytest.raises(ConfigError, match=rf"TransformerConfig: {key} = {value} is not allowed; allowed: {allowed}"):
        TransformerConfig.from_dict({key: value})
