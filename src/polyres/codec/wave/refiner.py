"""Refinement of a decoded wave: U-Nets on complex spectra of several resolutions, steered by a small KL latent."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import NamedTuple

import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from polyres.core.config import Config
from polyres.dsp.stft import istft, stft
from polyres.nn.branches import Decoder, Encoder, UNetShape, complex_as_channels
from polyres.nn.fusion.base import OUTPUT_FUSION, Fusion, FusionConfig, FusionShape

TINY = 1e-30


class RefinerConfig(Config):
    """Sizes of the refiner."""

    n_fft: tuple[PositiveInt, ...] = Field(default=(256, 1024), min_length=1)  # in samples, by resolution
    channels: PositiveInt = 16  # width of the outermost layer
    depth: PositiveInt = 2  # layers, each with a stride of 4 over frequency
    latent_channels: PositiveInt = 4  # of the KL latent
    latent_hop: PositiveInt = 1024  # samples between two of its columns
    output: FusionConfig = FusionConfig(kind="weights")  # fusion of the resolutions' waves

    @model_validator(mode="after")
    def _windows_fit(self) -> RefinerConfig:
        """Refuse windows whose bins cannot be halved so often."""
        for size in self.n_fft:
            if size % (2 * 4**self.depth) or size % 8:
                raise ValueError(
                    f"n_fft {size} does not fit depth {self.depth}; take a multiple of {2 * 4**self.depth}"
                )
        return self


class Posterior(NamedTuple):
    """Mean and logarithm of the variance of the latent, `[B, D, L]` each."""

    mean: Tensor
    log_variance: Tensor

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw a latent."""
        draw = torch.randn(self.mean.shape, generator=generator, device=self.mean.device, dtype=self.mean.dtype)
        return self.mean + (0.5 * self.log_variance).exp() * draw

    def divergence(self) -> Tensor:
        """Mean Kullback-Leibler divergence from the standard normal distribution per number, in nat."""
        return 0.5 * (self.mean.square() + self.log_variance.exp() - 1 - self.log_variance).mean()


def scale_of(thresholds: Tensor, hop_samples: int) -> Tensor:
    """Interpolate the thresholds of steps `[B, N]` to samples `[B, 1, N * hop_samples]`."""
    return F.interpolate(thresholds[:, None], scale_factor=hop_samples, mode="linear", align_corners=False)


def compressed(spec: Tensor) -> Tensor:
    """Shrink large values of a complex spectrogram; real and imaginary parts become channels."""
    parts = complex_as_channels(spec)
    power = spec.real.square() + spec.imag.square()
    gain = (1 + power).pow(-0.35)
    return parts * gain.repeat_interleave(2, dim=1)


class _Branch(nn.Module):
    """What one resolution adds: a gain on the noise and a spectrum of its own."""

    def __init__(self, n_fft: int, audio_channels: int, config: RefinerConfig) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, n_fft // 4
        shape = UNetShape(config.channels, 2, config.depth, 8, 4, 1, config.depth, 4, 0, 1, 4, 1e-3)
        widths = shape.widths()
        ins = [4 * audio_channels + config.latent_channels, *widths[:-1]]
        outs = [4 * audio_channels, *widths[:-1]]
        self.encoder = nn.ModuleList(Encoder(ins[i], widths[i], shape, i, True) for i in range(config.depth))
        self.decoder = nn.ModuleList(Decoder(widths[i], outs[i], shape, i, True) for i in reversed(range(config.depth)))
        last = self.decoder[-1].get_submodule("conv_tr")
        for parameter in last.parameters():  # so that refinement starts as nothing
            nn.init.zeros_(parameter)

    def forward(self, carried: Tensor, noise: Tensor, latent: Tensor) -> Tensor:
        """Waves `[B, C, T]` in units of the threshold and latent `[B, D, L]` -> what is added `[B, C, T]`."""
        first, second = (stft(wave, self.n_fft, self.hop_length) for wave in (carried, noise))
        frames = F.interpolate(latent, size=first.shape[-1], mode="linear", align_corners=False)
        steering = frames[:, :, None].expand(-1, -1, first.shape[-2], -1)
        x = torch.cat([compressed(first), compressed(second), steering], dim=1)
        skips = []
        for layer in self.encoder:
            x = layer(x)
            skips.append(x)
        for layer, skip in zip(self.decoder, reversed(skips), strict=True):
            x = layer(x, skip)
        gains, own = (_complex(part) for part in x.float().chunk(2, dim=1))
        return istft(gains * second + own, self.hop_length, carried.shape[-1])


def _complex(x: Tensor) -> Tensor:
    """Real `[B, 2C, F, N]` -> complex `[B, C, F, N]`."""
    pairs = x.unflatten(1, (-1, 2))
    return torch.complex(pairs[:, :, 0], pairs[:, :, 1])


class Refiner(nn.Module):
    """Predicts what is missing from a decoded wave; adds nothing before it is trained."""

    def __init__(self, config: RefinerConfig, audio_channels: int, sample_rate_hz: int, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.branches = nn.ModuleList(_Branch(size, audio_channels, config) for size in config.n_fft)
            shape = FusionShape(config.n_fft, ("wave",), audio_channels, sample_rate_hz)
            self.fusion: Fusion = OUTPUT_FUSION.build(config.output.kind, config.output, shape)
            width, self.window = 4 * config.channels, 2 * config.latent_hop
            bins = config.latent_hop // 32
            self.analysis = nn.Sequential(
                nn.Conv2d(2 * audio_channels, config.channels, (9, 3), (4, 1), (4, 1)),
                nn.GELU(),
                nn.Conv2d(config.channels, config.channels, (9, 1), (4, 1), (4, 0)),
                nn.GELU(),
                nn.Conv2d(config.channels, config.channels, (3, 1), (2, 1), (1, 0)),
                nn.GELU(),
                nn.Flatten(1, 2),
                nn.Conv1d(config.channels * bins, width, 1),
                nn.GELU(),
                nn.Conv1d(width, 2 * config.latent_channels, 1),
            )

    def encode(self, wave: Tensor, carried: Tensor, scale: Tensor) -> Posterior:
        """Encode what the carried wave lacks of the original `[B, C, T]` as a latent `[B, D, T / latent_hop]`."""
        levelled = torch.cat([wave - carried, carried], dim=1) / scale.clamp_min(TINY)
        spec = stft(levelled, self.window, self.config.latent_hop)
        mean, log_variance = self.analysis(torch.log1p(spec.abs())).chunk(2, dim=1)
        return Posterior(mean, log_variance.clamp(-12, 4))

    def forward(self, carried: Tensor, noise: Tensor, scale: Tensor, latent: Tensor) -> Tensor:
        """Predict what to add to `carried + noise`, `[B, C, T]`; nothing where the scale `[B, 1, T]` is 0."""
        floor = scale.clamp_min(TINY)
        waves = [branch(carried / floor, noise / floor, latent) for branch in self.branches]
        fused: Tensor = self.fusion(torch.stack(waves, dim=1)[:, :, None], floor.new_ones(len(waves)))[:, 0]
        return fused * scale


class _SpectrumCritic(nn.Module):
    """Convolutions on the spectrum of one resolution."""

    def __init__(self, n_fft: int, audio_channels: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        widths = [2 * audio_channels, channels, channels, channels, channels]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, (5, 3), (2, 1), (2, 1)))
            for a, b in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, wave: Tensor) -> list[Tensor]:
        """`[B, C, T]` -> features of every layer, the verdict last."""
        x = complex_as_channels(stft(wave, self.n_fft, self.n_fft // 4))
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.last(x)]


class AdversarialTerms(NamedTuple):
    """What the codec minimises, `adversarial` and `features`, and what the critic does."""

    adversarial: Tensor
    features: Tensor
    critic: Tensor


class CriticConfig(Config):
    """Weights of the adversarial terms, and sizes of the critic."""

    adversarial: float = Field(default=0.05, ge=0)  # how much the hinge term counts
    features: float = Field(default=0.1, ge=0)  # how much feature matching counts
    n_fft: tuple[int, ...] = Field(default=(256, 512, 1024), min_length=1)  # by resolution, in samples
    channels: int = Field(default=8, ge=1)  # width of its layers

    def added(
        self, total: Tensor, terms: Mapping[str, Tensor], found: Mapping[str, Tensor]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Add the terms of the critic to a loss."""
        weights = {"adversarial": self.adversarial, "features": self.features, "critic": 1.0}
        total = total + sum(weight * found[name] for name, weight in weights.items())
        return total, {**terms, **{name: found[name].detach() for name in weights}}


class Critic(nn.Module):
    """Tells decoded waves from original ones at several resolutions.

    Source: Défossez et al. 2022, "High Fidelity Neural Audio Compression", section 3.4; hinge loss, Lim and Ye 2017.
    """

    def __init__(self, n_fft: tuple[int, ...], audio_channels: int, channels: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critics = nn.ModuleList(_SpectrumCritic(size, audio_channels, channels) for size in n_fft)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """Judge waves `[B, C, T]`: per resolution the features of every layer, the verdict last."""
        return [critic(wave) for critic in self.critics]

    def terms(self, decoded: Tensor, original: Tensor) -> AdversarialTerms:
        """Return the terms of both sides; the last trains the critic, the others the decoded wave `[B, C, T]` alone."""
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        judged = functional_call(self, frozen, (decoded,))
        with torch.no_grad():
            wanted = self(original)
        true, false = self(original), self(decoded.detach())
        adversarial = torch.stack([-one[-1].mean() for one in judged]).mean()
        apart = [
            (a - b).abs().mean() / b.abs().mean().clamp_min(1e-6)
            for one, two in zip(judged, wanted, strict=True)
            for a, b in zip(one[:-1], two[:-1], strict=True)
        ]
        hinges = [F.relu(1 - a[-1]).mean() + F.relu(1 + b[-1]).mean() for a, b in zip(true, false, strict=True)]
        return AdversarialTerms(adversarial, torch.stack(apart).mean(), torch.stack(hinges).mean())
