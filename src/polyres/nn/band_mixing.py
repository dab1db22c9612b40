"""Mixing of band features along time and along bands, by turns."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.catalogue import Catalogue, unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.nn.attention import ATTENTION, Attention, SparseConfig
from polyres.nn.body import BodyConfig
from polyres.nn.transformer import line_positions

HEADS = 4
MAX_PERIOD = 10000.0
DILATIONS = 6
"""Dilations of the convolutions double from block to block, and start again after this many."""

TIME_MIXING: Catalogue[nn.Module] = Catalogue("time mixing")
BAND_MIXING: Catalogue[nn.Module] = Catalogue("band mixing")


def check_mixing(config: BodyConfig, width: int) -> None:
    """Refuse unknown kinds, and a width that attention cannot share among its heads."""
    for catalogue, kind in ((TIME_MIXING, config.time_mixing), (BAND_MIXING, config.band_mixing)):
        if kind in catalogue:
            continue
        if kind not in ATTENTION:
            raise UnknownNameError(unknown_name_message(catalogue.kind, kind, [*catalogue.names(), *ATTENTION.names()]))
        if width % HEADS:
            raise ConfigError(f"channels {width} must be a multiple of {HEADS} for {catalogue.kind} {kind!r}")


@TIME_MIXING.register("gru", summary="recurrent in both directions")
class GruMixing(nn.Module):
    """Gated recurrent units in both directions, and a linear layer."""

    def __init__(self, width: int, place: int) -> None:
        super().__init__()
        self.gru = nn.GRU(width, width, bidirectional=True)
        self.out = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Rows `[B, K, N, D]` along N, each on its own."""
        batch, bands, frames, width = x.shape
        rows = x.permute(2, 0, 1, 3).reshape(frames, batch * bands, width)
        out = self.out(self.gru(rows)[0])
        return cast(Tensor, out).view(frames, batch, bands, width).permute(1, 2, 0, 3)


@TIME_MIXING.register("conv", summary="gated convolution over three frames, further apart from block to block")
class ConvMixing(nn.Module):
    """Dilated convolution, gated linear unit, and a linear layer."""

    def __init__(self, width: int, place: int) -> None:
        super().__init__()
        self.dilation = 2 ** (place % DILATIONS)
        self.conv = nn.Linear(3 * width, 2 * width)  # as one matrix product over three frames side by side
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Rows `[B, K, N, D]` along N, each on its own."""
        frames, apart = x.shape[2], self.dilation
        padded = F.pad(x, (0, 0, apart, apart))
        near = [padded[:, :, start : start + frames] for start in (0, apart, 2 * apart)]
        return cast(Tensor, self.out(F.glu(self.conv(torch.cat(near, dim=-1)), dim=-1)))


@BAND_MIXING.register("mlp", summary="two linear layers along bands, the same for all features")
class MlpMixing(nn.Module):
    """Linear layers along bands, as wide as twice their number.

    Source: Tolstikhin et al. 2021, "MLP-Mixer", section 2 (token mixing).
    """

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.widen, self.narrow = nn.Linear(bands, 2 * bands), nn.Linear(2 * bands, bands)

    def forward(self, x: Tensor) -> Tensor:
        """Columns `[B, K, N, D]` along K, each on its own."""
        columns = x.flatten(2).transpose(1, 2)
        out = self.narrow(F.gelu(self.widen(columns)))
        return cast(Tensor, out).transpose(1, 2).unflatten(2, x.shape[2:])


class LineAttention(nn.Module):
    """Attention along one axis, with sinusoidal positions in queries and keys. `kind`: name in `ATTENTION`."""

    def __init__(self, kind: str, width: int) -> None:
        super().__init__()
        self.attention = Attention(kind, width, HEADS, SparseConfig())

    def forward(self, x: Tensor) -> Tensor:
        """Rows `[B, K, N, D]` along N, each on its own."""
        length, width = x.shape[2:]
        rows = x.flatten(0, 1) + line_positions(length, width, MAX_PERIOD, x.device).to(x.dtype)
        return cast(Tensor, self.attention(rows, rows)).view(x.shape)


class BandAttention(LineAttention):
    """The same along bands."""

    def forward(self, x: Tensor) -> Tensor:
        """Columns `[B, K, N, D]` along K, each on its own."""
        return super().forward(x.transpose(1, 2).contiguous()).transpose(1, 2)


class BandBlock(nn.Module):
    """Mixing over time, over bands, and within features, each with a norm before it and added to what came in."""

    def __init__(self, config: BodyConfig, width: int, bands: int, place: int) -> None:
        super().__init__()
        time, band = config.time_mixing, config.band_mixing
        self.norm_time, self.norm_band = nn.LayerNorm(width), nn.LayerNorm(width)
        self.over_time = TIME_MIXING.build(time, width, place) if time in TIME_MIXING else LineAttention(time, width)
        self.over_bands = BAND_MIXING.build(band, bands) if band in BAND_MIXING else BandAttention(band, width)
        hidden = round(width * config.feed_forward)
        self.feed_forward: nn.Sequential | None = None
        if hidden:
            layers = (nn.LayerNorm(width), nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))
            self.feed_forward = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Transform `[B, K, N, D]`."""
        x = x + self.over_time(self.norm_time(x))
        x = x + self.over_bands(self.norm_band(x))
        return x if self.feed_forward is None else x + self.feed_forward(x)


class BandMixer(nn.Module):
    """Stack of blocks."""

    def __init__(self, config: BodyConfig, width: int, bands: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(BandBlock(config, width, bands, place) for place in range(config.blocks))

    def forward(self, x: Tensor) -> Tensor:
        """Transform features `[B, D, K, N]`."""
        x = x.permute(0, 2, 3, 1).contiguous()
        for block in self.blocks:
            x = block(x)
        return x.permute(0, 3, 1, 2)
