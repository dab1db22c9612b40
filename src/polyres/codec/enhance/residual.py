"""Residual networks on latents or on decoded mel spectra."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn

from polyres.core.config import Config
from polyres.core.errors import InputError

_KERNEL = 3


class ResidualConfig(Config):
    """Size of a residual network."""

    channels: int = Field(default=1, ge=1)  # of the picture: those of the latent, or 1 for mel spectra
    width: int = Field(default=32, ge=1)  # channels inside
    depth: int = Field(default=6, ge=1, le=10_000)  # residual blocks
    dilations: tuple[int, ...] = Field(default=(1, 2, 4), min_length=1)  # over time, by block; repeated as needed
    informed: bool = False  # whether the network also sees the original picture, which no decoder has


class _Block(nn.Module):
    """Two convolutions over time and frequency, added to what comes in."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, _KERNEL, padding=(dilation, 1), dilation=(dilation, 1))
        self.second = nn.Conv2d(width, width, 1)
        self.act = nn.GELU()

    def forward(self, value: Tensor) -> Tensor:
        return value + self.second(self.act(self.first(self.act(value))))


class ResidualNetwork(nn.Module):
    """Predicts what to add to latents or mel spectra; zero before training.

    Without norms over time, so that what it says of a frame does not depend on the length of the signal; a channel
    tells it where on the frequency axis it is.
    """

    def __init__(self, config: ResidualConfig, seed: int = 0) -> None:
        super().__init__()
        self.config = config
        seen = config.channels * (2 if config.informed else 1) + 1
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not those of accelerators
            self.first = nn.Conv2d(seen, config.width, _KERNEL, padding=1)
            dilations = (config.dilations[index % len(config.dilations)] for index in range(config.depth))
            self.blocks = nn.Sequential(*(_Block(config.width, dilation) for dilation in dilations))
            self.last = nn.Conv2d(config.width, config.channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    @property
    def context_frames(self) -> int:
        """How many frames on each side a frame of the result depends on."""
        dilations = self.config.dilations
        return 1 + sum(dilations[index % len(dilations)] for index in range(self.config.depth))

    def forward(self, coarse: Tensor, original: Tensor | None = None) -> Tensor:
        """Predict what to add to latents `[B, D, T, F]` or log-mel spectra `[B, N, M]`; informed networks see the
        original.
        """
        if (original is not None) != self.config.informed:
            wanted = "needs the original" if self.config.informed else "is blind and must not see the original"
            raise InputError(f"this network {wanted}; it was trained so (informed: {self.config.informed})")
        flat = coarse.ndim == 3
        picture = coarse[:, None] if flat else coarse
        if picture.ndim != 4 or picture.shape[1] != self.config.channels:
            raise InputError(
                f"a picture of shape {list(coarse.shape)} does not fit a network for {self.config.channels} channels"
            )
        seen = [picture]
        if original is not None:
            seen.append((original[:, None] if flat else original) - picture)
        place = torch.linspace(-1, 1, picture.shape[-1], device=picture.device, dtype=picture.dtype)
        seen.append(place.expand(len(picture), 1, *picture.shape[-2:]))
        added = self.last(self.blocks(self.first(torch.cat(seen, dim=1))))
        return added[:, 0] if flat else added
