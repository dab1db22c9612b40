"""Band split inside every resolution: bands to features on one grid of bands and frames, and back to masks per band."""

from __future__ import annotations

from itertools import accumulate, groupby
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.catalogue import Catalogue, unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.dsp.stft import frame_count, istft, stft
from polyres.nn.attention import ATTENTION, Attention, SparseConfig
from polyres.nn.body import BODY, Body, BodyConfig, BodyShape
from polyres.nn.branches import Branch, Normalised, complex_as_channels, normalise
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
        length, width = x.shape[2:]
        rows = x.flatten(0, 1) + line_positions(length, width, MAX_PERIOD, x.device).to(x.dtype)
        return cast(Tensor, self.attention(rows, rows)).view(x.shape)


class BandAttention(LineAttention):
    """The same along bands."""

    def forward(self, x: Tensor) -> Tensor:
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


MIN_BINS = 2
"""Bands with fewer bins than this at a resolution share one linear layer with their upper neighbours."""

COMPRESSION = 0.3
"""Power to which magnitudes are raised before the first layer; it brings 60 dB into 18."""

POWER_FLOOR = 1e-6


class Run(NamedTuple):
    """Neighbouring units of equal size; a unit is the bands that share a linear layer at one resolution."""

    units: int
    bands: int
    bins: int


def band_edges_hz(bands: tuple[tuple[int, float], ...], sample_rate_hz: int) -> list[float]:
    """Lower edges of the bands that begin below half the sample rate."""
    widths = [width for count, width in bands for _ in range(count)]
    return [edge for edge in accumulate(widths[:-1], initial=0.0) if edge < sample_rate_hz / 2]


def band_runs(edges_hz: list[float], n_fft: int, sample_rate_hz: int) -> list[Run]:
    """Lay the bands over the bins of a resolution."""
    bins = n_fft // 2
    edges = [min(round(edge * n_fft / sample_rate_hz), bins) for edge in edges_hz] + [bins]
    units: list[tuple[int, int]] = []
    bands, start = 0, 0
    for edge in edges[1:]:
        bands += 1
        if edge - start >= MIN_BINS:
            units.append((bands, edge - start))
            bands, start = 0, edge
    if bands:  # too few bins are left at the top
        below, width = units.pop() if units else (0, 0)
        units.append((below + bands, width + bins - start))
    return [Run(len(list(same)), *size) for size, same in groupby(units)]


class BandLinear(nn.Module):
    """Linear layers that differ from band to band, as one batched product."""

    def __init__(self, count: int, ins: int, outs: int) -> None:
        super().__init__()
        bound = ins**-0.5
        self.weight = nn.Parameter(torch.empty(count, ins, outs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.zeros(count, 1, outs))

    def forward(self, x: Tensor) -> Tensor:
        """`[count, rows, ins]` -> `[count, rows, outs]`."""
        return torch.baddbmm(self.bias.to(x.dtype), x, self.weight.to(x.dtype))


class BandState(NamedTuple):
    """What a band branch keeps between encoding and decoding."""

    spec: Tensor
    std: Tensor
    own: Tensor


class BandBranch(Branch):
    """Bands of one resolution to features, and features to masks (or spectra) of every source.

    Where frames are shorter than those of the common grid, several go side by side into the linear layers; where they
    are longer, each is held. Frames start at multiples of their hop at all resolutions, so cells cover the same time.

    Source: Luo & Yu 2023, "Music Source Separation with Band-split RNN", section II, for one resolution.
    """

    def __init__(self, config: BodyConfig, shape: BodyShape, index: int, width: int) -> None:
        super().__init__()
        self.n_fft, self.hop = shape.n_fft[index], shape.hops[index]
        self.frame_hop, self.width, self.hidden = config.frame_hop, width, config.mask_channels
        self.fold, self.unfold = max(self.frame_hop // self.hop, 1), max(self.hop // self.frame_hop, 1)
        self.sources, self.served, self.channels = shape.sources, shape.served[index], shape.audio_channels
        self.masking, self.inverse = shape.masking, shape.inverse
        edges = band_edges_hz(config.bands, shape.sample_rate_hz)
        self.runs = band_runs(edges, self.n_fft, shape.sample_rate_hz)
        self.split = nn.ModuleList(
            BandLinear(run.units, run.bins * self.fold * 3 * self.channels, run.bands * width) for run in self.runs
        )
        self.norm = nn.LayerNorm(width)
        sources = len(self.served)
        self.norm_mixed = nn.LayerNorm(width) if sources else None
        self.merge = nn.Linear(2 * width, sources * self.hidden) if sources else None
        self.masks = nn.ModuleList(
            BandLinear(run.units * sources, run.bands * self.hidden, run.bins * self.fold * 2 * self.channels)
            for run in self.runs
            if sources
        )

    @property
    def last(self) -> nn.Module:
        """What gives the masks or spectra; under masks it starts at zero."""
        return self.masks

    def encode(self, mix: Tensor) -> tuple[Tensor, BandState]:
        """`[B, C, T]` -> features `[B, D, K, N]` of K bands and the state `decode` needs."""
        spec = stft(mix, self.n_fft, self.hop)
        values = compressed(spec)
        frames, wanted = spec.shape[-1], frame_count(mix.shape[-1], self.frame_hop)
        x = F.pad(values.value, (0, -frames % self.fold)).unflatten(-1, (-1, self.fold))
        parts, low = [], 0
        for run, layer in zip(self.runs, self.split, strict=True):
            high = low + run.units * run.bins
            cells = x[:, :, low:high].unflatten(2, (run.units, run.bins)).permute(2, 0, 4, 1, 3, 5)
            y = layer(cells.reshape(run.units, -1, layer.weight.shape[1]))
            y = y.view(run.units, mix.shape[0], -1, run.bands, self.width)
            parts.append(y.permute(1, 0, 3, 2, 4).flatten(1, 2))
            low = high
        joined = torch.cat(parts, dim=1).repeat_interleave(self.unfold, dim=2)
        own = self.norm(joined[:, :, :wanted])
        return own.permute(0, 3, 1, 2), BandState(spec, values.std, own)

    def decode(self, x: Tensor, state: BandState, length_samples: int) -> Tensor:
        """Features `[B, D, K, N]` -> waves `[B, S, C, T]`; zeros for sources that this resolution does not serve."""
        if self.merge is None or self.norm_mixed is None:
            return x.new_zeros(len(x), self.sources, self.channels, length_samples, dtype=state.std.dtype)
        tokens = torch.cat([self.norm_mixed(x.permute(0, 2, 3, 1)), state.own], dim=-1)
        batch, bands, frames, _ = tokens.shape
        hidden = F.gelu(self.merge(tokens))
        if self.unfold > 1:
            hidden = F.pad(hidden, (0, 0, 0, -frames % self.unfold)).unflatten(2, (-1, self.unfold)).mean(dim=3)
        sources = len(self.served)
        hidden = hidden.unflatten(-1, (sources, -1)).permute(1, 3, 0, 2, 4)
        parts, low = [], 0
        for run, layer in zip(self.runs, self.masks, strict=True):
            high = low + run.units * run.bands
            part = hidden[low:high].unflatten(0, (run.units, run.bands)).permute(0, 2, 3, 4, 1, 5)
            y = layer(part.reshape(run.units * sources, -1, layer.weight.shape[1]))
            y = y.view(run.units, sources, batch, -1, self.channels, self.fold, run.bins, 2)
            parts.append(y.permute(2, 1, 4, 3, 5, 0, 6, 7).flatten(5, 6).flatten(3, 4))
            low = high
        values = torch.cat(parts, dim=4)[:, :, :, : state.spec.shape[-1]].float()
        spec = self._spectra(torch.view_as_complex(values).transpose(-1, -2), state)
        waves = istft(spec, self.hop, length_samples, self.inverse)
        if len(self.served) == self.sources:
            return waves
        place = torch.tensor(self.served, device=waves.device)
        return waves.new_zeros(batch, self.sources, *waves.shape[2:]).index_copy(1, place, waves)

    def _spectra(self, values: Tensor, state: BandState) -> Tensor:
        """What the last layer gives `[B, S', C, F, N]`, as spectra of the sources."""
        if self.masking:
            return (values + 1 / self.sources) * state.spec[:, None]
        return values * state.std[:, None]


def compressed(spec: Tensor) -> Normalised:
    """Real and imaginary parts and magnitudes of a spectrogram, levelled and compressed.

    `spec`: complex `[B, C, F, N]`. Returns `[B, 3C, F, N]`, and the deviation that every item was divided by.
    """
    level = normalise(complex_as_channels(spec))
    pairs = level.value.unflatten(1, (-1, 2))
    power = pairs.square().sum(dim=2, keepdim=True) + POWER_FLOOR
    values = torch.cat([pairs * power ** ((COMPRESSION - 1) / 2), power ** (COMPRESSION / 2)], dim=2)
    return level._replace(value=values.flatten(1, 2))


@BODY.register("band_split", summary="bands of all resolutions on one grid, mixed over time and bands by turns")
class BandSplitBody(Body):
    """Bands of every resolution as features, fused per band, mixed, and turned into masks per band."""

    @property
    def width(self) -> int:
        """Channels D of the features."""
        return self.shape.unet.channels

    def check(self) -> None:
        """Refuse hops that do not fit the common frames, and mixing that there is not."""
        for n_fft, hop in zip(self.shape.n_fft, self.shape.hops, strict=True):
            if max(hop, self.config.frame_hop) % min(hop, self.config.frame_hop):
                raise ConfigError(
                    f"body.frame_hop {self.config.frame_hop} and the hop {hop} of n_fft {n_fft} do not fit; "
                    "one must be a multiple of the other"
                )
        check_mixing(self.config, self.width)

    def bins(self, index: int) -> int:
        """Number of bands K."""
        return len(band_edges_hz(self.config.bands, self.shape.sample_rate_hz))

    def edges_hz(self) -> tuple[float, ...]:
        """Edges between the bands."""
        return tuple(band_edges_hz(self.config.bands, self.shape.sample_rate_hz)[1:])

    def frames(self, index: int, length_samples: int) -> int:
        """Frames of the common grid."""
        return frame_count(length_samples, self.config.frame_hop)

    def branch(self, index: int) -> Branch:
        """Build the branch of a resolution."""
        return BandBranch(self.config, self.shape, index, self.width)

    def mixer(self) -> nn.Module:
        """Build the blocks of time and band mixing."""
        return BandMixer(self.config, self.width, self.bins(0))
