"""Parameters and multiply-accumulates against closed forms and known sizes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from polyres.dsp.stft import istft, stft
from polyres.nn.attention import LinearAttention, SoftmaxAttention, SparseConfig
from polyres.nn.fusion.base import OUTPUT_FUSION, FusionConfig
from polyres.nn.transformer import TransformerConfig
from polyres.separation.bag import Bag
from polyres.separation.complexity.counts import (
    ITSELF,
    cost_of,
    count_macs,
    count_parameters,
    fft_macs,
    spent_in,
)
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.variants import ARCHITECTURES

SMALL = SeparatorConfig(
    n_fft=(512, 1024),
    channels=4,
    norm_starts=9,
    transformer=TransformerConfig(layers=2, heads=4),
    output=FusionConfig(kind="source_weights"),
)


def model_of(config: SeparatorConfig) -> Separator:
    return Separator(config).eval()


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("released", 41_984_456),
        ("released_6s", 27_414_996),
        ("htdemucs_48", 26_899_536),
        ("htdemucs_24", 6_758_676),
    ],
)
def test_known_numbers_of_parameters(name: str, parameters: int) -> None:
    model = model_of(ARCHITECTURES[name])
    assert count_parameters(model) == parameters


def test_a_convolution() -> None:
    conv = nn.Conv2d(6, 10, (3, 5), stride=(2, 1), padding=(1, 2), groups=2)
    macs = count_macs(conv, lambda: conv(torch.zeros(3, 6, 8, 7)))
    # batch x output places x outputs x inputs per group x taps
    assert macs.total == macs.by_kind["convolutions"] == 3 * (4 * 7) * 10 * 3 * (3 * 5)


def test_a_transposed_convolution() -> None:
    conv = nn.ConvTranspose1d(6, 10, 8, stride=4)
    macs = count_macs(conv, lambda: conv(torch.zeros(2, 6, 9)))
    assert macs.total == 2 * 9 * 6 * 10 * 8


def test_a_linear_layer() -> None:
    layer = nn.Linear(12, 5)
    macs = count_macs(layer, lambda: layer(torch.zeros(3, 7, 12)))
    assert macs.total == macs.by_kind["linear layers"] == 3 * 7 * 12 * 5


def test_softmax_attention() -> None:
    batch, heads, queries, keys, width = 2, 3, 11, 13, 4
    kernel = SoftmaxAttention(SparseConfig())
    q, k = torch.randn(batch, heads, queries, width), torch.randn(batch, heads, keys, width)
    macs = count_macs(kernel, lambda: kernel(q, k, k))
    # scores, and their sums of values
    assert (
        macs.total == macs.by_kind["batched products (attention)"] == batch * heads * queries * keys * (width + width)
    )


def test_linear_attention() -> None:
    batch, heads, queries, keys, width = 2, 3, 11, 13, 4
    kernel = LinearAttention(SparseConfig())
    q, k = torch.randn(batch, heads, queries, width), torch.randn(batch, heads, keys, width)
    macs = count_macs(kernel, lambda: kernel(q, k, k))
    # context of the keys, its reading by the queries, and the normaliser of every query
    assert macs.total == batch * heads * (keys * width * width + queries * width * width + queries * width)


@pytest.mark.parametrize(("n_fft", "hop"), [(512, 128), (4096, 2048)])
def test_a_transform_and_its_inverse(n_fft: int, hop: int) -> None:
    wave = torch.randn(2, 5000)
    frames = math.ceil(5000 / hop)
    closed = 2 * frames * 1.25 * n_fft * math.log2(n_fft)
    forward = count_macs(nn.Identity(), lambda: stft(wave, n_fft, hop))
    assert forward.total == forward.by_kind["Fourier transforms"] == pytest.approx(closed)
    spec = stft(wave, n_fft, hop)
    assert count_macs(nn.Identity(), lambda: istft(spec, hop, 5000)).total == pytest.approx(closed)


def test_a_complex_transform_costs_twice_a_real_one() -> None:
    wave = torch.randn(3, 64)
    macs = count_macs(nn.Identity(), lambda: torch.fft.fft(wave.to(torch.complex64)))
    assert macs.total == pytest.approx(2 * 3 * fft_macs(64))


def test_what_is_not_known_is_still_counted() -> None:
    grad = torch.zeros(1, 2, 4, requires_grad=True)
    conv = nn.Conv1d(2, 2, 1)

    def call() -> None:
        with torch.enable_grad():
            conv(grad).sum().backward()

    assert count_macs(conv, call).by_kind["other"] > 0


def test_element_wise_work_is_free() -> None:
    norm = nn.Sequential(nn.GroupNorm(2, 4), nn.GELU())
    assert count_macs(norm, lambda: norm(torch.randn(1, 4, 10))).total == 0


def test_parts_of_modules_that_are_called_through_other_methods() -> None:
    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.ModuleDict({"a": nn.Linear(3, 4), "b": nn.Sequential(nn.Linear(4, 5))})

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.inner["a"](x)
            return self.inner["b"](self.inner["b"][0].bias.new_zeros(1, 4) + x)

    outer = Outer()
    macs = count_macs(outer, lambda: outer(torch.zeros(1, 3)))
    assert macs.by_module == {"inner.a": 12, "inner.b": 20, "inner.b.0": 20}
    assert spent_in("inner", macs) == 32
    assert spent_in("", macs) == 32


@pytest.mark.slow
@pytest.mark.parametrize("depth", [1, 2, 3, 6])
@pytest.mark.parametrize("bag", [False, True])
def test_parts_sum_to_the_whole(depth: int, bag: bool) -> None:
    model: Separator | Bag = model_of(SMALL)
    if bag:
        model = Bag([model_of(SMALL), model_of(SMALL.with_values({"output.kind": "band_weights"}))])
    cost = cost_of(model, torch.randn(1, 2, 6000), depth)
    assert sum(part.parameters for part in cost.parts) == cost.parameters == sum(p.numel() for p in model.parameters())
    assert sum(part.macs for part in cost.parts) == pytest.approx(cost.macs)
    assert sum(cost.by_kind.values()) == pytest.approx(cost.macs)
    assert all(part.parameters or part.macs for part in cost.parts)


def test_top_level_parts_of_a_separator() -> None:
    model = model_of(SMALL)
    cost = cost_of(model, torch.randn(1, 2, 6000))
    parts = {part.name: part for part in cost.parts}
    names = ["branches.0 (n_fft 512)", "branches.1 (n_fft 1024)", "wave", "transformer", "bottleneck", "output", ITSELF]
    assert list(parts) == names
    # What a separator does itself is its branches' transforms, and nothing else.
    signals = SMALL.audio_channels * (1 + len(SMALL.sources))
    transforms = sum(signals * -(-6000 // SMALL.hop_of(n)) * fft_macs(n) for n in SMALL.n_fft)
    assert parts[ITSELF].macs == pytest.approx(transforms)
    assert parts[ITSELF].parameters == 0
    assert parts["output"].parameters == 2 * 4
    assert parts["wave"].parameters == sum(p.numel() for p in model.wave.parameters())
    # At hop n_fft / 4 every resolution costs the same, but for the edges of the last frame.
    assert parts[names[0]].macs == pytest.approx(parts[names[1]].macs, rel=0.05)


def test_deeper_parts() -> None:
    cost = cost_of(model_of(SMALL), torch.randn(1, 2, 6000), depth=3)
    names = [part.name for part in cost.parts]
    assert "branches.1.encoder.2.conv (n_fft 1024)" in names
    assert any(name.startswith("transformer.layers.1.attention") for name in names)


@pytest.mark.slow
def test_costs_grow_with_the_length_as_attention_does() -> None:
    """Twice the tokens: four times the products of softmax attention, twice those of linear attention."""

    def products(kind: str, length: int) -> float:
        config = SMALL.with_values({"transformer.kind": kind, "n_fft": (1024,), "wave_branch": False})
        return cost_of(model_of(config), torch.randn(1, 2, length)).by_kind["batched products (attention)"]

    length = 256 * 64
    assert products("softmax", 2 * length) == pytest.approx(4 * products("softmax", length), rel=0.01)
    assert products("linear", 2 * length) == pytest.approx(2 * products("linear", length), rel=0.01)


@pytest.mark.parametrize("kind", OUTPUT_FUSION.names())
def test_counts_from_shapes_are_those_of_a_pass(kind: str) -> None:
    transformer = "softmax" if kind == "conv" else "linear"
    changes = {"output.kind": kind, "transformer.kind": transformer, "wave_branch": kind == "weights"}
    model, mix = model_of(SMALL.with_values(changes)), torch.zeros(1, 2, 5000)
    counted, computed = cost_of(model, mix), count_macs(model, lambda: model(mix))
    assert counted.macs == pytest.approx(computed.total, rel=1e-12)
    assert counted.by_kind == pytest.approx(computed.by_kind)
    assert counted.macs > 1e5


@pytest.mark.slow
def test_counting_takes_no_pass() -> None:
    seen: list[type] = []
    for changes in ({}, {"body.kind": "band_split", "body.blocks": 1}, {"body.kind": "tfc_tdf", "body.blocks": 1}):
        model = model_of(SMALL.with_values({**changes, "wave_branch": False}))
        model.output.register_forward_hook(lambda module, inputs, output: seen.append(type(output)))
        cost_of(model, torch.zeros(1, 2, 5000))
    assert seen == [FakeTensor] * 3
    gated = model_of(SMALL.with_values({"output.kind": "gated"}))
    seen.clear()
    gated.output.register_forward_hook(lambda module, inputs, output: seen.append(type(output)))
    cost_of(gated, torch.zeros(1, 2, 5000))
    assert seen == [torch.Tensor]  # it asks whether any resolution is active


def test_counting_leaves_the_model_as_it_was() -> None:
    model = model_of(SMALL)
    mix = torch.randn(1, 2, 3000)
    with torch.no_grad():
        before = model(mix)
        cost_of(model, mix)
        assert torch.equal(model(mix), before)
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())
