"""Output fusions that are small networks or work per band or moment; see `base.py` for the contract."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.errors import ConfigError
from polyres.nn.fusion.base import (
    BOTTLENECK_FUSION,
    OUTPUT_FUSION,
    Fusion,
    FusionConfig,
    FusionShape,
    Setting,
    SoftmaxTable,
    WeightKind,
    favoured_logits,
    identity_bank,
    keep_weights,
    share_among_active,
)
from polyres.nn.layers import start_at_zero


class BottleneckFusion(Fusion):
    """Base of bottleneck fusions: weights shared by all sources."""

    def __init__(self, sources: int) -> None:
        super().__init__()
        self.sources = sources


@BOTTLENECK_FUSION.register("mean", summary="fixed uniform average")
class BottleneckMean(BottleneckFusion):
    """Uniform average of the present branches."""

    weight_kind: WeightKind = "explicit"
    row: Tensor

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        count = len(shape.n_fft)
        self.register_buffer("row", torch.full((1, count), 1 / count), persistent=False)

    def weights(self) -> Tensor:
        return self.row.expand(self.sources, -1)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        """Fuse features `[B, R, D, F, N]` of the resolutions in `active` `[R]` into `[B, D, F, N]`."""
        return torch.einsum("brdfn,r->bdfn", h, share_among_active(self.weights()[:1], active)[0].to(h.dtype))


@BOTTLENECK_FUSION.register("weights", summary="R softmax scalars shared by all sources")
class BottleneckWeights(BottleneckFusion):
    """One softmax weight per resolution."""

    weight_kind: WeightKind = "explicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        logits = favoured_logits(config, shape.n_fft)[None]
        self.table = SoftmaxTable(logits, torch.ones_like(logits, dtype=torch.bool), config.learned)

    def weights(self) -> Tensor:
        return self.table().expand(self.sources, -1)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        return torch.einsum("brdfn,r->bdfn", h, share_among_active(self.table(), active)[0].to(h.dtype))


@BOTTLENECK_FUSION.register("band_weights", summary="R softmax scalars per cell along frequency")
class BottleneckBandWeights(BottleneckFusion):
    """One softmax weight per resolution and band, so that long windows may rule the lows and short ones the highs."""

    weight_kind: WeightKind = "explicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        logits = favoured_logits(config, shape.n_fft).expand(shape.bins, -1)
        self.table = SoftmaxTable(logits, torch.ones_like(logits, dtype=torch.bool), config.learned)

    def band_weights(self) -> Tensor:
        """Weights `[F, S, R]` of every band, lowest first."""
        return self.table()[:, None].expand(-1, self.sources, -1)

    def weights(self) -> Tensor:
        """Average of the bands' weights, `[S, R]`."""
        return self.band_weights().mean(dim=0)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        shares = share_among_active(self.table(), active).to(h.dtype)
        parts = (one * shares[:, index, None] for index, one in enumerate(h.unbind(dim=1)))
        return reduce(torch.add, parts)


@BOTTLENECK_FUSION.register("conv", summary="3x3 convolution over all features (a documented negative result)")
class BottleneckConv(BottleneckFusion):
    """Convolution over the stacked features, starting as the mean; costly, and no better than weights."""

    weight_kind: WeightKind = "implicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")
    kernel: Tensor

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__(len(shape.sources))
        width = shape.channels
        kernel = torch.zeros(width, len(shape.n_fft), width, 3, 3)
        kernel[:, :, :, 1, 1] = torch.eye(width)[:, None] * favoured_logits(config, shape.n_fft).softmax(dim=0)[:, None]
        keep_weights(self, "kernel", kernel, config.learned)

    def weights(self) -> Tensor:
        """Share of kernel energy: implicit, not a mixing weight."""
        energy = self.kernel.square().sum(dim=(0, 2, 3, 4))
        return (energy / energy.sum()).expand(self.sources, -1)

    def forward(self, h: Tensor, active: Tensor) -> Tensor:
        return F.conv2d((h * active[:, None, None, None]).flatten(1, 2), self.kernel.flatten(1, 2), padding=1)


def zero_absent(y: Tensor, active: Tensor) -> Tensor:
    """Silence the branches that are switched off: `[B, R, S, C, T]`."""
    return y * active[:, None, None, None]


class TimeUNet(nn.Module):
    """U-Net over time whose first layer takes all resolutions at once ("TimeUNet2D")."""

    def __init__(self, count: int, rows: int, config: FusionConfig, last_active: bool) -> None:
        super().__init__()
        if len(config.widths) != len(config.strides) or not config.widths:
            raise ConfigError(f"widths {config.widths} and strides {config.strides} must be equally long, 1 or more")
        if config.kernel_size < max(config.strides):
            raise ConfigError(f"kernel_size {config.kernel_size} is below the largest stride {max(config.strides)}")
        self.strides = config.strides
        self.last_active = last_active
        self.kernel_size = size = config.kernel_size
        widths = config.widths
        self.down = nn.ModuleList(
            nn.Conv2d(rows if i == 0 else widths[i - 1], width, (count if i == 0 else 1, size), (1, config.strides[i]))
            for i, width in enumerate(widths)
        )
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(width * (1 if i == len(widths) - 1 else 2), widths[i - 1] if i else rows, size, stride)
            for i, (width, stride) in reversed(list(enumerate(zip(widths, config.strides, strict=True))))
        )

    def forward(self, x: Tensor) -> Tensor:
        """`[B, rows, R, T]` -> `[B, rows, T]`."""
        skips: list[Tensor] = []
        lengths: list[int] = []
        size = self.kernel_size
        for layer, stride in zip(self.down, self.strides, strict=True):
            length = x.shape[-1]
            lengths.append(length)
            steps = max(1, -(-length // stride))
            need = (steps - 1) * stride + size
            left = (size - stride) // 2
            x = F.gelu(layer(F.pad(x, (left, need - length - left))))
            skips.append(x[:, :, 0])
        y = skips.pop()
        for layer, stride in zip(self.up, reversed(self.strides), strict=True):
            left = (size - stride) // 2
            length = lengths.pop()
            y = layer(y)[..., left : left + length]
            if skips:
                y = torch.cat([F.gelu(y), skips.pop()], dim=1)
        return F.gelu(y) if self.last_active else y


@OUTPUT_FUSION.register("unet", summary="TimeUNet2D with a residual to the mean, linear last layer")
class UNetFusion(Fusion):
    """Mean of the branches plus what a U-Net over time adds to it; the last layer starts at zero."""

    honours: tuple[Setting, ...] = ()

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        self.sources, self.count = len(shape.sources), len(shape.n_fft)
        self.net = TimeUNet(self.count, self.sources * shape.channels, config, last_active=False)
        start_at_zero(self.net.up[-1])

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        y = zero_absent(y, active)
        change = self.net(y.permute(0, 2, 3, 1, 4).flatten(1, 2))
        return y.mean(dim=1) + change.unflatten(1, (self.sources, -1)).to(y.dtype)


@OUTPUT_FUSION.register("unet_notes", summary="TimeUNet2D as first tried: GELU everywhere, no residual (fails)")
class UNetNotesFusion(Fusion):
    """The U-Net without residual and with GELU on its last layer, which cannot give samples below -0.17."""

    honours: tuple[Setting, ...] = ()

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        self.sources = len(shape.sources)
        self.net = TimeUNet(len(shape.n_fft), self.sources * shape.channels, config, last_active=True)

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        rows = zero_absent(y, active).permute(0, 2, 3, 1, 4).flatten(1, 2)
        return self.net(rows).unflatten(1, (self.sources, -1))


@OUTPUT_FUSION.register("progressive", summary="R -> ceil(R/2) -> ... -> 1 with GroupNorm and residuals")
class ProgressiveFusion(Fusion):
    """Neighbouring resolutions are merged pair by pair; every stage starts as their weighted mean."""

    honours: tuple[Setting, ...] = ()

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        self.sources = len(shape.sources)
        counts = [1] * len(shape.n_fft)
        stages = []
        while len(counts) > 1:
            stages.append(MergeStage(counts, self.sources * shape.channels, config.kernel_size | 1))
            counts = [sum(counts[i : i + 2]) for i in range(0, len(counts), 2)]
        self.stages = nn.ModuleList(stages)

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        x = zero_absent(y, active).permute(0, 2, 3, 1, 4).flatten(1, 2)
        for stage in self.stages:
            x = stage(x)
        return x[:, :, 0].unflatten(1, (self.sources, -1))


class MergeStage(nn.Module):
    """Merge neighbouring entries: weighted mean plus a gated grouped convolution that starts at zero.

    `size`: time kernel in samples, odd.
    """

    merge: Tensor

    def __init__(self, counts: list[int], rows: int, size: int) -> None:
        super().__init__()
        out = -(-len(counts) // 2)
        merge = torch.zeros(out, len(counts))
        for index, count in enumerate(counts):
            merge[index // 2, index] = count / sum(counts[index // 2 * 2 : index // 2 * 2 + 2])
        self.register_buffer("merge", merge, persistent=False)
        self.hidden = nn.Conv1d(rows * len(counts), rows * 2 * out, size, padding=size // 2, groups=rows)
        self.norm = nn.GroupNorm(rows, rows * 2 * out)
        self.last = nn.Conv1d(rows * 2 * out, rows * out, 1, groups=rows)
        start_at_zero(self.last)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, rows, R, T]` -> `[B, rows, ceil(R / 2), T]`."""
        rows, count = x.shape[1:3]
        kept = torch.einsum("bcrt,or->bcot", x, self.merge.to(x.dtype))
        change = self.last(F.gelu(self.norm(self.hidden(x.flatten(1, 2)))))
        return kept + change.unflatten(1, (rows, -(-count // 2))).to(kept.dtype)


@OUTPUT_FUSION.register("band_weights", summary="S x R softmax weights per frequency band of an identity filter bank")
class BandWeights(Fusion):
    """Source weights that differ between bands, so long windows may rule the lows and short ones the highs."""

    weight_kind: WeightKind = "explicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")
    bank: Tensor

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        self.sources, self.count = len(shape.sources), len(shape.n_fft)
        bank = identity_bank(config.bands_hz, config.band_taps, shape.sample_rate_hz)
        self.register_buffer("bank", bank, persistent=False)
        logits = favoured_logits(config, shape.n_fft).expand(len(bank) * self.sources, -1)
        self.table = SoftmaxTable(logits, torch.ones_like(logits, dtype=torch.bool), config.learned)

    def band_weights(self) -> Tensor:
        """Weights `[K, S, R]` of every band, lowest first."""
        return self.table().unflatten(0, (-1, self.sources))

    def weights(self) -> Tensor:
        return self.band_weights().mean(dim=0)

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        kernels = torch.einsum("ksr,kt->srt", share_among_active(self.band_weights(), active), self.bank)
        taps, length = kernels.shape[-1], y.shape[-1]
        size = fast_length(length + taps - 1)
        parts = (
            torch.fft.rfft(y[:, index], n=size) * torch.fft.rfft(kernels[:, None, index], n=size)
            for index in range(self.count)
        )
        wave = torch.fft.irfft(reduce(torch.add, parts), n=size)
        return wave[..., taps // 2 : taps // 2 + length]


def fast_length(length: int) -> int:
    """Smallest number >= length (1 or more) with only the prime factors 2, 3 and 5, which transforms quickly."""
    best = 1 << (length - 1).bit_length()
    five = 1
    while five < best:
        three = five
        while three < best:
            quotient = -(-length // three)
            best = min(best, three << max(0, (quotient - 1).bit_length()))
            three *= 3
        five *= 5
    return best


@OUTPUT_FUSION.register("gated", summary="weights that move with time, from a small network over branch energies")
class GatedFusion(Fusion):
    """Softmax weights per source, resolution and moment."""

    honours: tuple[Setting, ...] = ("favour_n_fft",)

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        self.sources, self.count = len(shape.sources), len(shape.n_fft)
        self.hop = config.gate_hop_samples
        self.net: nn.Sequential | None = None
        logits = favoured_logits(config, shape.n_fft)
        if self.count == 1:
            return
        entries = self.sources * self.count
        first = nn.Conv1d(entries, config.gate_channels, 5, padding=2)
        last = nn.Conv1d(config.gate_channels, entries, 1)
        start_at_zero(last)
        last.bias = nn.Parameter(logits.repeat(self.sources))
        self.net = nn.Sequential(first, nn.GELU(), last)

    def moving_weights(self, y: Tensor, active: Tensor) -> Tensor:
        """Weights at every sample, `[B, R, S, T]`, from waves `[B, R, S, C, T]`."""
        length = y.shape[-1]
        if self.net is None:
            return torch.ones_like(y[:, :, :, 0])
        padded = F.pad(y.square().mean(dim=3), (0, -length % self.hop))
        energy = padded.unflatten(-1, (-1, self.hop)).mean(dim=-1)
        level = torch.log10(energy + 1e-8).transpose(1, 2).flatten(1, 2)
        logits = self.net(level).float().unflatten(1, (self.sources, self.count)).transpose(1, 2)
        frames = (logits - torch.where(active > 0, 0.0, torch.inf)[:, None, None]).softmax(dim=1)
        moving = F.interpolate(frames.flatten(1, 2), size=padded.shape[-1], mode="linear", align_corners=False)
        return moving.unflatten(1, (self.count, self.sources))[..., :length]

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        if not bool(active.any()):
            return torch.zeros_like(y[:, 0])
        y = zero_absent(y, active)
        return (y * self.moving_weights(y, active)[:, :, :, None]).sum(dim=1)
