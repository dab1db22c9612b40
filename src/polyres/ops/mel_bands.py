"""Where the filters of a mel front end lie."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.ops.mel import MelConfig, hz_from_mel, mel_from_hz


def mel_centres_hz(config: MelConfig) -> Tensor:
    """Return the middle frequencies of the filters of a front end.

    Args:
        config: the front end.

    Returns:
        `[M]` float64 in Hz.
    """
    ends = mel_from_hz(torch.tensor([config.min_hz, config.max_hz], dtype=torch.float64), config.scale)
    steps = torch.arange(1, config.mel_bins + 1, dtype=torch.float64) / (config.mel_bins + 1)
    return hz_from_mel(ends[0] + (ends[1] - ends[0]) * steps, config.scale)
