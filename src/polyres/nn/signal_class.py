"""Music, speech or something else, told from a log-mel spectrogram alone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

SignalClass = Literal["music", "speech", "other"]
SIGNAL_CLASSES: tuple[SignalClass, ...] = ("music", "speech", "other")

SYLLABLES_HZ = (2.0, 8.0)
"""Rates at which the level of speech goes up and down."""

_SPEECH_MODULATION = 0.25
_SPEECH_PAUSES = 0.20
_SPEECH_PEAKS = 0.25
_NOISE_PEAKS = 0.1


@dataclass(frozen=True)
class SignalFeatures:
    """What is told apart by.

    Attributes:
        syllables: share of the modulation of the bands (0.5 to 16 Hz) that lies between 2 and 8 Hz.
        pauses: share of frames 14 dB or more below the loudest tenth.
        peaks: how far mel bands stand out of their neighbours, in nat: high for tones, low for noise.
    """

    syllables: float
    pauses: float
    peaks: float


def signal_features(log_mel: Tensor, frame_rate_hz: float) -> SignalFeatures:
    """Measure a signal.

    Args:
        log_mel: natural logarithms `[N, M]`.
        frame_rate_hz: frames per second.

    Returns:
        The features; all 0 for fewer than 32 frames.

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
    """Tell the class of a signal by fixed limits: a strategy is chosen by it, nothing finer.

    Args:
        log_mel: natural logarithms `[N, M]`.
        frame_rate_hz: frames per second.

    Returns:
        The class; "other" where there is too little to tell.
    """
    found = signal_features(log_mel, frame_rate_hz)
    interrupted = found.syllables > _SPEECH_MODULATION and found.pauses > _SPEECH_PAUSES
    if interrupted and found.peaks < _SPEECH_PEAKS:
        return "speech"
    return "music" if found.peaks > _NOISE_PEAKS else "other"
