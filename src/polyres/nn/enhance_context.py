"""What enhancers may know beyond the tensor they change, and what kind of knowledge that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from polyres.core.errors import InputError
from polyres.nn.signal_class import SignalClass
from polyres.ops.mel import AUDIOLDM2_16K, MelConfig

Domain = Literal["latent", "mel"]
Decode = Callable[[Tensor], Tensor]
"""Takes latents `[B, D, T, F]`, gives the log-mel spectrogram `[B, N, M]` they decode to; gradients pass through."""


@dataclass(frozen=True)
class MelStatistics:
    """Long-term averages of log-mel spectra: what a signal should sound like on the whole.

    Attributes:
        mean: of every mel band, `[M]` or `[B, M]`, nat.
        std: of every mel band, same shape, nat.
        level: half the logarithm of the mean power over frames and bands, `[]` or `[B]`, nat.
        informed: whether they are of the very signal (then they would have to be sent along with its latent),
            and not of other signals.
    """

    mean: Tensor
    std: Tensor
    level: Tensor
    informed: bool


def mel_statistics(log_mel: Tensor, informed: bool, pooled: bool = False) -> MelStatistics:
    """Measure log-mel spectra.

    Args:
        log_mel: `[B, N, M]`, natural logarithms of magnitudes.
        informed: whether this is the original of what will be enhanced.
        pooled: one set of averages over the whole batch, as for statistics of training data.

    Returns:
        The averages, `[B, M]` and `[B]`, or `[M]` and `[]` if pooled.

    Raises:
        InputError: if the shape is another.
    """
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

    Attributes:
        seed: of everything random.
        decode: the decoder up to the log-mel spectrogram.
        mel: the front end of that spectrogram.
        target: averages that the result should have.
        reference_mel: log-mel spectrogram `[B, N, M]` of the original.
        signal_class: what the signal is, if it is known.
        network: a trained residual network.
        steps: of gradient descent.
    """

    seed: int = 0
    decode: Decode | None = None
    mel: MelConfig = AUDIOLDM2_16K
    target: MelStatistics | None = None
    reference_mel: Tensor | None = None
    signal_class: SignalClass | None = None
    network: nn.Module | None = None
    steps: int = 60

    @property
    def frame_rate_hz(self) -> float:
        """Frames of the mel spectrogram per second."""
        return self.mel.sample_rate_hz / self.mel.hop_length
