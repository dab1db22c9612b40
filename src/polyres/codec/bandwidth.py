"""Extend the bandwidth of decoded waves and streams: make the band above a cutoff, keep the one below."""

from __future__ import annotations

import math

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from polyres.audio.resample import StreamResampler, Wave, resampled_length
from polyres.codec.windows import Tensors, WindowJoin, WindowPlan
from polyres.core.config import Config
from polyres.core.errors import InputError
from polyres.dsp.overlap import Fifo
from polyres.dsp.stft import istft, stft

_QUIET = 1e-4
_START_NEPER = -4.0  # generated magnitudes before training, below the band they are made from
_MOST_NEPER = 3.0


class BandwidthConfig(Config):
    """Settings of the generator of the band above a cutoff."""

    sample_rate_hz: int = Field(default=44100, ge=2000)  # of what goes in (resampled from the low rate) and comes out
    cutoff_hz: float = Field(default=7500.0, gt=0)  # up to where the input is trusted, at most half of the low rate
    n_fft: int = Field(default=1024, ge=64)  # window of the transform, in samples; the hop is a quarter
    width: int = Field(default=128, ge=1)  # channels inside
    depth: int = Field(default=4, ge=1)  # residual blocks

    @model_validator(mode="after")
    def _fits(self) -> BandwidthConfig:
        """Refuse a cutoff that leaves no band below or above it."""
        if self.n_fft % 4:
            raise ValueError(f"n_fft {self.n_fft} must be a multiple of 4")
        if not 8 <= self.low_bins <= self.n_fft // 2 - 1:
            raise ValueError(
                f"cutoff_hz {self.cutoff_hz:g} must leave at least 8 bins of {self.sample_rate_hz / self.n_fft:.3g} Hz "
                f"below and one above it, up to {self.sample_rate_hz / 2:g} Hz"
            )
        return self

    @property
    def low_bins(self) -> int:
        """Bins below the cutoff."""
        return math.floor(self.cutoff_hz * self.n_fft / self.sample_rate_hz)

    @property
    def hop_samples(self) -> int:
        """Samples between frames."""
        return self.n_fft // 4

    @property
    def context_samples(self) -> int:
        """How many samples on each side a sample of the result depends on: convolutions, and two transforms."""
        return (1 + sum(dilation(index) for index in range(self.depth)) + 8) * self.hop_samples


def dilation(index: int) -> int:
    """Frames between the taps of a block."""
    return 2 ** (index % 4)


def low_band(wave: Tensor, config: BandwidthConfig) -> Tensor:
    """Return the band below the cutoff, by a mask on windowed spectra: `wave` `[..., T]`."""
    hop = config.hop_samples
    spectrum = stft(wave, config.n_fft, hop)
    mask = (torch.arange(config.n_fft // 2, device=wave.device) < config.low_bins).to(wave.dtype)
    return istft(spectrum * mask[:, None], hop, wave.shape[-1])


def copy_low_band(generated: Tensor, decoded: Tensor, config: BandwidthConfig) -> Tensor:
    """Replace the band of `generated` below the cutoff by that of `decoded`; all `[..., T]`."""
    return generated + low_band(decoded - generated, config)


def extend(network: BandwidthExtender, decoded: Tensor) -> Tensor:
    """Replace the band of a decoded wave above the cutoff and keep the band below it: `decoded` `[B, C, T]`."""
    # A codec's own filter ends above the cutoff: both bands would stand there together.
    wide: Tensor = network(decoded)
    return wide - decoded + low_band(decoded, network.config)


class _Block(nn.Module):
    """A dilated convolution over time with a gate, added to what comes in."""

    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, 2 * width, 3, padding=dilation, dilation=dilation)
        self.out = nn.Conv1d(width, width, 1)

    def forward(self, value: Tensor) -> Tensor:
        return value + self.out(nn.functional.glu(self.conv(value), dim=1))


class BandwidthExtender(nn.Module):
    """Generates the high band from the low one, in proportion to the input level.

    Magnitudes and phases of the high bins come from convolutions over time on the logarithms of the low ones, with
    the level of each frame taken out before and put back after. Source of the shape (residual generator on a
    resampled skip): bandwidth extension of LTX-2's audio decoder; of magnitudes and phases with an inverse
    transform: Siuzdak 2024, Vocos.
    """

    def __init__(self, config: BandwidthConfig, seed: int = 0) -> None:
        """Build the generator."""
        super().__init__()
        self.config = config
        self.high_bins = config.n_fft // 2 - config.low_bins
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)  # not those of accelerators
            self.first = nn.Conv1d(config.low_bins, config.width, 3, padding=1)
            self.blocks = nn.Sequential(*(_Block(config.width, dilation(i)) for i in range(config.depth)))
            self.last = nn.Conv1d(config.width, 3 * self.high_bins, 1)
        with torch.no_grad():
            self.last.bias[: self.high_bins].fill_(_START_NEPER)

    def forward(self, skip: Tensor) -> Tensor:
        """Extend waves: `skip` `[B, C, T]`."""
        if skip.ndim != 3 or not skip.numel():
            raise InputError(f"waves [B, C, T] are extended, nothing empty, got {list(skip.shape)}")
        low, hop, length = self.config.low_bins, self.config.hop_samples, skip.shape[-1]
        spectrum = stft(skip.reshape(-1, length), self.config.n_fft, hop)
        magnitude = spectrum[:, :low].abs()
        level = magnitude[:, low // 2 :].square().mean(dim=1, keepdim=True).sqrt()
        heard = (magnitude / level.clamp_min(torch.finfo(level.dtype).tiny)).clamp_min(_QUIET).log()
        made = self.last(self.blocks(self.first(heard)))
        size, real, imaginary = made.split(self.high_bins, dim=1)
        phase = torch.atan2(imaginary, real)
        high = torch.polar(level * size.clamp_max(_MOST_NEPER).exp(), phase)
        whole = torch.cat([torch.zeros_like(spectrum[:, :low]), high], dim=1)
        added = istft(whole, hop, length).reshape(skip.shape)
        return copy_low_band(skip + added, skip, self.config)


WINDOW_HOPS = 768
"""About 4.5 s of 44.1 kHz."""


class BandStream:
    """Resamples a stream and extends its bandwidth in bounded memory.

    Windows begin at frames of the generator and have all the context that it looks at, so that the result does not
    depend on how the stream is cut.
    """

    def __init__(self, network: BandwidthExtender, in_hz: int, out_hz: int, channels: int, length_samples: int) -> None:
        """Start a stream of `length_samples` at `in_hz`, of which samples at `out_hz` come out."""
        self._network, config = network, network.config
        self._hop = config.hop_samples
        self._up = StreamResampler(in_hz, config.sample_rate_hz, channels)
        self._down = StreamResampler(config.sample_rate_hz, out_hz, channels)
        self._left = resampled_length(length_samples, in_hz, config.sample_rate_hz)
        total = -(-self._left // self._hop)
        context = -(-config.context_samples // self._hop)
        plan = WindowPlan(total, max(WINDOW_HOPS, 4 * context), context)
        self._join = WindowJoin(self._run, plan)
        self._fifo = Fifo()

    def push(self, block: Wave) -> Wave:
        """Take a block `[C, n]` float32 and return the samples `[C, m]` that are ready."""
        self._fifo.push(self._up.push(block))
        return self._down.push(self._extended())

    def finish(self) -> Wave:
        """End the signal and return its rest."""
        self._fifo.push(self._up.finish())
        rest = self._fifo.length % self._hop
        if rest:
            self._fifo.push(np.zeros((self._down.channels, self._hop - rest), np.float32))
        return np.concatenate([self._down.push(self._extended()), self._down.finish()], axis=1)

    def _extended(self) -> Wave:
        """Extend the whole frames that are there."""
        hops = self._fifo.length // self._hop
        done: list[Tensor] = []
        if hops:
            wave = torch.from_numpy(self._fifo.take(hops * self._hop))
            done = [piece["wave"][0] for piece in self._join.push({"wave": wave[None]}, hops)]
        joined = torch.cat(done, dim=-1)[:, : self._left] if done else torch.zeros(self._down.channels, 0)
        self._left -= joined.shape[-1]
        return joined.contiguous().numpy()

    def _run(self, window: Tensors) -> Tensors:
        device = self._network.last.weight.device
        with torch.no_grad():
            return {"wave": extend(self._network, window["wave"].to(device)).cpu()}


def way_out(
    network: BandwidthExtender | None, in_hz: int, out_hz: int, channels: int, length_samples: int
) -> StreamResampler | BandStream:
    """Choose between plain resampling and bandwidth extension for decoded samples on their way to the file's rate."""
    if network is None or out_hz <= in_hz:
        return StreamResampler(in_hz, out_hz, channels)
    return BandStream(network, in_hz, out_hz, channels, length_samples)
