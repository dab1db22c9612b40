"""The spectrogram branch and the wave branch."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polyres.dsp.stft import istft, stft
from polyres.nn.branches import (
    Decoder,
    Encoder,
    FrequencyBranch,
    UNetShape,
    WaveBranch,
    channels_as_complex,
    complex_as_channels,
    normalise,
)
from polyres.nn.layers import FrequencyEmbedding, ResidualDilated, start_at_zero

SHAPE = UNetShape(
    channels=16,
    growth=2,
    depth=4,
    kernel_size=8,
    stride=4,
    context=1,
    norm_starts=4,
    norm_groups=4,
    dconv_mode=1,
    dconv_depth=2,
    dconv_compress=8,
    dconv_init=1e-3,
)
EMBEDDING = (0.2, 10.0, True)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def branch(masking: bool = False, n_fft: int = 1024, shape: UNetShape = SHAPE, gain: float = 0.2) -> FrequencyBranch:
    torch.manual_seed(0)
    return FrequencyBranch(n_fft, n_fft // 4, shape, 3, 2, masking, "exact", (gain, 10.0, True))


def test_complex_channels_are_ordered_left_re_left_im_right_re_right_im() -> None:
    spec = torch.complex(noise(1, 2, 3, 4), noise(1, 2, 3, 4, seed=1))
    x = complex_as_channels(spec)
    for index, wanted in enumerate((spec[:, 0].real, spec[:, 0].imag, spec[:, 1].real, spec[:, 1].imag)):
        torch.testing.assert_close(x[:, index], wanted)
    torch.testing.assert_close(channels_as_complex(torch.cat([x, -x], dim=1), 2), torch.stack([spec, -spec], dim=1))


def test_normalise_is_per_item_and_can_be_undone() -> None:
    x = noise(3, 2, 5, 7) * torch.tensor([1.0, 100.0, 0.01])[:, None, None, None] + 3
    value, mean, std = normalise(x)
    torch.testing.assert_close(value.mean((1, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(value.std((1, 2, 3)), torch.ones(3), atol=2e-3, rtol=0)
    torch.testing.assert_close(value * (std + 1e-5) + mean, x, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(normalise(x[1:2]).value, value[1:2])


@pytest.mark.parametrize("x", [torch.zeros(2, 2, 9), torch.ones(1, 2, 9), torch.full((1, 1, 1), 0.3)])
def test_normalise_of_a_constant_is_zero(x: Tensor) -> None:
    assert not normalise(x).value.any()


def test_widths_grow_and_are_cut_to_whole_channels() -> None:
    assert SHAPE.widths() == [16, 32, 64, 128]
    assert replace(SHAPE, growth=1.5).widths() == [16, 24, 36, 54]


def test_norms_begin_at_their_layer_and_modes_choose_residual_blocks() -> None:
    for index in range(4):
        shape = replace(SHAPE, norm_starts=2)
        encoder, decoder = Encoder(8, 16, shape, index, True), Decoder(16, 8, shape, index, True)
        for norm in (encoder.norm1, encoder.norm2, decoder.norm1, decoder.norm2):
            assert isinstance(norm, nn.GroupNorm if index >= 2 else nn.Identity)
    for mode in (0, 1, 2, 3):
        shape = replace(SHAPE, dconv_mode=mode)
        assert isinstance(Encoder(8, 16, shape, 0, True).dconv, ResidualDilated) == (mode in (1, 3))
        assert isinstance(Decoder(16, 8, shape, 0, True).dconv, ResidualDilated) == (mode in (2, 3))


@pytest.mark.parametrize("norm_starts", [0, 4])
@pytest.mark.parametrize("context", [0, 1, 2])
def test_layers_divide_and_restore_lengths(norm_starts: int, context: int) -> None:
    shape = replace(SHAPE, norm_starts=norm_starts, context=context)
    spec, wave = noise(1, 8, 64, 5), noise(1, 8, 37)
    down, up = Encoder(8, 16, shape, 1, True), Decoder(16, 8, shape, 1, True)
    assert down(spec).shape == (1, 16, 16, 5)
    assert up(down(spec), down(spec)).shape == spec.shape
    down, up = Encoder(8, 16, shape, 1, False), Decoder(16, 8, shape, 1, False)
    assert down(wave).shape == (1, 16, 10)
    assert up(down(wave), down(wave), 37).shape == wave.shape


def test_wave_encoder_pads_with_zeros_at_the_end() -> None:
    layer = Encoder(2, 8, SHAPE, 0, False)
    wave = noise(1, 2, 37)
    torch.testing.assert_close(layer(wave), layer(torch.nn.functional.pad(wave, (0, 3))))


def test_only_the_outermost_decoder_gives_raw_values() -> None:
    x, skip = noise(1, 16, 4, 5), torch.zeros(1, 16, 4, 5)
    inner, outer = Decoder(16, 8, SHAPE, 1, True), Decoder(16, 8, SHAPE, 0, True)
    outer.load_state_dict(inner.state_dict())
    torch.testing.assert_close(inner(x, skip), torch.nn.functional.gelu(outer(x, skip)))


@pytest.mark.parametrize("n_fft", [512, 1024, 4096])
def test_bottleneck_has_the_bins_that_four_layers_leave(n_fft: int) -> None:
    net = branch(n_fft=n_fft)
    x, state = net.encode(noise(2, 2, 5001))
    frames = -(-5001 // (n_fft // 4))
    assert x.shape == (2, 128, n_fft // 512, frames)
    assert state.spec.shape == (2, 2, n_fft // 2, frames)
    assert net.decode(x, state, 5001).shape == (2, 3, 2, 5001)


def test_embedding_sits_after_the_first_layer_and_can_be_left_out() -> None:
    mix = noise(1, 2, 3000)
    net, plain = branch(), branch(gain=0)
    assert isinstance(net.embedding, FrequencyEmbedding)
    plain.load_state_dict({k: v for k, v in net.state_dict().items() if not k.startswith("embedding")})
    first, without = net.encode(mix)[1].skips[0], plain.encode(mix)[1].skips[0]
    torch.testing.assert_close(first - without, (2.0 * net.embedding.weight.t())[None, :, :, None].expand_as(first))


def test_mask_starts_as_equal_shares_of_the_mixture() -> None:
    net = branch(masking=True)
    start_at_zero(net.decoder[-1].conv_tr)
    mix = noise(2, 2, 3001)
    x, state = net.encode(mix)
    share = istft(stft(mix, 1024, 256), 256, 3001) / 3
    torch.testing.assert_close(net.decode(x, state, 3001), share[:, None].expand(-1, 3, -1, -1))


def test_mask_multiplies_the_spectrogram_of_the_mixture() -> None:
    """With a last layer that gives a constant, source s is the mixture turned and scaled by a known number."""
    net = branch(masking=True)
    layer = net.decoder[-1].conv_tr
    start_at_zero(layer)
    turns = torch.tensor([0.5 - 0.25j, 1j, -1 / 3 + 0j])
    with torch.no_grad():
        layer.bias.copy_(torch.view_as_real(turns)[:, None].expand(3, 2, 2).flatten())
    mix = noise(1, 2, 3001)
    x, state = net.encode(mix)
    spec = stft(mix, 1024, 256)
    for source, turn in enumerate(turns):
        wanted = istft(spec * (turn + 1 / 3), 256, 3001)
        torch.testing.assert_close(net.decode(x, state, 3001)[:, source], wanted, atol=1e-5, rtol=1e-4)


def test_mapping_undoes_the_normalisation() -> None:
    net = branch()
    layer = net.decoder[-1].conv_tr
    start_at_zero(layer)
    with torch.no_grad():
        layer.bias.copy_(torch.arange(12.0))
    mix = noise(1, 2, 3001)
    x, state = net.encode(mix)
    values = torch.arange(12.0).view(3, 2, 2) * state.std.squeeze() + state.mean.squeeze()
    spec = torch.view_as_complex(values)[None, :, :, None, None].expand(1, 3, 2, 512, 12)
    torch.testing.assert_close(net.decode(x, state, 3001), istft(spec, 256, 3001), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("masking", [False, True])
def test_a_louder_mixture_gives_the_same_features_and_louder_waves(masking: bool) -> None:
    net, mix = branch(masking), noise(1, 2, 4001)
    (quiet, quiet_state), (loud, loud_state) = net.encode(mix), net.encode(30 * mix)
    torch.testing.assert_close(quiet, loud, atol=2e-3, rtol=2e-3)
    waves = net.decode(quiet, quiet_state, 4001).detach()
    torch.testing.assert_close(net.decode(loud, loud_state, 4001), 30 * waves, atol=0.1 * float(waves.std()), rtol=2e-2)


@settings(max_examples=15)
@given(length=st.integers(1, 3000))
def test_wave_branch_keeps_any_length(length: int) -> None:
    net = WaveBranch(SHAPE, 3, 2)
    x, state = net.encode(noise(1, 2, length))
    steps = length
    for _ in range(4):
        steps = -(-steps // 4)
    assert x.shape == (1, 128, steps)
    waves = net.decode(x, state)
    assert waves.shape == (1, 3, 2, length)
    assert bool(waves.isfinite().all())


@pytest.mark.parametrize("residual", [False, True])
def test_wave_branch_puts_the_mean_back_unless_it_adds_to_whole_estimates(residual: bool) -> None:
    net = WaveBranch(SHAPE, 3, 2, residual)
    start_at_zero(net.decoder[-1].conv_tr)
    mix = noise(1, 2, 500) + 0.5
    waves = net.decode(*net.encode(mix))
    torch.testing.assert_close(waves, torch.full_like(waves, 0.0 if residual else float(mix.mean())))


def test_inverse_is_the_one_asked_for() -> None:
    nets = [FrequencyBranch(1024, 256, SHAPE, 3, 2, True, inverse, EMBEDDING) for inverse in ("exact", "demucs")]
    nets[1].load_state_dict(nets[0].state_dict())
    mix = noise(1, 2, 4096)
    exact, faded = (net.decode(*net.encode(mix), 4096) for net in nets)
    torch.testing.assert_close(exact[..., 1024:-1024], faded[..., 1024:-1024], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(exact[..., :32], faded[..., :32], rtol=0.1)
