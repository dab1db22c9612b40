"""U-Net whose layers see time and frequency by convolutions, and all frequencies at once by a dense layer."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.errors import ConfigError
from polyres.dsp.stft import frame_count, istft, stft
from polyres.nn.body import BODY, Body, BodyConfig, BodyShape
from polyres.nn.branches import Branch, FrequencyState, channels_as_complex, complex_as_channels, normalise


class Norm(nn.Module):
    """Norm over channels and bins of each frame, with a gain and an offset per channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = nn.GroupNorm(1, channels)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D, N, F]` -> the same shape."""
        return F.gelu(self.norm(x))


class TfcTdf(nn.Module):
    """Two convolutions over time and frequency around a bottlenecked dense layer along frequency.

    Source: Kim et al. 2023, "Sound Demixing Challenge 2023 Music Demixing Track Technical Report: TFC-TDF-UNet v3".
    """

    def __init__(self, ins: int, outs: int, bins: int, squeeze: int) -> None:
        super().__init__()
        hidden = max(bins // squeeze, 1)
        self.shortcut = nn.Conv2d(ins, outs, 1)
        self.norm_in, self.conv_in = Norm(ins), nn.Conv2d(ins, outs, 3, padding=1)
        self.norm_wide, self.narrow = Norm(outs), nn.Linear(bins, hidden)
        self.widen = nn.Linear(hidden, bins)
        self.norm_out, self.conv_out = Norm(outs), nn.Conv2d(outs, outs, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, D_in, N, F]` -> `[B, D_out, N, F]`."""
        y = self.conv_in(self.norm_in(x))
        y = y + self.widen(F.gelu(self.narrow(self.norm_wide(y))))
        return self.conv_out(self.norm_out(y)) + self.shortcut(x)


def blocks(count: int, ins: int, outs: int, bins: int, squeeze: int) -> nn.Sequential:
    """Stack of `TfcTdf`, the first of which changes the number of channels."""
    return nn.Sequential(*(TfcTdf(outs if place else ins, outs, bins, squeeze) for place in range(count)))


class TfcTdfBranch(Branch):
    """U-Net over the spectrogram of one resolution; every level halves frames and bins."""

    def __init__(self, config: BodyConfig, shape: BodyShape, index: int) -> None:
        super().__init__()
        self.n_fft, self.hop = shape.n_fft[index], shape.hops[index]
        self.sources, self.masking, self.inverse = shape.sources, shape.masking, shape.inverse
        self.subbands = config.subbands
        widths = shape.unet.widths()
        bins = [self.n_fft // 2 // config.subbands // 2**level for level in range(len(widths))]
        size, folded = (config.blocks, config.squeeze), 2 * shape.audio_channels * config.subbands
        pairs = list(pairwise(widths))
        self.enter = nn.Conv2d(folded, widths[0], 1)
        self.encoder = nn.ModuleList(
            blocks(size[0], width, width, count, size[1]) for width, count in zip(widths, bins, strict=True)
        )
        self.down = nn.ModuleList(nn.Conv2d(wide, deep, 2, 2) for wide, deep in pairs)
        self.up = nn.ModuleList(nn.ConvTranspose2d(deep, wide, 2, 2) for wide, deep in pairs)
        self.decoder = nn.ModuleList(
            blocks(size[0], 2 * width, width, count, size[1])
            for width, count in zip(widths[:-1], bins[:-1], strict=True)
        )
        self.leave = nn.Conv2d(widths[0], folded * shape.sources, 1)

    @property
    def last(self) -> nn.Module:
        return self.leave

    def encode(self, mix: Tensor) -> tuple[Tensor, FrequencyState]:
        """`[B, C, T]` -> features `[B, D, F', N']` and the state `decode` needs."""
        spec = stft(mix, self.n_fft, self.hop)
        values, mean, std = normalise(complex_as_channels(spec))
        x = F.pad(values.unflatten(2, (self.subbands, -1)).flatten(1, 2), (0, -spec.shape[-1] % 2 ** len(self.down)))
        x = self.encoder[0](self.enter(x.transpose(2, 3).contiguous()))
        skips = []
        for down, layer in zip(self.down, self.encoder[1:], strict=True):
            skips.append(x)
            x = layer(down(x))
        return x.transpose(2, 3), FrequencyState(spec, mean, std, tuple(skips))

    def decode(self, x: Tensor, state: FrequencyState, length_samples: int) -> Tensor:
        """Features `[B, D, F', N']` -> waves `[B, S, C, T]`."""
        x = x.transpose(2, 3).contiguous()
        for up, layer, skip in zip(reversed(self.up), reversed(self.decoder), reversed(state.skips), strict=True):
            x = layer(torch.cat([up(x), skip], dim=1))
        x = self.leave(x).transpose(2, 3)[..., : state.spec.shape[-1]].float()
        x = x.unflatten(1, (-1, self.subbands)).flatten(2, 3)
        if self.masking:
            spec = (channels_as_complex(x, self.sources) + 1 / self.sources) * state.spec[:, None]
        else:
            spec = channels_as_complex(x * state.std + state.mean, self.sources)
        return istft(spec, self.hop, length_samples, self.inverse)


@BODY.register("tfc_tdf", summary="convolutions over time and frequency, dense layers along frequency")
class TfcTdfBody(Body):
    """One U-Net per resolution, joined by the bottleneck alone."""

    @property
    def width(self) -> int:
        return self.shape.unet.widths()[-1]

    def check(self) -> None:
        """Refuse window lengths that the levels cannot halve."""
        step = 2 * self.config.subbands * 2 ** (self.shape.unet.depth - 1)
        for n_fft in self.shape.n_fft:
            if n_fft % step:
                raise ConfigError(
                    f"n_fft {n_fft} has {n_fft // 2} bins; with {self.config.subbands} subbands and "
                    f"{self.shape.unet.depth} levels n_fft must be a multiple of {step}"
                )

    def bins(self, index: int) -> int:
        return self.shape.n_fft[index] // 2 // self.config.subbands // 2 ** (self.shape.unet.depth - 1)

    def frames(self, index: int, length_samples: int) -> int:
        return -(-frame_count(length_samples, self.shape.hops[index]) // 2 ** (self.shape.unet.depth - 1))

    def branch(self, index: int) -> Branch:
        return TfcTdfBranch(self.config, self.shape, index)
