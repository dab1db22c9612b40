"""Fixed filters of latents `[B, D, T, F]` over time and frequency: detail, pyramids, contrast."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

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
