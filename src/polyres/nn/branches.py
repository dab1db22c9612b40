"""The two kinds of U-Net branch: one per STFT resolution, and one on the waveform."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.dsp.stft import Inverse, istft, stft
from polyres.nn.layers import FrequencyEmbedding, ResidualDilated, gated_convolution, optional_norm

EPSILON = 1e-5


@dataclass(frozen=True)
class UNetShape:
    """Sizes shared by all branches of one separator; see `SeparatorConfig` for their meaning."""

    channels: int
    growth: float
    depth: int
    kernel_size: int
    stride: int
    context: int
    norm_starts: int
    norm_groups: int
    dconv_mode: int
    dconv_depth: int
    dconv_compress: int
    dconv_init: float

    def widths(self) -> list[int]:
        """Channels after each encoder layer, outermost first."""
        return [int(self.channels * self.growth**i) for i in range(self.depth)]


class Encoder(nn.Module):
    """Strided convolution, GELU, residual dilated convolutions, gated 1x1 convolution.

    `index`: layer number, 0 outermost; `over_frequency`: stride along F of `[B, D, F, N]` instead of along T of
    `[B, D, T]`.
    """

    def __init__(self, channels_in: int, channels_out: int, shape: UNetShape, index: int, over_frequency: bool) -> None:
        super().__init__()
        size, stride = shape.kernel_size, shape.stride
        pad = (size - stride) // 2
        if over_frequency:
            self.conv: nn.Module = nn.Conv2d(channels_in, channels_out, (size, 1), (stride, 1), (pad, 0))
            self.rewrite: nn.Module = nn.Conv2d(channels_out, 2 * channels_out, 1)
        else:
            self.conv = nn.Conv1d(channels_in, channels_out, size, stride, pad)
            self.rewrite = nn.Conv1d(channels_out, 2 * channels_out, 1)
        norm = index >= shape.norm_starts
        self.norm1 = optional_norm(channels_out, shape.norm_groups, norm)
        self.norm2 = optional_norm(2 * channels_out, shape.norm_groups, norm)
        self.dconv = residual_or_identity(channels_out, shape, bool(shape.dconv_mode & 1))
        self.stride = stride
        self.over_frequency = over_frequency

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D_in, F, N]` -> `[B, D_out, F / stride, N]`, or `[B, D_in, T]` -> `[B, D_out, ceil(T / stride)]`."""
        if not self.over_frequency:
            x = F.pad(x, (0, -x.shape[-1] % self.stride))
        y = self.dconv(F.gelu(self.norm1(self.conv(x))))
        return gated_convolution(self.rewrite, self.norm2, y)


class Decoder(nn.Module):
    """Mirror of `Encoder`: add the skip, gated convolution with context, transposed strided convolution.

    `index`: layer number, 0 outermost (no activation there); `over_frequency`: as in `Encoder`.
    """

    def __init__(self, channels_in: int, channels_out: int, shape: UNetShape, index: int, over_frequency: bool) -> None:
        super().__init__()
        size, stride, context = shape.kernel_size, shape.stride, shape.context
        norm = index >= shape.norm_starts
        # a norm counts the edges of the transposed convolution too, so they are cut off after it
        self.edge = (size - stride) // 2 if norm else 0
        pad = (size - stride) // 2 - self.edge
        if over_frequency:
            self.rewrite: nn.Module = nn.Conv2d(channels_in, 2 * channels_in, 1 + 2 * context, 1, context)
            self.conv_tr: nn.Module = nn.ConvTranspose2d(
                channels_in, channels_out, (size, 1), (stride, 1), padding=(pad, 0)
            )
        else:
            self.rewrite = nn.Conv1d(channels_in, 2 * channels_in, 1 + 2 * context, 1, context)
            self.conv_tr = nn.ConvTranspose1d(channels_in, channels_out, size, stride, padding=pad)
        self.norm1 = optional_norm(2 * channels_in, shape.norm_groups, norm)
        self.norm2 = optional_norm(channels_out, shape.norm_groups, norm)
        self.dconv = residual_or_identity(channels_in, shape, bool(shape.dconv_mode & 2))
        self.outermost = index == 0
        self.axis = -2 if over_frequency else -1

    def forward(self, x: Tensor, skip: Tensor, length: int | None = None) -> Tensor:
        """`[B, D_in, F, N]` -> `[B, D_out, F * stride, N]`, or `[B, D_in, T]` -> `[B, D_out, length]`."""
        y = self.dconv(gated_convolution(self.rewrite, self.norm1, x + skip))
        z = self.norm2(self.conv_tr(y))
        z = z.narrow(self.axis, self.edge, z.shape[self.axis] - 2 * self.edge)
        if length is not None:
            z = z[..., :length]
        return z if self.outermost else F.gelu(z)


def residual_or_identity(channels: int, shape: UNetShape, on: bool) -> nn.Module:
    """The residual dilated convolutions where `dconv_mode` asks for them."""
    if not on:
        return nn.Identity()
    return ResidualDilated(channels, shape.dconv_compress, shape.dconv_depth, shape.dconv_init)


class Normalised(NamedTuple):
    """A signal with mean 0 and deviation 1 per item, and how to go back."""

    value: Tensor
    mean: Tensor
    std: Tensor


def normalise(x: Tensor) -> Normalised:
    """Shift and scale every item of `[B, ...]` over all its other axes."""
    dims = tuple(range(1, x.dim()))
    if x[0].numel() > 1:
        std, mean = torch.std_mean(x, dim=dims, keepdim=True)
    else:
        std, mean = torch.zeros_like(x), x
    return Normalised((x - mean) / (EPSILON + std), mean, std)


class Branch(nn.Module, ABC):
    """Base of all branches on a spectrogram: one half before the shared bottleneck, one behind it."""

    @abstractmethod
    def encode(self, mix: Tensor) -> tuple[Tensor, Any]:
        """`[B, C, T]` -> bottleneck features `[B, D, F', N']` and the state `decode` needs."""

    @abstractmethod
    def decode(self, x: Tensor, state: Any, length_samples: int) -> Tensor:
        """Bottleneck features `[B, D, F', N']` -> waves `[B, S, C, T]`."""

    @property
    @abstractmethod
    def last(self) -> nn.Module:
        """What gives the masks or spectra; under masks it starts at zero."""


class FrequencyState(NamedTuple):
    """What a frequency branch keeps between encoding and decoding."""

    spec: Tensor
    mean: Tensor
    std: Tensor
    skips: tuple[Tensor, ...]


class FrequencyBranch(Branch):
    """U-Net over the spectrogram of one resolution.

    `n_fft`: window length in samples. `hop_length`: frame distance in samples. `inverse`: inverse STFT, see
    `polyres.dsp.stft.istft`. `embedding`: (gain, boost, smooth) of the frequency embedding; gain 0 leaves it out.

    Source: Défossez 2021, section 3; mask as in Williamson et al. 2016, "Complex ratio masking", eq. 5.
    """

    def __init__(
        self,
        n_fft: int,
        hop_length: int,
        shape: UNetShape,
        sources: int,
        audio_channels: int,
        masking: bool,
        inverse: Inverse,
        embedding: tuple[float, float, bool],
    ) -> None:
        super().__init__()
        self.n_fft, self.hop_length = n_fft, hop_length
        self.sources, self.masking = sources, masking
        self.inverse: Inverse = inverse
        widths = shape.widths()
        ins = [2 * audio_channels, *widths[:-1]]
        outs = [2 * audio_channels * sources, *widths[:-1]]
        self.encoder = nn.ModuleList(Encoder(ins[i], widths[i], shape, i, True) for i in range(shape.depth))
        self.decoder = nn.ModuleList(Decoder(widths[i], outs[i], shape, i, True) for i in reversed(range(shape.depth)))
        gain, boost, smooth = embedding
        bins = n_fft // 2 // shape.stride
        self.embedding = FrequencyEmbedding(bins, widths[0], gain, boost, smooth) if gain else nn.Identity()

    @property
    def last(self) -> nn.Module:
        outermost: Decoder = self.decoder[-1]  # type: ignore[assignment]
        return outermost.conv_tr

    def encode(self, mix: Tensor) -> tuple[Tensor, FrequencyState]:
        """`[B, C, T]` -> bottleneck features `[B, D, F', N]` and the state `decode` needs."""
        spec = stft(mix, self.n_fft, self.hop_length)
        x, mean, std = normalise(complex_as_channels(spec))
        x = x.contiguous(memory_format=torch.channels_last)
        skips = []
        for index, layer in enumerate(self.encoder):
            x = layer(x)
            if index == 0:
                x = self.embedding(x)
            skips.append(x)
        return x, FrequencyState(spec, mean, std, tuple(skips))

    def decode(self, x: Tensor, state: FrequencyState, length_samples: int) -> Tensor:
        """Bottleneck features `[B, D, F', N]` -> waves `[B, S, C, T]`."""
        x = x.contiguous(memory_format=torch.channels_last)
        for layer, skip in zip(self.decoder, reversed(state.skips), strict=True):
            x = layer(x, skip)
        x = x.float()
        if self.masking:
            mask = channels_as_complex(x, self.sources) + 1 / self.sources
            spec = mask * state.spec[:, None]
        else:
            spec = channels_as_complex(x * state.std + state.mean, self.sources)
        return istft(spec, self.hop_length, length_samples, self.inverse)


class WaveState(NamedTuple):
    """What the wave branch keeps between encoding and decoding."""

    mean: Tensor
    std: Tensor
    skips: tuple[Tensor, ...]
    lengths: tuple[int, ...]


class WaveBranch(nn.Module):
    """U-Net over the waveform.

    `residual`: the waves are added to estimates that have the mixture's mean already, so it is not put back.

    Source: Défossez et al. 2019, "Music Source Separation in the Waveform Domain"; Défossez 2021, section 3.
    """

    def __init__(self, shape: UNetShape, sources: int, audio_channels: int, residual: bool = False) -> None:
        super().__init__()
        self.sources, self.residual = sources, residual
        widths = shape.widths()
        ins = [audio_channels, *widths[:-1]]
        outs = [audio_channels * sources, *widths[:-1]]
        self.encoder = nn.ModuleList(Encoder(ins[i], widths[i], shape, i, False) for i in range(shape.depth))
        self.decoder = nn.ModuleList(Decoder(widths[i], outs[i], shape, i, False) for i in reversed(range(shape.depth)))

    @property
    def last(self) -> nn.Module:
        """What gives the waves; under masks it starts at zero."""
        outermost: Decoder = self.decoder[-1]  # type: ignore[assignment]
        return outermost.conv_tr

    def encode(self, mix: Tensor) -> tuple[Tensor, WaveState]:
        """`[B, C, T]` -> features `[B, D, N']` and the state `decode` needs."""
        x, mean, std = normalise(mix)
        skips, lengths = [], []
        for layer in self.encoder:
            lengths.append(x.shape[-1])
            x = layer(x)
            skips.append(x)
        return x, WaveState(mean, std, tuple(skips), tuple(lengths))

    def decode(self, x: Tensor, state: WaveState) -> Tensor:
        """Features `[B, D, N']` -> waves `[B, S, C, T]`."""
        for layer, skip, length in zip(self.decoder, reversed(state.skips), reversed(state.lengths), strict=True):
            x = layer(x, skip, length)
        x = x.float() * state.std
        if not self.residual:
            x = x + state.mean
        return x.unflatten(1, (self.sources, -1))


def complex_as_channels(spec: Tensor) -> Tensor:
    """Complex `[B, C, F, N]` -> real `[B, 2C, F, N]`, ordered left re, left im, right re, right im."""
    return torch.stack([spec.real, spec.imag], dim=2).flatten(1, 2)


def channels_as_complex(x: Tensor, sources: int) -> Tensor:
    """Real `[B, 2SC, F, N]` -> complex `[B, S, C, F, N]`."""
    pairs = x.unflatten(1, (sources, -1, 2))
    return torch.complex(pairs[:, :, :, 0], pairs[:, :, :, 1])
