"""A critic of decoded waves: convolutions on complex spectra of several resolutions, hinge loss, feature matching."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from polyres.nn.branches import complex_as_channels
from polyres.ops.stft import stft


class _SpectrumCritic(nn.Module):
    """Convolutions on the spectrum of one resolution."""

    def __init__(self, n_fft: int, audio_channels: int, channels: int) -> None:
        super().__init__()
        self.n_fft = n_fft
        widths = [2 * audio_channels, channels, channels, channels, channels]
        self.layers = nn.ModuleList(
            nn.utils.parametrizations.weight_norm(nn.Conv2d(a, b, (5, 3), (2, 1), (2, 1)))
            for a, b in itertools.pairwise(widths)
        )
        self.last = nn.Conv2d(channels, 1, 3, padding=1)

    def forward(self, wave: Tensor) -> list[Tensor]:
        """`[B, C, T]` -> features of every layer, the verdict last."""
        x = complex_as_channels(stft(wave, self.n_fft, self.n_fft // 4))
        found = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            found.append(x)
        return [*found, self.last(x)]


class AdversarialTerms(NamedTuple):
    """What the codec minimises, `adversarial` and `features`, and what the critic does."""

    adversarial: Tensor
    features: Tensor
    critic: Tensor


class Critic(nn.Module):
    """Tells decoded waves from original ones at several resolutions.

    Args:
        n_fft: window lengths in samples.
        audio_channels: C.
        channels: width of the layers.
        seed: of the first weights.

    Source: Défossez et al. 2022, "High Fidelity Neural Audio Compression", section 3.4; hinge loss, Lim and Ye 2017.
    """

    def __init__(self, n_fft: tuple[int, ...], audio_channels: int, channels: int, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critics = nn.ModuleList(_SpectrumCritic(size, audio_channels, channels) for size in n_fft)

    def forward(self, wave: Tensor) -> list[list[Tensor]]:
        """Judge waves `[B, C, T]`: per resolution the features of every layer, the verdict last."""
        return [critic(wave) for critic in self.critics]

    def terms(self, decoded: Tensor, original: Tensor) -> AdversarialTerms:
        """Compare; the gradient of the first two terms goes to the decoded wave alone, that of the last to the critic.

        Args:
            decoded: `[B, C, T]`.
            original: same shape.

        Returns:
            Scalars.
        """
        frozen = {name: value.detach() for name, value in self.named_parameters()}
        judged = functional_call(self, frozen, (decoded,))
        with torch.no_grad():
            wanted = self(original)
        true, false = self(original), self(decoded.detach())
        adversarial = torch.stack([-one[-1].mean() for one in judged]).mean()
        apart = [
            (a - b).abs().mean() / b.abs().mean().clamp_min(1e-6)
            for one, two in zip(judged, wanted, strict=True)
            for a, b in zip(one[:-1], two[:-1], strict=True)
        ]
        hinges = [F.relu(1 - a[-1]).mean() + F.relu(1 + b[-1]).mean() for a, b in zip(true, false, strict=True)]
        return AdversarialTerms(adversarial, torch.stack(apart).mean(), torch.stack(hinges).mean())
