"""Inputs of enhancers besides the tensor, and features that classify signals."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from polyres.core.errors import InputError
from polyres.dsp.mel import AUDIOLDM2_16K, MelConfig

Domain = Literal["latent", "mel"]
Decode = Callable[[Tensor], Tensor]
"""Takes latents `[B, D, T, F]`, gives the log-mel spectrogram `[B, N, M]` they decode to; gradients pass through."""


@dataclass(frozen=True)
class MelStatistics:
    """Long-term averages of log-mel spectra."""

    mean: Tensor  # of every mel band, `[M]` or `[B, M]`, nat
    std: Tensor  # of every mel band, same shape, nat
    level: Tensor  # half the logarithm of the mean power over frames and bands, `[]` or `[B]`, nat
    informed: bool  # whether they are of the very signal and have to be sent along with its latent


def mel_statistics(log_mel: Tensor, informed: bool, pooled: bool = False) -> MelStatistics:
    """Compute the averages of log-mel spectra `[B, N, M]`: one set per item, or one in all if `pooled`."""
    if log_mel.ndim != 3 or not log_mel.numel():
        raise InputError(f"statistics need log-mel spectra [B, N, M], nothing empty, got {list(log_mel.shape)}")
    frames = log_mel.flatten(0, 1)[None] if pooled else log_mel
    mean, std = frames.mean(dim=1), frames.std(dim=1, unbiased=False)
    level = torch.logsumexp(2 * frames, dim=(1, 2)) - torch.log(torch.tensor(float(frames[0].numel())))
    found = (mean, std, level / 2)
    first, second, third = (value[0] for value in found) if pooled else found
    return MelStatistics(first, second, third, informed)


@dataclass(frozen=True)
class EnhanceContext:
    """What an enhancer may use; every field may be missing, and an enhancer says which ones it needs.

    Blind enhancers use what a decoder has: seed, decoder, network, statistics of other signals. Informed ones also
    see the original: `reference_mel`, or statistics of the very signal.
    """

    seed: int = 0  # of everything random
    decode: Decode | None = None  # the decoder up to the log-mel spectrogram
    mel: MelConfig = AUDIOLDM2_16K  # the front end of that spectrogram
    target: MelStatistics | None = None  # averages that the result should have
    reference_mel: Tensor | None = None  # log-mel spectrogram `[B, N, M]` of the original
    network: nn.Module | None = None  # a trained residual network
    steps: int = 60  # of gradient descent

    @property
    def frame_rate_hz(self) -> float:
        """Frames of the mel spectrogram per second."""
        return self.mel.sample_rate_hz / self.mel.hop_length


SignalClass = Literal["music", "speech", "other"]

SYLLABLES_HZ = (2.0, 8.0)
"""Rates at which the level of speech goes up and down."""

_SPEECH_MODULATION = 0.25
_SPEECH_PAUSES = 0.20
_SPEECH_PEAKS = 0.25
_NOISE_PEAKS = 0.1


@dataclass(frozen=True)
class SignalFeatures:
    """Features that tell speech, music and noise apart."""

    syllables: float  # share of the modulation of the bands (0.5 to 16 Hz) that lies between 2 and 8 Hz
    pauses: float  # share of frames 14 dB or more below the loudest tenth
    peaks: float  # how far mel bands stand out of their neighbours, in nat: high for tones, low for noise


def signal_features(log_mel: Tensor, frame_rate_hz: float) -> SignalFeatures:
    """Measure a log-mel spectrogram `[N, M]`; all features are 0 for fewer than 32 frames.

    Source: Scheirer and Slaney 1997, Construction and evaluation of a robust multifeature speech/music discriminator
    (4 Hz modulation energy, percentage of low-energy frames).
    """
    if log_mel.shape[0] < 32:
        return SignalFeatures(0.0, 0.0, 0.0)
    mel = log_mel.detach().double()
    envelope = mel - mel.mean(dim=0)
    window = torch.hann_window(mel.shape[0], dtype=torch.float64, device=mel.device)[:, None]
    spectrum = torch.fft.rfft(envelope * window, dim=0).abs().square().sum(dim=1)
    rates_hz = torch.fft.rfftfreq(mel.shape[0], 1 / frame_rate_hz, dtype=torch.float64, device=mel.device)
    heard = spectrum[(rates_hz >= 0.5) & (rates_hz < 16)].sum()
    syllables = spectrum[(rates_hz >= SYLLABLES_HZ[0]) & (rates_hz < SYLLABLES_HZ[1])].sum()
    level = mel.mul(2).exp().sum(dim=1).clamp_min(1e-10).log() / 2
    loud = torch.quantile(level, 0.9)
    pauses = (level < loud - 14 / 20 * math.log(10)).double().mean()
    average = mel[level >= loud - 14 / 20 * math.log(10)]
    stands_out = average[:, 1:-1] - (average[:, :-2] + average[:, 2:]) / 2
    peaks = stands_out.mean(dim=0).abs().mean() if len(average) else mel.new_zeros(())
    return SignalFeatures(float(syllables / heard) if float(heard) > 0 else 0.0, float(pauses), float(peaks))


def classify(log_mel: Tensor, frame_rate_hz: float) -> SignalClass:
    """Classify a log-mel spectrogram `[N, M]` by fixed limits; "other" where there is too little to tell."""
    found = signal_features(log_mel, frame_rate_hz)
    interrupted = found.syllables > _SPEECH_MODULATION and found.pauses > _SPEECH_PAUSES
    if interrupted and found.peaks < _SPEECH_PEAKS:
        return "speech"
    return "music" if found.peaks > _NOISE_PEAKS else "other"
