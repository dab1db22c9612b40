from __future__ import annotations

import math

import torch
from torch import Tensor

from polyres.codec.enhance.context import classify, signal_features
from polyres.dsp.mel import audioldm2_log_mel

RATE = 16000


def noise(seconds: float = 4.0, seed: int = 0) -> Tensor:
    return 0.1 * torch.randn(round(seconds * RATE), generator=torch.Generator().manual_seed(seed))


def voice(seconds: float = 4.0) -> Tensor:
    """Syllables at 4 Hz with pauses, on a gliding pitch."""
    t = torch.arange(round(seconds * RATE)) / RATE
    phase = 2 * math.pi * torch.cumsum(130 + 30 * torch.sin(2 * math.pi * 0.7 * t), dim=0) / RATE
    tone = sum(torch.sin(k * phase) / k for k in range(1, 25))
    gate = (torch.sin(2 * math.pi * 4 * t) > -0.2) * (torch.sin(2 * math.pi * 0.5 * t) > -0.7)
    return 0.1 * tone * gate + 0.0003 * noise(seconds)


def chords(seconds: float = 4.0) -> Tensor:
    t = torch.arange(round(seconds * RATE)) / RATE
    wave = torch.zeros_like(t)
    for at, root in enumerate((220.0, 262.0, 196.0, 247.0)):
        inside = (t >= at) & (t < at + 1)
        for ratio in (1, 1.25, 1.5, 2, 3):
            wave += inside * torch.sin(2 * math.pi * root * ratio * t) * torch.exp(-0.7 * (t - at).clamp_min(0))
    return 0.05 * wave + 0.001 * noise(seconds)


def test_classes_of_plain_signals() -> None:
    assert classify(audioldm2_log_mel(noise()), 100) == "other"
    assert classify(audioldm2_log_mel(voice()), 100) == "speech"
    assert classify(audioldm2_log_mel(chords()), 100) == "music"


def test_features_are_what_they_say() -> None:
    frames = torch.arange(400) / 100
    swinging = torch.sin(2 * math.pi * 4 * frames)[:, None].expand(-1, 64)
    assert signal_features(swinging, 100).syllables > 0.95
    assert signal_features(torch.sin(2 * math.pi * 12 * frames)[:, None].expand(-1, 64), 100).syllables < 0.05
    paused = torch.zeros(400, 64)
    paused[:100] = -8
    assert signal_features(paused, 100).pauses == 0.25
    bumps = 0.5 * (torch.arange(64) % 2).expand(400, -1)
    assert abs(signal_features(bumps, 100).peaks - 0.5) < 1e-6


def test_too_little_is_nothing_in_particular() -> None:
    assert classify(torch.zeros(10, 64), 100) == "other"
    assert classify(torch.full((200, 64), -11.5), 100) == "other"
