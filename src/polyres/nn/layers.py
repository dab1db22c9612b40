"""Small blocks used by every branch: residual dilated convolutions, layer scale, frequency embedding."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class LayerScale(nn.Module):
    """Learned gain per channel, starting small so that a residual block starts near identity.

    `channel_last`: True for `[..., D]`, False for `[B, D, T]`.

    Source: Touvron et al. 2021, "Going deeper with image transformers", eq. 6.
    """

    def __init__(self, channels: int, init: float, channel_last: bool = False) -> None:
        super().__init__()
        self.channel_last = channel_last
        self.scale = nn.Parameter(torch.full((channels,), init))

    def forward(self, x: Tensor) -> Tensor:
        """Scale every channel of `[B, D, T]` (or `[..., D]`)."""
        return self.scale * x if self.channel_last else self.scale[:, None] * x


class ResidualDilated(nn.Module):
    """Residual bottleneck convolutions over time with growing dilation ("DConv").

    `depth`: number of residual blocks; block d has dilation 2**d.

    Source: Défossez 2021, "Hybrid Spectrogram and Waveform Source Separation", section 3.
    """

    def __init__(self, channels: int, compress: int, depth: int, init: float) -> None:
        super().__init__()
        hidden = max(1, channels // compress)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv1d(channels, hidden, 3, dilation=2**d, padding=2**d),
                nn.GroupNorm(1, hidden),
                nn.GELU(),
                nn.Conv1d(hidden, 2 * channels, 1),
                nn.GroupNorm(1, 2 * channels),
                nn.GLU(1),
                LayerScale(channels, init),
            )
            for d in range(depth)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Run the blocks along time: `[B, D, T]` -> `[B, D, T]`, or `[B, D, F, T]` with every bin on its own."""
        if x.dim() == 3:
            for block in self.blocks:
                x = x + block(x)
            return x
        batch, channels, bins, frames = x.shape
        # with channels innermost in memory this regrouping, and back, copies nothing
        rows = x.permute(0, 2, 1, 3).reshape(batch * bins, channels, 1, frames)
        for block in self.blocks:
            rows = self._over_rows(block, rows)
        return rows.view(batch, bins, channels, frames).permute(0, 2, 1, 3)

    @staticmethod
    def _over_rows(block: nn.Sequential, rows: Tensor) -> Tensor:
        """Add one block to `[B * F, D, 1, T]`, with channels innermost in memory (1-D convolutions cannot)."""
        widen, norm, _, narrow, norm_out, _, scale = block
        y = F.conv2d(
            rows, widen.weight[:, :, None], widen.bias, padding=(0, widen.padding[0]), dilation=(1, widen.dilation[0])
        )
        y = F.conv2d(F.gelu(norm(y)), narrow.weight[:, :, None], narrow.bias)
        return torch.addcmul(rows, glu_channels(norm_out(y)), scale.scale[:, None, None].to(rows.dtype))


class FrequencyEmbedding(nn.Module):
    """Learned offset per frequency bin, added after the first encoder layer.

    Source: Défossez 2021, section 3 ("frequency embedding").
    """

    def __init__(self, bins: int, channels: int, amount: float, boost: float, smooth: bool) -> None:
        super().__init__()
        self.gain = amount * boost
        weight = torch.randn(bins, channels)
        if smooth:
            weight = weight.cumsum(0) / torch.arange(1, bins + 1).sqrt()[:, None]
        self.weight = nn.Parameter(weight / boost)

    def forward(self, x: Tensor) -> Tensor:
        """Add to `[B, D, F, N]`."""
        return x + self.gain * self.weight.t()[:, :, None]


def optional_norm(channels: int, groups: int, on: bool) -> nn.Module:
    """GroupNorm where wanted, else identity."""
    return nn.GroupNorm(groups, channels) if on else nn.Identity()


def start_at_zero(layer: nn.Module) -> None:
    """Zero the weights and biases of a layer, so that what it adds starts at nothing."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def rescale_convolutions(module: nn.Module, reference: float) -> None:
    """Shrink the starting weights of all convolutions towards a common scale.

    Each weight and bias is divided by sqrt(std(weight) / reference).

    `reference`: target standard deviation, > 0.

    Source: Défossez et al. 2019, "Music Source Separation in the Waveform Domain", section 4.3.
    """
    kinds = (nn.Conv1d, nn.Conv2d, nn.ConvTranspose1d, nn.ConvTranspose2d)
    for part in module.modules():
        if isinstance(part, kinds):
            factor = (part.weight.detach().std() / reference).sqrt()
            with torch.no_grad():
                part.weight.div_(factor)
                if part.bias is not None:
                    part.bias.div_(factor)


def glu_channels(x: Tensor) -> Tensor:
    """Gated linear unit over channels: `[B, 2D, ...]` -> `[B, D, ...]`; keeps channels innermost if they are."""
    if x.dim() == 3:
        return F.glu(x, dim=1)
    if not torch.is_grad_enabled():  # one pass over memory, but a slow gradient
        return F.glu(x.permute(0, 2, 3, 1), dim=-1).permute(0, 3, 1, 2)
    value, gate = x.chunk(2, dim=1)
    return value * gate.sigmoid()


def gated_convolution(conv: nn.Module, norm: nn.Module, x: Tensor) -> Tensor:
    """Convolution, norm and gated linear unit over channels. `x`: `[B, D, ...]`. Returns `[B, D', ...]`."""
    if not isinstance(norm, nn.Identity) or x.dim() == 3:
        return glu_channels(norm(conv(x)))
    # two half convolutions leave value and gate dense in memory, which the gating is bound by
    flat = cast(nn.Conv2d, conv)
    value, gate = (
        F.conv2d(x, weight, bias, flat.stride, flat.padding)
        for weight, bias in zip(flat.weight.chunk(2), flat.get_parameter("bias").chunk(2), strict=True)
    )
    return value * gate.sigmoid() if torch.is_grad_enabled() else gate.sigmoid_().mul_(value)
