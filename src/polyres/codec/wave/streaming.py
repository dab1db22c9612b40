"""Stream `polyres_wave`: latents and samples as early as the codec allows."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.codec.base import Latents
from polyres.codec.wave.codec import WaveCodec
from polyres.core.errors import InputError

ENCODER_AHEAD = 2
"""Steps of samples after one that its latents depend on: the next one's blocks depend on those after it."""
DECODER_AHEAD = 1
"""Steps of latents after one that its samples depend on."""


class WaveStreamEncoder:
    """Codes a live signal: push samples, get latents; two steps behind the samples."""

    def __init__(self, codec: WaveCodec) -> None:
        """Start a stream."""
        self._codec = codec
        self._history = torch.zeros(1, codec.audio_channels, 0)
        self._behind = 0
        self._waiting = torch.zeros(1, codec.audio_channels, 0)

    def push(self, wave: Tensor) -> Latents | None:
        """Take samples.

        Args:
            wave: `[C, n]` float32, any n.

        Returns:
            Latents of the steps that are now complete, in order; None if there are none.

        Raises:
            InputError: when the samples do not fit or are not finite.
        """
        channels = self._codec.audio_channels
        if wave.ndim != 2 or wave.shape[0] != channels:
            raise InputError(f"the stream was given samples of shape {tuple(wave.shape)}; [{channels}, n] is needed")
        self._waiting = torch.cat([self._waiting, wave[None]], dim=-1)
        whole = self._waiting.shape[-1] // self._codec.hop_samples
        return self._run(whole, ENCODER_AHEAD) if whole else None

    def finish(self) -> Latents | None:
        """Code what is left, filled up with silence to a whole step; None where nothing is left."""
        fill = -self._waiting.shape[-1] % self._codec.hop_samples
        self._waiting = torch.nn.functional.pad(self._waiting, (0, fill))
        return self._run(self._waiting.shape[-1] // self._codec.hop_samples, 0)

    def _run(self, new: int, ahead: int) -> Latents | None:
        """Code all steps but the last `ahead` ones, which wait for what comes after them."""
        hop, context = self._codec.hop_samples, self._codec.context_samples // self._codec.hop_samples
        wave = torch.cat([self._history, self._waiting[..., : new * hop]], dim=-1)
        self._waiting = self._waiting[..., new * hop :]
        steps = wave.shape[-1] // hop
        stop = steps - ahead
        if stop <= self._behind:
            self._history = wave
            return None
        with torch.no_grad():
            latents = self._codec.encode(wave)
        found = {name: value[:, :, self._behind : stop].half().float() for name, value in latents.items()}
        drop = max(0, stop - context)
        self._history, self._behind = wave[..., drop * hop :], stop - drop
        return found


class WaveStreamDecoder:
    """Decodes a live signal: push latents, get samples; one step behind the latents."""

    def __init__(self, codec: WaveCodec) -> None:
        """Start a stream."""
        self._codec = codec
        self._history: Latents | None = None
        self._behind = 0

    def push(self, latents: Latents) -> Tensor:
        """Take latents of whole steps.

        Args:
            latents: as the encoder gives them.

        Returns:
            Samples `[C, n]`, all but those of the last step.
        """
        return self._run(latents, DECODER_AHEAD)

    def finish(self) -> Tensor:
        """Return the samples of the last step."""
        return self._run(None, 0)

    def _run(self, latents: Latents | None, ahead: int) -> Tensor:
        """Decode all steps but the last `ahead` ones."""
        hop, context = self._codec.hop_samples, self._codec.context_samples // self._codec.hop_samples
        if latents is not None and self._history is not None:
            latents = {name: torch.cat([self._history[name], value], dim=2) for name, value in latents.items()}
        known = latents if latents is not None else self._history
        if known is None:
            return torch.zeros(self._codec.audio_channels, 0)
        steps = known["coefficients"].shape[2]
        stop = max(steps - ahead, self._behind)
        with torch.no_grad():
            wave = self._codec.decode(known, steps * hop)[0, :, self._behind * hop : stop * hop]
        drop = max(0, stop - context)
        self._history = {name: value[:, :, drop:] for name, value in known.items()}
        self._behind = stop - drop
        return wave


def latency_samples(codec: WaveCodec) -> int:
    """Longest time from a sample's arrival at the encoder to its leaving the decoder, without computing time.

    Returns:
        Samples: a step to collect, two that the encoder waits for, and one that the decoder waits for.
    """
    return (1 + ENCODER_AHEAD + DECODER_AHEAD) * codec.hop_samples
