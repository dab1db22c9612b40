"""How much later a vocoder speaks than the spectrum it is given."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.ops.input_level import level_of
from polyres.ops.mel import MelConfig, log_mel

LENGTH_FRAMES = 128
TRUSTED = 0.5
"""Correlation of the envelopes above which an estimate is believed."""

_BURSTS, _DECAY_S, _SMOOTHING_SAMPLES, _MARGIN_SAMPLES = 8, 0.02, 33, 80


def estimate_lag(vocode: Callable[[Tensor], Tensor], mel: MelConfig) -> int:
    """Let a vocoder speak a known signal and compare the envelopes.

    Transposed convolutions make it give a few samples more than its frames stand for: 160 T + 32 for AudioLDM2's.
    Where they belong depends on its training, so the known signal decides. A vocoder that does not follow it at all
    (random weights) is taken to spread them evenly.

    Args:
        vocode: takes `[1, N, M]` log mels, gives `[1, L]`.
        mel: the front end.

    Returns:
        Samples by which its waves are late; may be negative.
    """
    known = bursts(LENGTH_FRAMES * mel.hop_length, mel.sample_rate_hz)
    spoken = vocode(log_mel(known[None], mel))[0].cpu()
    surplus = spoken.shape[-1] - known.shape[-1]
    lag, correlation = _best_lag(known, spoken, range(-_MARGIN_SAMPLES, max(0, surplus) + _MARGIN_SAMPLES + 1))
    return lag if correlation >= TRUSTED else surplus // 2


def bursts(length_samples: int, sample_rate_hz: int) -> Tensor:
    """Known signal: decaying bursts of noise at uneven distances, at the level that AudioLDM2 expects.

    Args:
        length_samples: of the signal.
        sample_rate_hz: of the signal.

    Returns:
        `[T]` float32.
    """
    generator = torch.Generator().manual_seed(5)
    time_s = torch.arange(length_samples) / sample_rate_hz
    envelope = torch.zeros(length_samples)
    for number in range(_BURSTS):
        shift = float(torch.rand(1, generator=generator))
        begin_s = (number + 0.2 + 0.6 * shift) / _BURSTS * length_samples / sample_rate_hz
        since_s = time_s - begin_s
        envelope += torch.where(since_s >= 0, (-since_s.clamp_min(0) / _DECAY_S).exp(), 0)
    wave = envelope * torch.randn(length_samples, generator=generator)
    return level_of(wave).apply(wave)


def _best_lag(known: Tensor, spoken: Tensor, lags: range) -> tuple[int, float]:
    """Find the lag at which two envelopes agree best, and their correlation there."""
    one, other = _envelope(known), _envelope(spoken)
    found = (0, -1.0)
    for lag in lags:
        low, high = max(0, -lag), min(one.shape[0], other.shape[0] - lag)
        here = torch.stack([one[low:high], other[low + lag : high + lag]])
        correlation = float(torch.corrcoef(here)[0, 1])
        if correlation > found[1]:
            found = (lag, correlation)
    return found


def _envelope(wave: Tensor) -> Tensor:
    """Smoothed root of the power."""
    window = torch.hann_window(_SMOOTHING_SAMPLES + 2)[1:-1]
    kernel = (window / window.sum()).reshape(1, 1, -1)
    power = F.conv1d(wave.float().square()[None, None], kernel, padding=kernel.shape[-1] // 2)
    return power[0, 0].clamp_min(0).sqrt()
