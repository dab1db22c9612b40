"""Ways to fuse resolutions, by name: at the bottleneck and at the output.

Every output fusion takes the branches' waves `[B, R, S, C, T]` and returns `[B, S, C, T]`; every bottleneck fusion
takes features on one grid `[B, R, D, F, N]` and returns `[B, D, F, N]`. `active` holds one 0/1 per resolution: weighted
fusions share the weight of absent branches among the rest, all others see zeros in their place.
`networks.py` holds the heavier output fusions, `bottleneck.py` those of the bottleneck; all register here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, get_args

import torch
from pydantic import PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.catalogue import Catalogue
from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError


def identity_bank(edges_hz: Sequence[float], taps: int, sample_rate_hz: int) -> Tensor:
    """Impulse responses of the bands below, between and above the edges; their sum is a unit impulse.

    `edges_hz`: rising cut-off frequencies, between 0 and half the sample rate; K - 1 of them. `taps`: length of the
    filters in samples, odd; the impulse of the sum sits in the middle. Returns `[K, taps]`, lowest band first. Raises
    ConfigError on edges that do not rise inside the range, or an even number of taps.

    Source: windowed-sinc design with a Hann window (Oppenheim & Schafer, section 7.5).
    """
    edges = list(edges_hz)
    if edges != sorted(set(edges)) or (edges and not 0 < edges[0] <= edges[-1] < sample_rate_hz / 2):
        raise ConfigError(f"bands_hz {edges} must rise and lie between 0 and {sample_rate_hz / 2:g} Hz")
    if taps % 2 == 0 or taps < 3:
        raise ConfigError(f"band_taps is {taps}; an odd number of 3 or more is needed")
    time = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = torch.hann_window(taps + 2, periodic=False, dtype=torch.float64)[1:-1]
    impulse = torch.zeros(taps, dtype=torch.float64)
    impulse[taps // 2] = 1
    steps = [torch.zeros_like(impulse)]
    for edge in edges:
        ratio = 2 * edge / sample_rate_hz
        low = ratio * torch.sinc(ratio * time) * window
        steps.append(low / low.sum())
    steps.append(impulse)
    return torch.stack([high - low for low, high in pairwise(steps)]).float()


SHORTEST_BLOCK_SAMPLES = 64


def filter_and_sum(x: Tensor, kernel: Tensor) -> Tensor:
    """Correlate every row with its own filter and sum the rows of a group; what a grouped convolution computes.

    Blocks of about the filter's length are multiplied by the filter's banded matrix: twice the arithmetic, done by
    matrix products, which on a CPU is many times faster than a grouped convolution, above all backward.

    `x`: `[B, G, R, T]`, T >= 1. `kernel`: `[G, R, K]`, K odd; zeros are taken to lie around x. Returns `[B, G, T]`:
    y[t] = sum over r and k of kernel[r, k] x[r, t + k - K // 2]. Raises InputError if K is even or the shapes do not
    fit.
    """
    taps = kernel.shape[-1]
    if taps % 2 == 0 or kernel.dim() != 3 or x.dim() != 4 or x.shape[1:3] != kernel.shape[:2]:
        raise InputError(
            f"cannot filter {list(x.shape)} with {list(kernel.shape)}; [B, G, R, T] and [G, R, odd K] are needed"
        )
    batch, groups, rows, length = x.shape
    block = max(SHORTEST_BLOCK_SAMPLES, 1 << (taps.bit_length() - 1))
    num_blocks = -(-length // block)
    padded = F.pad(x, (taps // 2, num_blocks * block - length + taps // 2))
    matrices = _banded(kernel, block)
    total = x.new_zeros(groups, batch * num_blocks, block)
    for row in range(rows):
        # one row at a time: overlapping blocks hold every sample twice
        blocks = padded[:, :, row].unfold(-1, block + taps - 1, block).transpose(0, 1)
        total = torch.baddbmm(total, blocks.reshape(groups, batch * num_blocks, -1), matrices[:, row])
    return total.reshape(groups, batch, num_blocks * block)[..., :length].transpose(0, 1)


def _banded(kernel: Tensor, block: int) -> Tensor:
    """`[G, R, K]` -> `[G, R, block + K - 1, block]`, whose column l holds the filter from row l on."""
    span = block + kernel.shape[-1] - 1
    # Repeating the filter with one zero more than its matrix row is wide shifts it by one per row.
    skewed = F.pad(kernel, (0, block)).repeat(1, 1, block)[..., : block * span]
    return skewed.reshape(*kernel.shape[:2], block, span).transpose(-1, -2)


WeightKind = Literal["explicit", "implicit", "none"]
Setting = Literal["learned", "favour_n_fft", "allowed"]


class FusionConfig(Config):
    """How resolutions are fused. `learned: false`, `favour_n_fft` and `allowed` are refused where they mean nothing.

    `allowed`: resolutions each source may use (`source_weights` only); sources left out use all.
    """

    kind: str = "mean"
    learned: bool = True  # false freezes the starting weights, which are then no parameters
    favour_n_fft: int | None = None  # resolution that starts with more weight than the others; none starts uniform
    favour_logit: float = 1.0
    allowed: Mapping[str, tuple[int, ...]] = {}
    taps: PositiveInt = 129  # length of `conv`'s kernel in samples, odd
    widths: tuple[PositiveInt, ...] = (48, 96, 192)  # channels of the layers of `unet`
    strides: tuple[PositiveInt, ...] = (4, 4, 4)  # their strides in samples, as many
    kernel_size: PositiveInt = 8  # time kernel of `unet` and `progressive` in samples, at least the stride
    bands_hz: tuple[PositiveFloat, ...] = (250.0, 1000.0, 4000.0)  # edges between the bands of `band_weights`, rising
    band_taps: PositiveInt = 1025  # length of the band filters in samples, odd
    gate_hop_samples: PositiveInt = 1024  # distance between the time points of `gated`
    gate_channels: PositiveInt = 16  # hidden channels of `gated`


@dataclass(frozen=True)
class FusionShape:
    """What a fusion must know of its model."""

    n_fft: tuple[int, ...]  # window lengths of the branches, R of them
    sources: tuple[str, ...]  # names of the sources, S of them
    channels: int  # audio channels C at the output, or feature width D at the bottleneck
    sample_rate_hz: int
    average: bool = False  # the model's branches are full estimates, so `sum` divides by R
    bins: int = 0  # cells along frequency at the bottleneck, 0 at the output


class Fusion(nn.Module):
    """Base of all fusions: which weights it has, whether they are explicit, and which settings mean something."""

    weight_kind: WeightKind = "none"
    honours: tuple[Setting, ...] = ("learned",)

    def weights(self) -> Tensor | None:
        """Weight of every resolution per source, `[S, R]` (rows sum to 1 or 0), or None where there is none."""
        return None


BOTTLENECK_FUSION: Catalogue[Fusion] = Catalogue("bottleneck fusion")
OUTPUT_FUSION: Catalogue[Fusion] = Catalogue("output fusion")


def check_settings(catalogue: Catalogue[Fusion], config: FusionConfig) -> None:
    """Refuse an unknown kind, and settings that its kind would ignore.

    Raises ConfigError naming the setting and the kinds that use it.
    """

    def honours(kind: str) -> tuple[Setting, ...]:
        used: tuple[Setting, ...] = getattr(catalogue.get(kind), "honours", get_args(Setting))
        return used

    used = honours(config.kind)
    for setting in get_args(Setting):
        value = getattr(config, setting)
        if setting not in used and value != FusionConfig.model_fields[setting].default:
            able = ", ".join(kind for kind in catalogue.names() if setting in honours(kind)) or "none"
            refused = f"{catalogue.kind} {config.kind!r} cannot use {setting} {value!r}"
            raise ConfigError(f"{refused}; leave it out (kinds that can: {able})")


def favoured_logits(config: FusionConfig, n_fft: tuple[int, ...]) -> Tensor:
    """Starting logits `[R]`: zero, but for the favoured resolution."""
    logits = torch.zeros(len(n_fft))
    if config.favour_n_fft is not None:
        if config.favour_n_fft not in n_fft:
            raise ConfigError(f"favour_n_fft {config.favour_n_fft} is not among the resolutions {list(n_fft)}")
        logits[n_fft.index(config.favour_n_fft)] = config.favour_logit
    return logits


def share_among_active(weights: Tensor, active: Tensor) -> Tensor:
    """Give the weight of absent resolutions to the present ones.

    `weights`: `[S, R]`, rows sum to 1; `active`: `[R]`, 0 or 1. Returns `[S, R]`; a row without any weight left is
    zero.
    """
    kept = weights * active
    total = kept.sum(dim=-1, keepdim=True)
    return torch.where(total > 0, kept / total.clamp_min(torch.finfo(kept.dtype).tiny), torch.zeros_like(kept))


class SoftmaxTable(nn.Module):
    """Softmax weights `[rows, R]` over the allowed entries of each row, without parameters that could not matter.

    `logits`: starting values `[rows, R]`; `allowed`: `[rows, R]`, bool; `learned`: False keeps the starting values.
    """

    base: Tensor
    place: Tensor

    def __init__(self, logits: Tensor, allowed: Tensor, learned: bool) -> None:
        super().__init__()
        free = allowed & (allowed.sum(dim=1, keepdim=True) > 1)
        self.register_buffer("base", torch.where(allowed, 0.0, -torch.inf), persistent=False)
        self.register_buffer("place", free.flatten().nonzero().flatten(), persistent=False)
        values = logits[free]
        self.logits: Tensor | None
        if learned and values.numel():
            self.logits = nn.Parameter(values)
        else:
            self.logits = None
            self.base[free] = values

    def forward(self) -> Tensor:
        """Weights `[rows, R]`, each row summing to 1."""
        table = self.base
        if self.logits is not None:
            table = table.flatten().index_add(0, self.place, self.logits).view_as(table)
        return table.softmax(dim=-1)


def keep_weights(module: nn.Module, name: str, values: Tensor, learned: bool) -> None:
    """Give a module a parameter of this name, or where it is not learned a constant outside the state dict."""
    if learned:
        module.register_parameter(name, nn.Parameter(values))
    else:
        module.register_buffer(name, values, persistent=False)


def weighted_sum(y: Tensor, weights: Tensor) -> Tensor:
    """Sum over resolutions: `[B, R, S, C, T]` with weights `[S, R]` -> `[B, S, C, T]`."""
    # unbound, the branches' gradients are stacked once; indexed, each would fill a tensor of all branches with zeros
    first, *others = y.unbind(dim=1)
    total = first * weights[:, 0, None, None]
    for index, wave in enumerate(others, start=1):
        total = torch.addcmul(total, wave, weights[:, index, None, None].to(y.dtype))
    return total


@OUTPUT_FUSION.register("mean", summary="fixed uniform average")
class MeanFusion(Fusion):
    """Uniform average of the present branches."""

    weight_kind: WeightKind = "explicit"
    table: Tensor

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        count = len(shape.n_fft)
        self.register_buffer("table", torch.full((len(shape.sources), count), 1 / count), persistent=False)

    def weights(self) -> Tensor:
        """Weight of every resolution per source, `[S, R]`."""
        return self.table

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        """Fuse waves `[B, R, S, C, T]` of the resolutions in `active` `[R]` into `[B, S, C, T]`."""
        return weighted_sum(y, share_among_active(self.weights(), active))


@OUTPUT_FUSION.register("sum", summary="plain sum (divided by R under a mask head)")
class SumFusion(Fusion):
    """Plain sum of the branches.

    Source: Petermann et al. 2022, "The Cocktail Fork Problem", section 3 (multi-resolution sum).
    """

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        self.gain = 1 / len(shape.n_fft) if shape.average else 1.0

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        return self.gain * (y * active[:, None, None, None]).sum(dim=1)


class TableFusion(Fusion):
    """Weighted sum by a softmax table; the base of `weights` and `source_weights`."""

    weight_kind: WeightKind = "explicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")

    def __init__(self, table: SoftmaxTable, sources: int) -> None:
        super().__init__()
        self.table = table
        self.sources = sources

    def weights(self) -> Tensor:
        return self.table().expand(self.sources, -1)

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        return weighted_sum(y, share_among_active(self.weights(), active))


@OUTPUT_FUSION.register("weights", summary="R softmax scalars shared by all sources")
class SharedWeights(TableFusion):
    """One softmax weight per resolution."""

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        logits = favoured_logits(config, shape.n_fft)[None]
        table = SoftmaxTable(logits, torch.ones_like(logits, dtype=torch.bool), config.learned)
        super().__init__(table, len(shape.sources))


@OUTPUT_FUSION.register("source_weights", summary="S x R softmax scalars, optionally with allowed sets")
class SourceWeights(TableFusion):
    """One softmax weight per source and resolution."""

    honours: tuple[Setting, ...] = ("learned", "favour_n_fft", "allowed")

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        allowed = allowed_table(config, shape)
        logits = favoured_logits(config, shape.n_fft).expand(len(shape.sources), -1)
        super().__init__(SoftmaxTable(logits, allowed, config.learned), len(shape.sources))


def allowed_table(config: FusionConfig, shape: FusionShape) -> Tensor:
    """Which resolutions each source may use: bool `[S, R]`.

    Raises ConfigError on an unknown source or resolution, or an empty set.
    """
    table = torch.ones(len(shape.sources), len(shape.n_fft), dtype=torch.bool)
    for source, n_ffts in config.allowed.items():
        if source not in shape.sources:
            raise ConfigError(f"allowed names the source {source!r}; the model has {', '.join(shape.sources)}")
        if not n_ffts or not set(n_ffts) <= set(shape.n_fft):
            raise ConfigError(f"allowed[{source}] is {list(n_ffts)}; choose one or more of {list(shape.n_fft)}")
        table[shape.sources.index(source)] = torch.tensor([n in n_ffts for n in shape.n_fft])
    return table


@OUTPUT_FUSION.register("conv", summary="depthwise convolution over R x taps samples, no bias")
class ConvFusion(Fusion):
    """Depthwise convolution over resolutions and time, starting as the mean (or with the favoured weights)."""

    weight_kind: WeightKind = "implicit"
    honours: tuple[Setting, ...] = ("learned", "favour_n_fft")
    kernel: Tensor

    def __init__(self, config: FusionConfig, shape: FusionShape) -> None:
        super().__init__()
        if config.taps % 2 == 0:
            raise ConfigError(f"taps is {config.taps}; an odd number is needed")
        self.count, self.sources = len(shape.n_fft), len(shape.sources)
        rows = self.sources * shape.channels
        kernel = torch.zeros(rows, self.count, config.taps)
        kernel[:, :, config.taps // 2] = favoured_logits(config, shape.n_fft).softmax(dim=0)
        keep_weights(self, "kernel", kernel, config.learned)

    def weights(self) -> Tensor:
        """Share of kernel energy, averaged over the channels of a source: implicit, not a mixing weight."""
        energy = self.kernel.square().sum(dim=-1).unflatten(0, (self.sources, -1)).mean(dim=1)
        return energy / energy.sum(dim=-1, keepdim=True)

    def forward(self, y: Tensor, active: Tensor) -> Tensor:
        rows = (y * active[:, None, None, None]).permute(0, 2, 3, 1, 4).flatten(1, 2)
        out = filter_and_sum(rows, self.kernel.to(rows.dtype))
        return out.unflatten(1, (self.sources, -1))
