"""A vocoder that works at the rate of mel frames and ends in an inverse Fourier transform."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.core.config import Config
from polyres.dsp.framing import FrameTransform
from polyres.dsp.mel import MelConfig, mel_filterbank, mel_framing

_MOST_NEPER = 6.0  # a bin may differ from the level of its mel bands by so much
_TINY = 1e-7
_ROUNDS = 4  # of fitting magnitudes to mel bands where it has to be exact


class MelVocoderConfig(Config):
    """Sizes of the vocoder."""

    width: int = Field(default=256, ge=1)  # channels inside
    depth: int = Field(default=6, ge=1)  # blocks
    widening: int = Field(default=3, ge=1)  # how much wider a block is inside
    kernel: int = Field(default=7, ge=1)  # frames that a block sees at once; odd


class _Block(nn.Module):
    """A convolution per channel over time, then two layers per frame; added to what comes in."""

    def __init__(self, config: MelVocoderConfig) -> None:
        super().__init__()
        width = config.width
        self.over_time = nn.Conv1d(width, width, config.kernel, padding=config.kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, config.widening * width)
        self.narrow = nn.Linear(config.widening * width, width)
        self.gain = nn.Parameter(torch.full((width,), 1 / config.depth))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, width]`, same shape."""
        seen = self.over_time(x.transpose(1, 2)).transpose(1, 2)
        return x + self.gain * self.narrow(F.gelu(self.widen(self.norm(seen))))


class MelVocoder(nn.Module):
    """Log-mel spectra `[B, N, M]` to waves `[B, N * hop]`.

    The network says how the magnitude of each bin differs from the level of its mel bands, its phase, and how much
    louder the bands should be than they were given (blurred spectra lack energy). Before the transform magnitudes are
    brought to those bands, so that the levels need not be learned. A sample depends on `context_frames` around it and
    on nothing else.

    Source: Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders"; Liu et al.
    2022, "A ConvNet for the 2020s".
    """

    def __init__(self, config: MelVocoderConfig, mel: MelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        bins = mel.n_fft // 2 + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Conv1d(mel.mel_bins, config.width, config.kernel, padding=config.kernel // 2)
            self.norm = nn.LayerNorm(config.width)
            self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
            self.last_norm = nn.LayerNorm(config.width)
            self.head = nn.Linear(config.width, 2 * bins)
            self.louder = nn.Linear(config.width, mel.mel_bins)
            nn.init.normal_(self.head.weight, std=0.02)
            for value in (self.head.bias, self.louder.weight, self.louder.bias):
                nn.init.zeros_(value)
            with torch.no_grad():  # a click in the middle of the frame, not at its ends, where the window is 0
                self.head.bias[bins + 1 :: 2] = torch.pi
        filters = mel_filterbank(mel).float()
        # Share of each mel band in a bin; bins that no filter reaches take the nearest one's.
        share = filters / filters.amax(dim=1, keepdim=True).clamp_min(_TINY)
        bare = share.sum(dim=0) <= _TINY
        near = torch.where(torch.arange(bins) * mel.sample_rate_hz / mel.n_fft > mel.max_hz / 2, mel.mel_bins - 1, 0)
        share[near[bare], bare.nonzero()[:, 0]] = 1.0
        self.register_buffer("_filters", filters, persistent=False)
        self.register_buffer("_share", share / share.sum(dim=0), persistent=False)
        self.register_buffer("_heard", (~bare).float(), persistent=False)

    @property
    def context_frames(self) -> int:
        """Frames on each side that can change a sample."""
        overlap = -(-self.mel.n_fft // self.mel.hop_length)
        return (self.config.depth + 1) * (self.config.kernel // 2) + overlap

    def spectrum(self, log_mel: Tensor, as_given: bool = False) -> tuple[Tensor, Tensor]:
        """Predict log magnitudes and phases `[B, N, F]` of log-mel spectra `[B, N, M]`."""
        x = self.norm(self.embed((log_mel + 5).transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        x = self.last_norm(x)
        shape, phase = self.head(x).chunk(2, dim=-1)
        shape = _MOST_NEPER * torch.tanh(shape / _MOST_NEPER)
        if not as_given:
            return self._fitted(shape, log_mel + self.louder(x)), phase
        for _ in range(_ROUNDS):
            shape = self._fitted(shape, log_mel)
        return shape, phase

    def _fitted(self, shape: Tensor, log_mel: Tensor) -> Tensor:
        """Bring log-magnitudes to the level of the mel bands: the logarithm of what they lack is spread over bins."""
        filters, share, power = self.get_buffer("_filters"), self.get_buffer("_share"), self.mel.power
        found = self.heard((power * shape).exp()) @ filters.T
        lacking = log_mel - found.clamp_min(_TINY).log()
        return shape + (lacking @ share) / power

    def magnitude(self, log_mel: Tensor) -> Tensor:
        """Return magnitudes `[B, F, N]` for a phase method; bins that no filter reaches are 0."""
        return self.heard(self.spectrum(log_mel, as_given=True)[0].exp()).transpose(1, 2)

    def heard(self, magnitude: Tensor) -> Tensor:
        """Silence bins of `[B, N, F]` that no filter reaches."""
        return magnitude * self.get_buffer("_heard")

    def forward(self, log_mel: Tensor) -> Tensor:
        """Synthesise waves `[B, N * hop]` from log-mel spectra `[B, N, M]`."""
        log_magnitude, phase = self.spectrum(log_mel)
        return self.wave(torch.polar(self.heard(log_magnitude.exp()), phase))

    def wave(self, spectra: Tensor) -> Tensor:
        """Put spectra `[B, N, F]` together: the waves whose frames come closest to them."""
        framing = mel_framing(self.mel, spectra.shape[1] * self.mel.hop_length)
        return FrameTransform(framing, torch.float32, spectra.device).synthesise(spectra)
