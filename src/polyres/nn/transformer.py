"""Cross-domain transformer: spectral and wave tokens attend to themselves and to each other."""

from __future__ import annotations

import math
from typing import Annotated

import torch
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.config import Config
from polyres.nn.attention import Attention, SparseConfig
from polyres.nn.layers import LayerScale


class TransformerConfig(Config):
    """Bottleneck transformer. `dropout`: rate after attention and inside the feed-forward part, 0 to below 1."""

    kind: str = "softmax"  # attention name, or `none` for no transformer
    layers: PositiveInt = 5  # number of layers; even ones are self-attention, odd ones cross-attention
    heads: PositiveInt = 8
    hidden_scale: PositiveFloat = 4.0  # width of the feed-forward layer over the token width
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    bottom_channels: NonNegativeInt = 0  # token width; 0 keeps the width of the branches
    max_period: PositiveFloat = 10000.0  # longest period of the sinusoidal positions, in tokens
    position_weight: float = 1.0
    scale_init: float = 1e-4  # starting gain of every residual block
    sparse: SparseConfig = SparseConfig()  # sizes for `sparse` attention


class TransformerLayer(nn.Module):
    """Pre-norm attention and feed-forward with layer scale and an output norm.

    Source: Rouard, Massa, Défossez 2023, "Hybrid Transformers for Music Source Separation", section 3.
    """

    def __init__(self, config: TransformerConfig, channels: int, cross: bool) -> None:
        super().__init__()
        hidden = int(channels * config.hidden_scale)
        self.attention = Attention(config.kind, channels, config.heads, config.sparse)
        self.norm_query = nn.LayerNorm(channels)
        self.norm_memory = nn.LayerNorm(channels) if cross else None
        self.norm_hidden = nn.LayerNorm(channels)
        self.linear1 = nn.Linear(channels, hidden)
        self.linear2 = nn.Linear(hidden, channels)
        self.gamma_1 = LayerScale(channels, config.scale_init, channel_last=True)
        self.gamma_2 = LayerScale(channels, config.scale_init, channel_last=True)
        self.norm_out = nn.GroupNorm(1, channels)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        """Tokens `[B, P, D]` and the other domain's `[B, Q, D]` (read by cross layers only) -> `[B, P, D]`."""
        query = self.norm_query(x)
        memory = query if self.norm_memory is None else self.norm_memory(other)
        x = x + self.gamma_1(self.dropout(self.attention(query, memory)))
        hidden = self.dropout(F.gelu(self.linear1(self.norm_hidden(x))))
        x = x + self.gamma_2(self.dropout(self.linear2(hidden)))
        return self.norm_out(x.transpose(1, 2)).transpose(1, 2)


class CrossTransformer(nn.Module):
    """Stack of transformer layers over spectral tokens and, where present, wave tokens.

    `config`: sizes; kind must not be `none`. `with_wave`: a wave branch exists; without one every layer is
    self-attention.

    Source: Rouard et al. 2023, section 3 and figure 1.
    """

    def __init__(self, config: TransformerConfig, channels: int, with_wave: bool) -> None:
        super().__init__()
        self.config = config
        width = config.bottom_channels or channels
        resize = bool(config.bottom_channels)
        self.up = nn.Conv1d(channels, width, 1) if resize else nn.Identity()
        self.down = nn.Conv1d(width, channels, 1) if resize else nn.Identity()
        self.norm_in = nn.LayerNorm(width)
        self.layers = nn.ModuleList(
            TransformerLayer(config, width, with_wave and i % 2 == 1) for i in range(config.layers)
        )
        self.wave: WaveSide | None = WaveSide(config, channels) if with_wave else None

    def forward(self, x: Tensor, wave: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Spectral `[B, D, F, N]` and wave `[B, D, N']` features -> the same, transformed.

        Tokens of the spectral side run over frequency first, then time.
        """
        batch, _, bins, frames = x.shape
        tokens = self.up(x.flatten(2)).unflatten(2, (bins, frames)).permute(0, 3, 2, 1).flatten(1, 2)
        tokens = self.norm_in(tokens) + self.config.position_weight * grid_positions(
            bins, frames, tokens.shape[-1], self.config.max_period, x.device
        )
        others = None if self.wave is None or wave is None else self.wave.enter(wave)
        for index, layer in enumerate(self.layers):
            before = tokens
            tokens = layer(tokens, tokens if others is None else others)
            if self.wave is not None and others is not None:
                others = self.wave.layers[index](others, before)
        out = tokens.unflatten(1, (frames, bins)).permute(0, 3, 2, 1)
        out = self.down(out.flatten(2)).unflatten(2, (bins, frames))
        if self.wave is None or others is None:
            return out, wave
        return out, self.wave.leave(others)


class WaveSide(nn.Module):
    """The wave branch's half of the transformer: widening, norm, layers, narrowing."""

    def __init__(self, config: TransformerConfig, channels: int) -> None:
        super().__init__()
        self.config = config
        width = config.bottom_channels or channels
        resize = bool(config.bottom_channels)
        self.up = nn.Conv1d(channels, width, 1) if resize else nn.Identity()
        self.down = nn.Conv1d(width, channels, 1) if resize else nn.Identity()
        self.norm_in = nn.LayerNorm(width)
        self.layers = nn.ModuleList(TransformerLayer(config, width, i % 2 == 1) for i in range(config.layers))

    def enter(self, wave: Tensor) -> Tensor:
        """Features `[B, D, N']` -> tokens `[B, N', W]` with positions."""
        tokens = self.norm_in(self.up(wave).transpose(1, 2))
        length, width = tokens.shape[1:]
        return tokens + self.config.position_weight * line_positions(length, width, self.config.max_period, wave.device)

    def leave(self, tokens: Tensor) -> Tensor:
        """Tokens `[B, N', W]` -> features `[B, D, N']`."""
        return self.down(tokens.transpose(1, 2))


def line_positions(length: int, channels: int, max_period: float, device: torch.device) -> Tensor:
    """Sinusoidal positions of a sequence: cosines in the first half of the channels, sines in the second.

    `channels`: D, even, >= 4. Returns `[length, channels]`.

    Source: Rouard et al. 2023; Vaswani et al. 2017, section 3.5 with another channel order.
    """
    half = channels // 2
    exponent = torch.arange(half, device=device) / (half - 1)
    phase = torch.arange(length, device=device)[:, None] / max_period**exponent
    return torch.cat([phase.cos(), phase.sin()], dim=-1)


def grid_positions(bins: int, frames: int, channels: int, max_period: float, device: torch.device) -> Tensor:
    """Sinusoidal positions of a grid: time in the first half of the channels, frequency in the second.

    Returns `[frames * bins, channels]`, sines and cosines alternating, frequency running fastest.

    Source: Rouard et al. 2023, section 3 ("2D sinusoidal encoding").
    """
    half = channels // 2
    rate = torch.exp(torch.arange(0, half, 2, device=device) * (-math.log(max_period) / half))

    def waves(count: int) -> Tensor:
        phase = torch.arange(count, device=device)[:, None] * rate
        return torch.stack([phase.sin(), phase.cos()], dim=-1).flatten(1)

    time = waves(frames)[:, None].expand(frames, bins, half)
    frequency = waves(bins)[None].expand(frames, bins, half)
    return torch.cat([time, frequency], dim=-1).reshape(frames * bins, channels)
