from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from polyres.codec.enhance import enhancers
from polyres.codec.enhance.context import EnhanceContext, mel_statistics
from polyres.codec.enhance.enhancers import (
    ENHANCERS,
    STRATEGIES,
    _band_weights,
    blur,
    enhance,
    enhance_wave,
    high_band_mean,
    is_informed,
    laplacian,
    laplacian_pyramid,
    noise_like,
    spread_out,
    time_enhancer,
)
from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.dsp.mel import AUDIOLDM2_16K, MelConfig, log_mel

MEL = MelConfig(mel_bins=64)


class Decoder(nn.Module):
    """A fixed linear decoder `[B, 8, T, 16]` -> `[B, 4 T, 64]`, smooth over both axes, so that highs get lost."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.mix = nn.Parameter(torch.randn(8, generator=generator) / 3, requires_grad=False)

    def forward(self, latent: Tensor) -> Tensor:
        picture = torch.einsum("bdtf,d->btf", latent, self.mix)[:, None]
        return nn.functional.interpolate(picture, scale_factor=4, mode="bilinear")[:, 0] - 4


class Adds(nn.Module):
    def forward(self, value: Tensor, original: Tensor | None = None) -> Tensor:
        return torch.ones_like(value) if original is None else original - value


def latent(batch: int = 2, seed: int = 0) -> Tensor:
    return torch.randn(batch, 8, 12, 16, generator=torch.Generator().manual_seed(seed))


def full_context(batch: int = 2, informed: bool = False) -> EnhanceContext:
    decode = Decoder()
    original = decode(latent(batch, seed=1) * 1.5) + torch.linspace(0, 1, 64)
    return EnhanceContext(
        seed=3,
        decode=decode,
        mel=MEL,
        target=mel_statistics(original, informed),
        reference_mel=original,
        network=Adds(),
        steps=20,
    )


def tensor_for(name: str) -> Tensor:
    return latent() if ENHANCERS.build(name).domain == "latent" else Decoder()(latent())


@pytest.mark.parametrize("name", ENHANCERS.names())
def test_strength_0_is_the_identity_and_results_grow_from_it(name: str) -> None:
    tensor, context = tensor_for(name), full_context()
    assert enhance(name, tensor, 0.0, context) is tensor
    weak, strong = enhance(name, tensor, 1e-3, context), enhance(name, tensor, 1.0, context)
    assert strong.shape == tensor.shape
    assert 0 < (weak - tensor).abs().max() < 0.02
    assert (strong - tensor).abs().mean() > 10 * (weak - tensor).abs().mean()


# Noise is drawn for the whole batch.
@pytest.mark.parametrize("name", [n for n in ENHANCERS.names() if n not in ("noise", "mixed", "conditioned")])
def test_items_of_a_batch_do_not_know_of_each_other(name: str) -> None:
    tensor, context = tensor_for(name), full_context()
    alone = full_context()
    assert alone.target is not None
    assert alone.reference_mel is not None
    first = EnhanceContext(
        3, alone.decode, MEL, mel_statistics(alone.reference_mel[:1], False), alone.reference_mel[:1], Adds(), 20
    )
    both, one = enhance(name, tensor, 1.0, context), enhance(name, tensor[:1], 1.0, first)
    # The step of the descent goes by the deviation of the whole batch.
    assert torch.allclose(both[:1], one, atol=0.05 if name == "optimise" else 1e-5)


@pytest.mark.parametrize("name", [n for n in ENHANCERS.names() if ENHANCERS.build(n).domain == "latent"])
def test_latents_without_a_frequency_axis_are_enhanced_too(name: str) -> None:
    value = latent()[:, :, :, 0]
    decode = Decoder()
    wide = full_context()
    context = EnhanceContext(
        3, lambda z: decode(z[..., None].expand(-1, -1, -1, 16)), MEL, wide.target, wide.reference_mel, Adds(), 5
    )
    assert enhance(name, value, 0.5, context).shape == value.shape


def test_each_does_what_it_says() -> None:
    value, context = latent(), EnhanceContext(seed=9)
    assert torch.allclose(enhance("frequency", value, 2.0), value + 3.0 * laplacian(value))
    assert torch.allclose(enhance("noise", value, 0.5, context), value + 0.05 * noise_like(value, 9))
    wide = enhance("contrast", value, 1.0)
    assert torch.allclose(wide.std(dim=(2, 3)), 1.2 * value.std(dim=(2, 3)))
    step = enhance("noise", enhance("frequency", value, 1.0), 1.0, context)
    assert torch.allclose(enhance("mixed", value, 1.0, context), enhance("contrast", step, 1.0))
    assert torch.allclose(enhance("learned", value, 0.3, EnhanceContext(network=Adds())), value + 0.3)


def test_multiscale_raises_fine_detail_more_than_coarse() -> None:
    t = torch.arange(64.0)
    gains = []
    for turn in (0.9, 0.2, 0.02):
        wave = torch.cos(math.pi * turn * t).view(1, 1, 64, 1).expand(1, 1, 64, 16)
        gains.append(float(enhance("multiscale", wave, 1.0).norm() / wave.norm()))
    assert gains[0] > gains[1] > gains[2] > 0.99
    assert gains[0] > 1.8


def test_adaptive_closes_the_gap_above_4_khz_and_no_more() -> None:
    value, decode = latent(), Decoder()
    here = decode(value)
    rise = high_band_mean(decode(enhance("frequency", value, 1.0)).mean(dim=1), EnhanceContext(mel=MEL))
    now = high_band_mean(here.mean(dim=1), EnhanceContext(mel=MEL))
    sign = torch.sign(rise - now)
    gap = 0.7 * (rise - now)  # what 0.7 of the probe would bring
    wanted = here + gap.view(-1, 1, 1)
    found = enhance("adaptive", value, 1.0, EnhanceContext(decode=decode, mel=MEL, target=mel_statistics(wanted, True)))
    amounts = ((found - value) / (1.5 * laplacian(value))).flatten(1).median(dim=1).values
    # Where detail takes highs away, nothing is done.
    assert amounts.tolist() == pytest.approx([0.7 if s > 0 else 0.0 for s in sign], abs=1e-3)
    full = EnhanceContext(decode=decode, mel=MEL, target=mel_statistics(here - 1, True))
    assert torch.equal(enhance("adaptive", value, 1.0, full), value)


def test_controls_reach_the_averages_they_are_told() -> None:
    log_mel, original = Decoder()(latent()), Decoder()(latent(seed=4)) * 2 + torch.linspace(0, 2, 64)
    target = mel_statistics(original, informed=True)
    context = EnhanceContext(target=target)
    levelled = mel_statistics(enhance("gain_match", log_mel, 1.0, context), False)
    assert torch.allclose(levelled.level, target.level, atol=1e-5)
    matched = mel_statistics(enhance("ltas_match", log_mel, 1.0, context), False)
    assert torch.allclose(matched.mean, target.mean, atol=1e-5)
    assert torch.allclose(matched.std, target.std, atol=1e-4)
    # Averages of other signals are one for all items.
    pooled = mel_statistics(original, informed=False, pooled=True)
    assert pooled.mean.shape == (64,)
    everywhere = enhance("ltas_match", log_mel, 1.0, EnhanceContext(target=pooled))
    assert torch.allclose(everywhere.mean(dim=1), pooled.mean.expand(2, -1), atol=1e-5)
    silence = torch.full((1, 10, 64), -11.5)
    assert torch.isfinite(enhance("ltas_match", silence, 1.0, EnhanceContext(target=pooled))).all()


def test_statistics_have_their_closed_forms() -> None:
    log_mel = torch.randn(2, 50, 64, generator=torch.Generator().manual_seed(0))
    found = mel_statistics(log_mel, informed=True)
    power = (2 * log_mel.double()).exp().mean(dim=(1, 2))
    assert torch.allclose(found.level.double(), power.log() / 2, atol=1e-5)
    assert torch.allclose(found.std, log_mel.std(dim=1, unbiased=False))
    assert found.informed


def test_optimise_comes_closer_to_the_original_than_anything_blind() -> None:
    value, context = latent(), full_context()
    assert context.decode is not None
    assert context.reference_mel is not None

    def distance(tensor: Tensor) -> float:
        assert context.decode is not None
        return float((context.decode(tensor) - context.reference_mel).abs().mean())

    found = distance(enhance("optimise", value, 1.0, context))
    assert found < 0.8 * distance(value)
    blind = [n for n in ENHANCERS.names() if ENHANCERS.build(n).domain == "latent" and not ENHANCERS.build(n).informed]
    assert found < min(distance(enhance(name, value, 1.0, context)) for name in blind)
    # A start that cannot be bettered is kept.
    perfect = EnhanceContext(decode=context.decode, reference_mel=context.decode(value), steps=5)
    assert torch.equal(enhance("optimise", value, 1.0, perfect), value)


def test_optimise_works_without_gradients_around_it() -> None:
    with torch.inference_mode(False), torch.no_grad():
        found = enhance("optimise", latent(), 1.0, full_context())
    assert not found.requires_grad


def test_refine_adds_what_the_network_says() -> None:
    log_mel, context = Decoder()(latent()), full_context()
    assert torch.allclose(enhance("refine", log_mel, 0.5, context), log_mel + 0.5)
    assert context.reference_mel is not None
    assert torch.allclose(enhance("refine_informed", log_mel, 1.0, context), context.reference_mel, atol=1e-5)


def test_the_class_of_a_signal_decides_the_strategy(monkeypatch: pytest.MonkeyPatch) -> None:
    value, context = latent(), EnhanceContext(decode=Decoder(), seed=2)
    for kind, (name, share) in STRATEGIES.items():
        monkeypatch.setattr(enhancers, "classify", lambda log_mel, rate_hz, kind=kind: kind)
        parts = [enhance(name, value[i : i + 1], share * 0.8, context) for i in range(2)]
        assert torch.allclose(enhance("conditioned", value, 0.8, context), torch.cat(parts))


def test_what_sees_the_original_is_told_apart() -> None:
    blind, told = full_context(informed=False), full_context(informed=True)
    assert {name for name in ENHANCERS.names() if is_informed(name, blind)} == {"refine_informed", "optimise"}
    assert {name for name in ENHANCERS.names() if is_informed(name, told)} == {
        "refine_informed",
        "optimise",
        "adaptive",
        "gain_match",
        "ltas_match",
    }
    assert {name for name in ENHANCERS.names() if ENHANCERS.build(name).control} == {"gain_match", "ltas_match"}
    assert all(ENHANCERS.summary(name) for name in ENHANCERS.names())


def test_time_is_measured_against_the_duration() -> None:
    timing = time_enhancer("frequency", latent(), 1.0, EnhanceContext(), duration_s=2.0)
    assert timing.seconds > 0
    assert timing.real_time_factor == pytest.approx(timing.seconds / 2)
    with pytest.raises(InputError, match="duration_s must be above 0 and repeats at least 1, got 0 and 3"):
        time_enhancer("frequency", latent(), 1.0, EnhanceContext(), duration_s=0)


def test_unusable_calls_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown enhancer 'freqency'; did you mean 'frequency'"):
        enhance("freqency", latent())
    for strength in (-0.1, math.nan, math.inf):
        with pytest.raises(ConfigError, match=r"strength is .*; 0 \(nothing is changed\) or more is needed"):
            enhance("frequency", latent(), strength)
    with pytest.raises(ConfigError, match=r"enhancer 'optimise' needs context\.reference_mel, which is not given"):
        enhance("optimise", latent(), 1.0, EnhanceContext(decode=Decoder()))
    with pytest.raises(InputError, match=r"changes a latent of shape \[B, D, T, F\] or \[B, D, T\], .*got \[8, 12\]"):
        enhance("frequency", latent()[0, :, :, 0])
    with pytest.raises(InputError, match="holds NaN or infinity"):
        enhance("frequency", latent() * math.nan)
    with pytest.raises(InputError, match=r"statistics need log-mel spectra \[B, N, M\]"):
        mel_statistics(torch.zeros(3, 4), False)


SHAPES = st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 20), st.integers(1, 20))


def random_latent(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@settings(max_examples=30, deadline=None)
@given(SHAPES)
def test_a_pyramid_adds_up_and_filters_leave_constants_alone(shape: tuple[int, int, int, int]) -> None:
    value = random_latent(*shape)
    parts = laplacian_pyramid(value, 3)
    assert torch.allclose(sum(parts), value)  # type: ignore[arg-type]
    constant = torch.full(shape, 3.0, dtype=torch.float64)
    assert torch.allclose(blur(constant), constant)
    assert laplacian(constant).abs().max() < 1e-12
    assert all(part.abs().max() < 1e-12 for part in laplacian_pyramid(constant, 3)[:-1])


def test_laplacian_against_plain_loops() -> None:
    value = random_latent(1, 2, 5, 6)
    found = laplacian(value)
    for d in range(2):
        for t in range(5):
            for f in range(6):
                around = [
                    value[0, d, min(max(t + i, 0), 4), min(max(f + j, 0), 5)]
                    for i, j in ((-1, 0), (1, 0), (0, -1), (0, 1))
                ]
                assert found[0, d, t, f] == pytest.approx(float((4 * value[0, d, t, f] - sum(around)) / 8))


def test_laplacian_keeps_a_chequerboard_whole() -> None:
    board = ((torch.arange(8)[:, None] + torch.arange(8)) % 2 * 2.0 - 1)[None, None]
    assert torch.equal(laplacian(board)[..., 1:-1, 1:-1], board[..., 1:-1, 1:-1])


def test_pyramid_levels_go_from_fine_to_coarse() -> None:
    t = torch.arange(64, dtype=torch.float64)
    fine, coarse = torch.cos(torch.pi * 0.9 * t), torch.cos(torch.pi * 0.2 * t)
    energy = []
    for wave in (fine, coarse):
        parts = laplacian_pyramid(wave.view(1, 1, 64, 1).expand(1, 1, 64, 64), 3)
        energy.append([float(part.square().mean()) for part in parts])
    assert energy[0][0] > 0.9 * sum(energy[0])
    assert energy[1][1] > energy[1][0]
    assert len(laplacian_pyramid(random_latent(1, 1, 4, 3), 5)) == 2  # too small to be halved twice


def test_contrast_keeps_means_and_scales_deviations() -> None:
    value = random_latent(2, 3, 8, 9)
    wide = spread_out(value, 1.5)
    assert torch.allclose(wide.mean(dim=(2, 3)), value.mean(dim=(2, 3)))
    assert torch.allclose(wide.std(dim=(2, 3)), 1.5 * value.std(dim=(2, 3)))


def test_noise_is_seeded_and_as_large_as_its_channel() -> None:
    value = random_latent(1, 2, 100, 100) * torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)
    noise = noise_like(value, 7)
    assert torch.equal(noise, noise_like(value, 7))
    assert not torch.equal(noise, noise_like(value, 8))
    assert noise.std(dim=(2, 3)).flatten().tolist() == pytest.approx([1, 10], rel=0.05)


def noise(seed: int = 0) -> Tensor:
    return torch.randn(1, 2, 16000, generator=torch.Generator().manual_seed(seed)) * 0.1


def context(target: Tensor) -> EnhanceContext:
    return EnhanceContext(target=mel_statistics(log_mel(target.mean(dim=1), AUDIOLDM2_16K), informed=True))


def test_a_gain_is_given_back_to_all_bands_and_channels() -> None:
    wave = noise()
    louder = enhance_wave("gain_match", 0.25 * wave, 1.0, context(wave))
    assert torch.allclose(louder, wave, atol=1e-4)
    halfway = enhance_wave("gain_match", 0.25 * wave, 0.5, context(wave))
    assert torch.allclose(halfway, 0.5 * wave, atol=1e-4)
    assert enhance_wave("gain_match", wave, 0.0, context(wave)) is wave


def test_bands_get_the_averages_they_should_have() -> None:
    original = noise(1)
    spectrum = torch.fft.rfft(original)
    tilt = torch.linspace(0, -3, spectrum.shape[-1]).exp()
    dull = torch.fft.irfft(spectrum * tilt)
    told = context(original)
    again = enhance_wave("ltas_match", dull, 1.0, told)
    means = [log_mel(w.mean(dim=1), AUDIOLDM2_16K).mean(dim=1) for w in (original, dull, again)]
    assert float((means[1] - means[0]).abs().max()) > 2
    assert float((means[2] - means[0]).abs().max()) < 0.15
    # Phases stay: the correlation of every band with the original comes back as it was.
    assert float((again * original).sum() / (again.norm() * original.norm())) > 0.95


def test_weights_of_bands_are_straight_lines_that_add_up_to_one() -> None:
    weights = _band_weights(AUDIOLDM2_16K)
    assert weights.shape == (64, 513)
    assert torch.allclose(weights.sum(dim=0), torch.ones(513, dtype=torch.float64))
    assert bool((weights >= 0).all())
    assert int((weights > 0).sum(dim=0).max()) == 2


def test_silence_gets_40_db_at_most() -> None:
    wave = noise()
    told = context(wave)
    quiet = enhance_wave("gain_match", 1e-4 * wave, 1.0, told)
    assert 20 * math.log10(float(quiet.norm() / (1e-4 * wave).norm())) == pytest.approx(39.96, abs=0.1)


def test_enhancers_of_latents_cannot_change_waves() -> None:
    with pytest.raises(ConfigError, match="'frequency' changes latents; only those of mel spectra can change waves"):
        enhance_wave("frequency", noise(), 1.0, EnhanceContext())
