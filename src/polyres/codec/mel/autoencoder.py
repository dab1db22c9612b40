"""Autoencoder of mel spectrograms with the interface of AutoencoderKL and a bounded receptive field."""

from __future__ import annotations

import itertools
from typing import Literal, NamedTuple, get_args

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.config import Config
from polyres.core.errors import InputError

SHRINKS = 4
"""Mel frames, and mel bins, per latent."""

_LOG_VARIANCE_RANGE = (-30.0, 20.0)


class MelAutoencoderConfig(Config):
    """Sizes of the autoencoder."""

    widths: tuple[int, int, int] = (16, 32, 64)  # channels at full, half and quarter resolution
    latent_channels: int = Field(default=8, ge=1)  # numbers per four frames and four bins
    blocks: int = Field(default=1, ge=1)  # residual blocks of the encoder per resolution; the decoder has one more
    middle_blocks: int = Field(default=2, ge=0)  # residual blocks at the latent's resolution, in encoder and decoder
    scaling: Scaling = "z_score"  # how spectra are scaled for the network

    @field_validator("widths")
    @classmethod
    def _positive(cls, widths: tuple[int, int, int]) -> tuple[int, int, int]:
        """Refuse layers without channels."""
        if min(widths) < 1:
            raise ValueError(f"every width must be 1 or more, not {list(widths)}")
        return widths


class LatentNormal:
    """A normal distribution per number of a latent."""

    def __init__(self, moments: Tensor) -> None:
        """Take `[B, 2 D, T, F]`: means, then logarithms of variances."""
        self.mean, log_variance = moments.chunk(2, dim=1)
        self.log_variance = log_variance.clamp(*_LOG_VARIANCE_RANGE)

    def mode(self) -> Tensor:
        """Return the means `[B, D, T, F]`."""
        return self.mean

    def sample(self, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents `[B, D, T, F]`; with the generator that torch has for everything where none is given."""
        draws = torch.empty_like(self.mean).normal_(generator=generator)
        return self.mean + (0.5 * self.log_variance).exp() * draws

    def kl(self) -> Tensor:
        """Return the divergence of each item `[B]` from the standard normal distribution, nat."""
        parts = self.mean.square() + self.log_variance.exp() - 1 - self.log_variance
        return 0.5 * parts.flatten(1).sum(dim=1)


class Encoded(NamedTuple):
    """What `MelAutoencoder.encode` gives."""

    latent_dist: LatentNormal


class Decoded(NamedTuple):
    """What `MelAutoencoder.decode` gives."""

    sample: Tensor


class _ChannelNorm(nn.Module):
    """Divides every place by the size of its channels; no place sees another."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T, F]`, same shape."""
        return x * (x.square().mean(dim=1, keepdim=True) + 1e-6).rsqrt() * self.gain


class _Residual(nn.Module):
    """Two convolutions whose result is added; nothing is added at first."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = _ChannelNorm(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        nn.init.zeros_(self.conv2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(F.silu(self.conv1(F.silu(self.norm(x)))))


class _Up(nn.Module):
    """Twice the frames and bins: four channels become four places."""

    def __init__(self, wide: int, narrow: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(wide, 4 * narrow, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, T, F]` -> `[B, C', 2 T, 2 F]`."""
        return F.pixel_shuffle(self.conv(x), 2)


def _blocks(channels: int, count: int) -> nn.Sequential:
    return nn.Sequential(*(_Residual(channels) for _ in range(count)))


class _Encoder(nn.Module):
    def __init__(self, config: MelAutoencoderConfig, mel_bins: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(1, widths[0], 3, padding=1)
        self.band = nn.Parameter(torch.zeros(widths[0], 1, mel_bins))
        self.down_blocks = nn.ModuleList(
            nn.Sequential(_blocks(a, config.blocks), nn.Conv2d(a, b, 4, stride=2, padding=1))
            for a, b in itertools.pairwise(widths)
        )
        self.mid_block = _blocks(widths[-1], config.blocks + config.middle_blocks)
        self.conv_out = nn.Conv2d(widths[-1], 2 * config.latent_channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 1, T, M]` -> `[B, 2 D, T / 4, M / 4]`."""
        x = self.conv_in(x) + self.band
        for block in self.down_blocks:
            x = block(x)
        moments: Tensor = self.conv_out(F.silu(self.mid_block(x)))
        return moments


class _Decoder(nn.Module):
    def __init__(self, config: MelAutoencoderConfig, mel_bins: int) -> None:
        super().__init__()
        widths = config.widths
        self.conv_in = nn.Conv2d(config.latent_channels, widths[-1], 3, padding=1)
        self.band = nn.Parameter(torch.zeros(widths[-1], 1, mel_bins // SHRINKS))
        self.mid_block = _blocks(widths[-1], config.blocks + 1 + config.middle_blocks)
        self.up_blocks = nn.ModuleList(
            nn.Sequential(_Up(b, a), _blocks(a, config.blocks + 1)) for a, b in reversed([*itertools.pairwise(widths)])
        )
        self.conv_out = nn.Conv2d(widths[0], 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        """`[B, D, T / 4, M / 4]` -> `[B, 1, T, M]`."""
        x = self.mid_block(self.conv_in(z) + self.band)
        for block in self.up_blocks:
            x = block(x)
        mel: Tensor = self.conv_out(F.silu(x))
        return mel


class MelAutoencoder(nn.Module):
    """Log-mel spectra `[B, 1, T, M]` to latents `[B, D, T / 4, M / 4]` and back; the calls are those of AutoencoderKL.

    There is no attention and no norm over time: what comes out depends on `context_frames` around it and not on where
    a window was cut. The bands know which they are by a constant of their own.

    Source: Rombach et al. 2022, "High-Resolution Image Synthesis with Latent Diffusion Models", appendix; Liu et al.
    2023, "AudioLDM".
    """

    def __init__(self, config: MelAutoencoderConfig, mel_bins: int, seed: int = 0) -> None:
        """Build encoder and decoder; `mel_bins` is a multiple of 4."""
        super().__init__()
        self.config = config
        self.scaling = MelScaling(config.scaling, mel_bins)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.encoder = _Encoder(config, mel_bins)
            self.decoder = _Decoder(config, mel_bins)

    @property
    def context_frames(self) -> int:
        """Frames on each side that can change a decoded frame, by encoder and decoder together."""
        c = self.config
        # Full, half and quarter resolution; a residual block reaches two places, other convolutions one.
        encoder = (1 + 2 * c.blocks + 2) + 2 * (2 * c.blocks + 2) + 4 * (2 * (c.blocks + c.middle_blocks) + 1)
        decoder = 4 * (1 + 2 * (c.blocks + 1 + c.middle_blocks) + 1) + 2 * (2 * (c.blocks + 1) + 1)
        return encoder + decoder + 2 * (c.blocks + 1) + 1

    def encode(self, log_mel: Tensor) -> Encoded:
        """Code log-mel spectra `[B, 1, T, M]`, natural logarithms, T a multiple of 4."""
        return Encoded(LatentNormal(self.encoder(self.scaling(log_mel))))

    def decode(self, z: Tensor) -> Decoded:
        """Decode latents `[B, D, T / 4, M / 4]` to log-mel spectra `[B, 1, T, M]`."""
        return Decoded(self.scaling.undo(self.decoder(z)))


Scaling = Literal["none", "standard", "z_score", "percentile", "tanh"]
SCALINGS: tuple[str, ...] = get_args(Scaling)

PERCENTILES = (0.01, 0.99)
_STEEPNESS = 0.5  # of tanh: two standard deviations of a band go to 0.76
_ALMOST_ONE = 0.999
_LEAST = 0.05  # nat; a band that hardly moves is not blown up
_STRIDE_ABOVE = 1 << 22  # quantiles of more numbers are taken of every n-th


class MelScaling(nn.Module):
    """Maps log-mel spectra `[..., M]` to about unit range and back."""

    shift: Tensor
    scale: Tensor

    def __init__(self, kind: Scaling, mel_bins: int) -> None:
        """Start as the identity."""
        super().__init__()
        self.kind = kind
        self.register_buffer("shift", torch.zeros(mel_bins))
        self.register_buffer("scale", torch.ones(mel_bins))

    @torch.no_grad()
    def fit(self, log_mel: Tensor) -> None:
        """Measure mean and deviation of log-mel spectra `[..., N, M]` of training data."""
        bins = len(self.shift)
        if log_mel.ndim < 2 or log_mel.shape[-1] != bins or not log_mel.numel():
            raise InputError(f"log-mel spectra have shape {list(log_mel.shape)}; [N, {bins}] with N > 0 is needed")
        frames = log_mel.reshape(-1, bins).float()
        if self.kind == "none":
            return
        if self.kind == "percentile":
            every = max(1, frames.numel() // _STRIDE_ABOVE)
            low, high = torch.quantile(frames[::every], torch.tensor(PERCENTILES, device=frames.device), dim=0)
            shift, scale = (low + high) / 2, (high - low) / 2
        elif self.kind == "standard":
            shift, scale = frames.mean().expand(bins), frames.std(unbiased=False).expand(bins)
        else:
            shift, scale = frames.mean(dim=0), frames.std(dim=0, unbiased=False)
        self.shift.copy_(shift)
        self.scale.copy_(scale.clamp_min(_LEAST))

    def forward(self, log_mel: Tensor) -> Tensor:
        """Map log-mel spectra `[..., M]` to the range of the network."""
        scaled = (log_mel - self.shift) / self.scale
        return torch.tanh(_STEEPNESS * scaled) if self.kind == "tanh" else scaled

    def undo(self, scaled: Tensor) -> Tensor:
        """Map back; beyond the range of tanh the ends of it are meant."""
        if self.kind == "tanh":
            scaled = torch.atanh(scaled.clamp(-_ALMOST_ONE, _ALMOST_ONE)) / _STEEPNESS
        return scaled * self.scale + self.shift
