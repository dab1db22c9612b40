"""A codec seen as a picture: one latent over time and frequency, and the mel spectrogram it decodes to."""

from __future__ import annotations

import torch
from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.metrics.reconstruction_spectra import metric_mel
from polyres.models.codec_base import Codec
from polyres.ops.input_level import level_of
from polyres.ops.mel import MelConfig, log_mel

MEL = "mel"


class CodecPicture:
    """The places in a codec where pictures can be changed or compared."""

    def __init__(self, codec: Codec) -> None:
        """Look at what the codec has.

        Args:
            codec: in evaluation mode.
        """
        self.codec = codec
        config = getattr(codec.config, "mel", None)
        self.has_mel = codec.joins_features
        self.mel_config = config if isinstance(config, MelConfig) else metric_mel(codec.sample_rate_hz)
        self._name = ""

    def levelled(self, wave: Tensor) -> Tensor:
        """Bring waves `[..., T]` to the level that the codec expects of whole files, each channel on its own."""
        return level_of(wave).apply(wave) if self.codec.level == "peak" else wave

    def encode(self, wave: Tensor) -> Tensor:
        """Encode waves without gradients.

        Args:
            wave: `[B, C, T]`, as `Codec.encode` takes them.

        Returns:
            The one latent of the codec, `[B, D, T]` or `[B, D, T, F]`.

        Raises:
            ConfigError: if the codec has no latent that is a picture.
        """
        with torch.no_grad():
            latents = self.codec.encode(wave.to(self.codec.device))
        sizes = {name: list(value.shape) for name, value in latents.items()}
        if len(latents) != 1 or next(iter(latents.values())).ndim not in (3, 4):
            raise ConfigError(
                f"the latents of {self.codec.name} are no picture that could be enhanced ({sizes}); choose a codec "
                "with one latent [B, D, T, F], such as audioldm2"
            )
        ((self._name, latent),) = latents.items()
        return latent

    def named(self, latent: Tensor) -> dict[str, Tensor]:
        """Return a latent under the name that the codec knows it by."""
        return {self._name: latent}

    def mel(self, wave: Tensor) -> Tensor:
        """Log-mel spectrogram `[B, N, M]` of waves `[B, C, T]`, their channels averaged."""
        return log_mel(wave.to(self.codec.device).mean(dim=1), self.mel_config)

    def decode_mel(self, latent: Tensor) -> Tensor:
        """Log-mel spectrogram `[B, N, M]` that a latent decodes to; gradients pass through."""
        if self.has_mel:
            return self.codec.to_features(self.named(latent))[MEL][:, 0]
        return self.mel(self.codec.decode(self.named(latent), latent.shape[2] * self.codec.hop_samples))
