"""A bank of linear-phase band filters that adds up to a plain delay."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from polyres.core.errors import ConfigError


def identity_bank(edges_hz: Sequence[float], taps: int, sample_rate_hz: int) -> Tensor:
    """Impulse responses of the bands below, between and above the edges; their sum is a unit impulse.

    Args:
        edges_hz: rising cut-off frequencies, between 0 and half the sample rate; K - 1 of them.
        taps: length of the filters in samples, odd; the impulse of the sum sits in the middle.
        sample_rate_hz: of the audio.

    Returns:
        `[K, taps]`, lowest band first.

    Raises:
        ConfigError: on edges that do not rise inside the range, or an even number of taps.

    Source: windowed-sinc design with a Hann window (Oppenheim & Schafer, section 7.5).
    """
    edges = list(edges_hz)
    if edges != sorted(set(edges)) or (edges and not 0 < edges[0] <= edges[-1] < sample_rate_hz / 2):
        raise ConfigError(f"bands_hz {edges} must rise and lie between 0 and {sample_rate_hz / 2:g} Hz")
    if taps % 2 == 0 or taps < 3:
        raise ConfigError(f"band_taps is {taps}; an odd number of 3 or more is needed")
    time = torch.arange(taps, dtype=torch.float64) - taps // 2
    window = torch.hann_window(taps + 2, periodic=False, dtype=torch.float64)[1:-1]
    impulse = torch.zeros(taps, dtype=torch.float64)
    impulse[taps // 2] = 1
    steps = [torch.zeros_like(impulse)]
    for edge in edges:
        ratio = 2 * edge / sample_rate_hz
        low = ratio * torch.sinc(ratio * time) * window
        steps.append(low / low.sum())
    steps.append(impulse)
    return torch.stack([high - low for low, high in pairwise(steps)]).float()
