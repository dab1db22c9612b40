"""Enhancers between encoder and decoder by name: strength 0 is the identity, 1 the nominal amount."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.codec.enhance.context import Decode, Domain, EnhanceContext, MelStatistics, SignalClass, classify
from polyres.core.catalogue import Catalogue
from polyres.core.errors import ConfigError, InputError
from polyres.dsp.framing import FrameTransform
from polyres.dsp.mel import MelConfig, mel_centres_hz, mel_framing, mel_of_magnitude

_BLUR = (0.25, 0.5, 0.25)


def blur(latent: Tensor) -> Tensor:
    """Blur latents `[B, D, T, F]` over time and frequency, 1-2-1 on both axes; edges repeat."""
    kernel = latent.new_tensor(_BLUR)
    flat = latent.reshape(-1, 1, *latent.shape[-2:])
    over_time = F.conv2d(F.pad(flat, (0, 0, 1, 1), mode="replicate"), kernel.view(1, 1, 3, 1))
    both = F.conv2d(F.pad(over_time, (1, 1, 0, 0), mode="replicate"), kernel.view(1, 1, 1, 3))
    return both.reshape(latent.shape)


def laplacian(latent: Tensor) -> Tensor:
    """Subtract from each value of `[B, D, T, F]` the mean of its four neighbours, halved; edges repeat."""
    flat = latent.reshape(-1, 1, *latent.shape[-2:])
    padded = F.pad(flat, (1, 1, 1, 1), mode="replicate")
    neighbours = padded[..., :-2, 1:-1] + padded[..., 2:, 1:-1] + padded[..., 1:-1, :-2] + padded[..., 1:-1, 2:]
    return ((4 * flat - neighbours) / 8).reshape(latent.shape)


def laplacian_pyramid(latent: Tensor, levels: int) -> list[Tensor]:
    """Split latents `[B, D, T, F]` into details from fine to coarse and a rest, which add up to the latents.

    Source: Burt and Adelson 1983, The Laplacian pyramid as a compact image code; all levels at full size.
    """
    parts, rest = [], latent
    coarse = latent
    for _ in range(levels):
        if max(coarse.shape[-2:]) < 4:
            break
        coarse = blur(coarse)[..., ::2, ::2]
        spread = F.interpolate(coarse, size=latent.shape[-2:], mode="bilinear", align_corners=True)
        parts.append(rest - spread)
        rest = spread
    return [*parts, rest]


def spread_out(latent: Tensor, factor: float) -> Tensor:
    """Scale the deviations of latents `[B, D, T, F]` from the mean of their channel."""
    mean = latent.mean(dim=(-2, -1), keepdim=True)
    return mean + factor * (latent - mean)


def noise_like(latent: Tensor, seed: int) -> Tensor:
    """Draw normal noise with the standard deviation of every channel of `[B, D, T, F]`; the same on any device."""
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(latent.shape, generator=generator).to(latent)
    return noise * latent.std(dim=(-2, -1), keepdim=True, unbiased=False)


Needed = Literal["decode", "target", "reference_mel", "network"]
Run = Callable[[Tensor, float, EnhanceContext], Tensor]

DETAIL_GAIN = 1.5
"""How much detail `frequency` adds at strength 1: the factor of 1.5 of the first experiments."""
CONTRAST_GAIN = 0.2
NOISE_SHARE = 0.1
PYRAMID_GAINS = (1.0, 0.5, 0.25)
HIGH_BAND_HZ = 4000.0
MOST_ADAPTIVE = 2.0

STRATEGIES: dict[SignalClass, tuple[str, float]] = {
    "music": ("multiscale", 0.5),
    "speech": ("contrast", 0.5),
    "other": ("noise", 1.0),
}
"""Enhancer and share of the strength for every class of signal."""


@dataclass(frozen=True)
class Enhancer:
    """An enhancer and what it acts on."""

    name: str  # as in `ENHANCERS`
    domain: Domain  # what it changes: latents `[B, D, T, F]`, or decoded log-mel spectra `[B, N, M]`
    needs: tuple[Needed, ...]  # fields of the context that must be given
    informed: bool  # whether it sees the original, which no decoder has; such results are bounds, not remedies
    control: bool  # whether it is a trivial baseline that any other has to beat
    run: Run  # does it; strength > 0


ENHANCERS: Catalogue[Enhancer] = Catalogue("enhancer")
"""Enhancers by name; `ENHANCERS.build(name)` returns the `Enhancer`."""


def is_informed(name: str, context: EnhanceContext) -> bool:
    """Say whether a result depends on the original beyond its latent, through the enhancer or through its target."""
    enhancer = ENHANCERS.build(name)
    told = "target" in enhancer.needs and context.target is not None and context.target.informed
    return enhancer.informed or told


def enhance(name: str, tensor: Tensor, strength: float = 1.0, context: EnhanceContext | None = None) -> Tensor:
    """Change latents, or decoded mel spectra, before the next part of a codec gets them.

    Args:
        name: of `ENHANCERS`.
        tensor: latents `[B, D, T, F]` (or `[B, D, T]`), or log-mel spectra `[B, N, M]`, as the enhancer's domain says.
        strength: 0 is the identity, 1 the nominal amount; more is allowed.
        context: what the enhancer may use.

    Raises:
        UnknownNameError: if there is no such enhancer.
        ConfigError: if the strength is negative or not finite, or the context lacks what the enhancer needs.
        InputError: if the tensor has another shape, or is not finite.
    """
    enhancer, context = ENHANCERS.build(name), context or EnhanceContext()
    if not (math.isfinite(strength) and strength >= 0):
        raise ConfigError(f"strength is {strength}; 0 (nothing is changed) or more is needed")
    for field in enhancer.needs:
        if getattr(context, field) is None:
            raise ConfigError(f"enhancer {name!r} needs context.{field}, which is not given")
    dimensions, shape = ((3, 4), "[B, D, T, F] or [B, D, T]") if enhancer.domain == "latent" else ((3,), "[B, N, M]")
    if tensor.ndim not in dimensions or not tensor.is_floating_point() or not tensor.numel():
        raise InputError(
            f"enhancer {name!r} changes a {enhancer.domain} of shape {shape}, floating point and not empty, "
            f"got {list(tensor.shape)} of {tensor.dtype}"
        )
    if not bool(torch.isfinite(tensor).all()):
        raise InputError(f"the {enhancer.domain} to be enhanced holds NaN or infinity")
    if strength == 0:
        return tensor
    if enhancer.domain == "latent" and tensor.ndim == 3:
        wide = _squeezed(context)
        return enhancer.run(tensor[..., None], strength, wide)[..., 0]
    return enhancer.run(tensor, strength, context)


def _squeezed(context: EnhanceContext) -> EnhanceContext:
    """Let a decoder of latents `[B, D, T]` be called with `[B, D, T, 1]`."""
    decode = context.decode
    return context if decode is None else replace(context, decode=lambda latent: decode(latent[..., 0]))


@dataclass(frozen=True)
class Timing:
    """How long an enhancer takes."""

    seconds: float  # the fastest of several runs
    real_time_factor: float  # of that; below 1 is faster than the signal plays


def time_enhancer(
    name: str, tensor: Tensor, strength: float, context: EnhanceContext, duration_s: float, repeats: int = 3
) -> Timing:
    """Time an enhancer without the codec around it: the fastest of `repeats` runs on a signal of `duration_s`."""
    if duration_s <= 0 or repeats < 1:
        raise InputError(f"duration_s must be above 0 and repeats at least 1, got {duration_s} and {repeats}")
    fastest = math.inf
    for _ in range(repeats):
        start = time.perf_counter()
        result = enhance(name, tensor, strength, context)
        if result.is_cuda:
            torch.cuda.synchronize(result.device)
        fastest = min(fastest, time.perf_counter() - start)
    return Timing(fastest, fastest / duration_s)


def register_enhancer(enhancer: Enhancer, summary: str) -> None:
    """Register an enhancer.

    Raises:
        ConfigError: if its name is taken.
    """
    ENHANCERS.register(enhancer.name, summary)(lambda: enhancer)


# -- latents, blind ---------------------------------------------------------------------------------------------------


def _frequency(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    return latent + strength * DETAIL_GAIN * laplacian(latent)


def _noise(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    return latent + strength * NOISE_SHARE * noise_like(latent, context.seed)


def _contrast(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    return spread_out(latent, 1 + CONTRAST_GAIN * strength)


def _mixed(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    return _contrast(_noise(_frequency(latent, strength, context), strength, context), strength, context)


def _multiscale(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    details = laplacian_pyramid(latent, len(PYRAMID_GAINS))[:-1]
    # A small latent has fewer levels than there are gains.
    added = [gain * detail for gain, detail in zip(PYRAMID_GAINS[: len(details)], details, strict=True)]
    return latent + strength * sum(added, torch.zeros_like(latent))


def high_band_mean(log_mel: Tensor, context: EnhanceContext) -> Tensor:
    """Average the mel bands above 4 kHz of `[..., M]`, or the upper half of them where there are none."""
    centres_hz = mel_centres_hz(context.mel)
    high = centres_hz >= HIGH_BAND_HZ
    if not bool(high.any()):
        high = torch.arange(len(centres_hz)) >= len(centres_hz) // 2
    return log_mel[..., high.to(log_mel.device)].mean(dim=-1)


def _adaptive(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    """Estimate by one probe how much of `frequency` closes each item's gap above 4 kHz."""
    decode, target = cast(Decode, context.decode), cast(MelStatistics, context.target)
    with torch.no_grad():
        now = high_band_mean(decode(latent).mean(dim=1), context)
        probe = high_band_mean(decode(_frequency(latent, 1.0, context)).mean(dim=1), context)
    missing = (high_band_mean(target.mean, context) - now).clamp_min(0)
    gained = probe - now
    amount = torch.where(gained > 0, missing / gained.clamp_min(1e-6), 0).clamp(0, MOST_ADAPTIVE)
    return latent + strength * amount.view(-1, 1, 1, 1) * DETAIL_GAIN * laplacian(latent)


def _learned(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    return latent + strength * cast(nn.Module, context.network)(latent)


def _conditioned(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    """Enhance every item as its class asks for."""
    items = []
    decode = cast(Decode, context.decode)
    log_mel = decode(latent).detach()
    for index in range(len(latent)):
        name, share = STRATEGIES[classify(log_mel[index], context.frame_rate_hz)]
        items.append(enhance(name, latent[index : index + 1], share * strength, context))
    return torch.cat(items)


# -- decoded mel spectra ----------------------------------------------------------------------------------------------


def _gain_match(log_mel: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    """Shift everything alike; magnitudes get one gain."""
    target = cast(MelStatistics, context.target)
    level = (torch.logsumexp(2 * log_mel, dim=(1, 2)) - math.log(log_mel[0].numel())) / 2
    return log_mel + strength * (target.level.to(log_mel) - level).view(-1, 1, 1)


def _ltas_match(log_mel: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    """Give every band the mean and the deviation it should have."""
    target = cast(MelStatistics, context.target)
    mean, std = log_mel.mean(dim=1, keepdim=True), log_mel.std(dim=1, keepdim=True, unbiased=False)
    wanted_mean, wanted_std = (
        value.to(log_mel).expand(len(log_mel), -1)[:, None] for value in (target.mean, target.std)
    )
    # A band that does not move has no shape that could be widened.
    scale = torch.where(std > 1e-4, wanted_std / std.clamp_min(1e-4), 1)
    return log_mel + strength * (wanted_mean + scale * (log_mel - mean) - log_mel)


def _refine(log_mel: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    return log_mel + strength * cast(nn.Module, context.network)(log_mel)


def _refine_informed(log_mel: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    original = cast(Tensor, context.reference_mel).to(log_mel)
    return log_mel + strength * cast(nn.Module, context.network)(log_mel, original)


# -- the upper bound --------------------------------------------------------------------------------------------------


def _optimise(latent: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    """Minimise the distance of the decoded mel spectrum from the original's; keep the best step."""
    decode, wanted = cast(Decode, context.decode), cast(Tensor, context.reference_mel).to(latent)
    with torch.enable_grad():
        moved = latent.detach().clone().requires_grad_()
        spread = float(latent.detach().std(unbiased=False))
        optimiser = torch.optim.Adam([moved], lr=0.05 * max(spread, 1e-3))
        best = latent.detach().clone()
        least = torch.full((len(latent),), math.inf, device=latent.device, dtype=latent.dtype)
        for _ in range(context.steps + 1):
            distances = (decode(moved) - wanted).abs().mean(dim=(1, 2))
            better = distances.detach() < least
            least = torch.where(better, distances.detach(), least)
            best = torch.where(better.view(-1, 1, 1, 1), moved.detach(), best)
            (gradient,) = torch.autograd.grad(distances.sum(), moved)
            moved.grad = gradient
            optimiser.step()
    return latent + strength * (best - latent)


def _register_all() -> None:
    blind: tuple[tuple[str, tuple[Needed, ...], Run, str], ...] = (
        ("frequency", (), _frequency, "adds 1.5 times the Laplacian of the latent"),
        ("noise", (), _noise, "adds noise of a tenth of each channel's deviation"),
        ("contrast", (), _contrast, "moves values a fifth farther from the mean of their channel"),
        ("mixed", (), _mixed, "frequency, noise and contrast one after another"),
        ("multiscale", (), _multiscale, "raises the details of a Laplacian pyramid, fine ones most"),
        ("adaptive", ("decode", "target"), _adaptive, "as much of frequency as closes the gap above 4 kHz"),
        ("learned", ("network",), _learned, "adds what a trained residual network says"),
        ("conditioned", ("decode",), _conditioned, "one of the others, by signal class: music, speech, other"),
    )
    for name, needs, run, summary in blind:
        register_enhancer(Enhancer(name, "latent", needs, False, False, run), summary)
    register_enhancer(
        Enhancer("gain_match", "mel", ("target",), False, True, _gain_match), "control: one gain for everything"
    )
    register_enhancer(
        Enhancer("ltas_match", "mel", ("target",), False, True, _ltas_match),
        "control: mean and deviation of every mel band",
    )
    register_enhancer(
        Enhancer("refine", "mel", ("network",), False, False, _refine), "adds what a trained network says to the mel"
    )
    register_enhancer(
        Enhancer("refine_informed", "mel", ("network", "reference_mel"), True, False, _refine_informed),
        "as refine, but the network sees the original",
    )
    register_enhancer(
        Enhancer("optimise", "latent", ("decode", "reference_mel"), True, False, _optimise),
        "upper bound: gradient descent on the latent against the original",
    )


_register_all()


MOST_GAIN_NEPER = 4.6
"""40 dB: silence is not turned into noise."""


def enhance_wave(name: str, wave: Tensor, strength: float, context: EnhanceContext) -> Tensor:
    """Apply the change that an enhancer makes to the mel spectrum of waves `[B, C, T]` as gains; phases stay."""
    if ENHANCERS.build(name).domain != "mel":
        raise ConfigError(f"enhancer {name!r} changes latents; only those of mel spectra can change waves")
    if strength == 0:
        return wave
    config = context.mel
    transform = FrameTransform(mel_framing(config, wave.shape[-1]), wave.dtype, wave.device)
    magnitude = transform.analyse(wave.mean(dim=1)).abs().transpose(-1, -2)
    before = mel_of_magnitude(magnitude, config).clamp_min(config.floor).log()
    change = enhance(name, before, strength, context) - before
    gain = (change.clamp(-MOST_GAIN_NEPER, MOST_GAIN_NEPER) @ _band_weights(config).to(change)).exp()
    spectra = transform.analyse(wave.flatten(0, 1))
    added = spectra * (gain.repeat_interleave(wave.shape[1], dim=0) - 1)
    # Only what is changed goes through the transform and back; the rest keeps every bit.
    return wave + transform.synthesise(added).reshape(wave.shape)


def _band_weights(config: MelConfig) -> Tensor:
    """Weights `[M, F]` of mel bands at every bin: straight lines between their middles, the ends go on."""
    bins_hz = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64) * config.sample_rate_hz / config.n_fft
    centres_hz = mel_centres_hz(config)
    right = torch.searchsorted(centres_hz, bins_hz).clamp(1, len(centres_hz) - 1)
    left = right - 1
    share = ((bins_hz - centres_hz[left]) / (centres_hz[right] - centres_hz[left])).clamp(0, 1)
    weights = torch.zeros(len(centres_hz), len(bins_hz), dtype=torch.float64)
    columns = torch.arange(len(bins_hz))
    weights[left, columns] = 1 - share
    weights[right, columns] += share
    return weights
