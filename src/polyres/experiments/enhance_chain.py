"""The places in a codec where enhancers act: its latent, and the mel spectrogram it decodes to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import ConfigError, InputError
from polyres.data.audio import probe, read_audio
from polyres.data.resample import resample
from polyres.models.codec_picture import MEL, CodecPicture
from polyres.nn.enhance import ENHANCERS, enhance
from polyres.nn.enhance_context import EnhanceContext


@dataclass(frozen=True)
class Excerpt:
    """A piece of a file as a codec takes it.

    Attributes:
        name: of the file.
        wave: `[G, C, T]` float32, groups of channels that are coded together, at rate and level of the codec.
        duration_s: of the piece.
    """

    name: str
    wave: Tensor
    duration_s: float


class Chain(CodecPicture):
    """A codec taken apart: wave, latent, mel spectrogram, wave."""

    def excerpt(self, path: Path, seconds: float, start_s: float | None = None) -> Excerpt:
        """Read a piece of a file.

        Args:
            path: any file with audio in it.
            seconds: of the piece; no more than one window of the codec is taken.
            start_s: where it begins; from the middle of the file where None.

        Returns:
            The piece, cut to whole steps of the codec.

        Raises:
            InputError: if the file cannot be used or the piece is shorter than a step.
        """
        info = probe(path)
        rate_hz, codec = info.sample_rate_hz, self.codec
        wanted = min(seconds, codec.window_samples / codec.sample_rate_hz)
        length = round(wanted * rate_hz)
        middle = max(0, ((info.length_samples or 0) - length) // 2)
        start = middle if start_s is None else round(start_s * rate_hz)
        samples, rate_hz = read_audio(path, start, length)
        wave = torch.from_numpy(resample(samples, rate_hz, codec.sample_rate_hz))
        steps = wave.shape[-1] // codec.hop_samples
        if steps < 8:
            raise InputError(
                f"{path}: {wave.shape[-1] / codec.sample_rate_hz:.2f} s from {start / rate_hz:.2f} s on are too short; "
                f"{8 * codec.hop_samples / codec.sample_rate_hz:.2f} s or more are needed"
            )
        wave = wave[:, : steps * codec.hop_samples]
        wave = self.levelled(wave)
        missing = -wave.shape[0] % codec.audio_channels
        grouped = torch.cat([wave, wave[:1].expand(missing, -1)]).unflatten(0, (-1, codec.audio_channels))
        return Excerpt(path.name, grouped, wave.shape[-1] / codec.sample_rate_hz)

    def run(self, name: str | None, latent: Tensor, strength: float, context: EnhanceContext) -> tuple[Tensor, Tensor]:
        """Decode a latent with an enhancer on the way.

        Args:
            name: of `ENHANCERS`, or None for the codec alone.
            latent: of `encode`.
            strength: of the enhancer.
            context: what it may use.

        Returns:
            Waves `[G, C, T]`, and the log-mel spectrogram `[G, N, M]` before synthesis.

        Raises:
            ConfigError: if the codec has no mel spectrogram and the enhancer needs one.
        """
        domain = None if name is None else ENHANCERS.build(name).domain
        length = latent.shape[2] * self.codec.hop_samples
        if domain == "mel" and not self.has_mel:
            raise ConfigError(f"enhancer {name!r} changes mel spectra, but {self.codec.name} decodes to none")
        with torch.no_grad():
            if name is not None and domain == "latent":
                latent = enhance(name, latent, strength, context)
            if not self.has_mel:
                wave = self.codec.decode(self.named(latent), length)
                return wave, self.mel(wave)
            mel = self.decode_mel(latent)
            if name is not None and domain == "mel":
                mel = enhance(name, mel, strength, context)
            wave = self.codec.from_features({MEL: mel[:, None]}, length)
        return F.pad(wave, (0, length - wave.shape[-1])), mel
