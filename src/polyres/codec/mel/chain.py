"""Base class of codecs on mel spectra: front end, autoencoder, vocoder or phase method."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from polyres.codec.base import Codec, CodecConfig, Latents, Span, Speaker, check_codec_wave
from polyres.codec.enhance.context import EnhanceContext, MelStatistics
from polyres.codec.enhance.enhancers import ENHANCERS, enhance
from polyres.codec.mel.autoencoder import SHRINKS
from polyres.codec.post_filter import POST_FILTERS, post_filter
from polyres.dsp.mel import MEL_INVERSES, MelConfig, log_mel_to_linear, mel_framing
from polyres.dsp.phase import PHASE_METHODS, reconstruct_framed

VOCODER = "vocoder"
FRAMES_PER_STEP = SHRINKS
"""Mel frames, and mel bins, per latent."""


class MelChainConfig(CodecConfig):
    """Settings of a codec of mel spectra."""

    autoencoder: str = "mode"  # `mode` or `sample` of the posterior; `none`: the latent is the mel spectrogram
    synthesis: str = VOCODER  # `vocoder`, or a phase method on magnitudes that fit the mel spectrogram
    strength: float = Field(default=1.0, ge=0)  # of the enhancer
    seed: int = Field(default=0, ge=0, lt=2**63)  # of everything random
    mel_inverse: str = "nnls"  # how magnitudes are found for a phase method
    phase_iterations: int = Field(default=32, ge=0, le=10_000)  # of a phase method
    mel: MelConfig  # the front end; other settings than those of the training are refused

    own_syntheses: ClassVar[tuple[str, ...]] = (VOCODER,)
    """Names of syntheses that are no phase methods."""

    own_inverses: ClassVar[tuple[str, ...]] = ()
    """Names of mel inverses that the codec has beside MEL_INVERSES."""

    @model_validator(mode="after")
    def _known(self) -> MelChainConfig:
        """Refuse names that no catalogue has."""
        if self.synthesis not in self.own_syntheses:
            PHASE_METHODS.get(self.synthesis)
        if self.enhancer is not None:
            ENHANCERS.get(self.enhancer)
        if self.post_filter is not None:
            POST_FILTERS.get(self.post_filter)
        if self.mel_inverse not in self.own_inverses:
            MEL_INVERSES.get(self.mel_inverse)
        return self


class MelChain(Codec):
    """Mel spectrogram, autoencoder, vocoder; each channel on its own.

    A codec of this kind has an `autoencoder` with the calls of AutoencoderKL, and says how mel spectra are made and
    spoken.
    """

    audio_channels = 1
    phase_sensitive = False
    level: ClassVar[Literal["peak", "none"]] = "peak"
    joins_features: ClassVar[bool] = True
    autoencoder: nn.Module

    target: MelStatistics | None = None
    """What enhancers that match averages are told; per channel."""

    @property
    def chain(self) -> MelChainConfig:
        """The config with the type that all chains share."""
        return cast(MelChainConfig, self.config)

    @abstractmethod
    def mel(self, wave: Tensor) -> Tensor:
        """Compute the log-mel spectrogram `[B, 1, N, M]` of waves `[B, 1, T]`, 4 frames per step."""

    @abstractmethod
    def _speak(self, mel: Tensor, length_samples: int) -> Tensor:
        """Turn `[B, N, M]` into waves `[B, length_samples]` by a synthesis of the codec's own."""

    def encode(self, wave: Tensor) -> Latents:
        """Turn waves into latents; see `Codec.encode`: "z" `[B, D, N / 4, M / 4]`."""
        check_codec_wave(wave, self)
        return {"z": self._to_latent(self.mel(wave))}

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        return self.from_features(self.to_features(latents), length_samples)

    def to_features(self, latents: Latents) -> Latents:
        """Decode latents to log-mel spectra "mel" `[B, 1, N', M]`, enhanced where the enhancer works on those."""
        mel = self._to_mel(latents["z"])
        return {"mel": self._enhanced(mel[:, 0], "mel")[:, None]}

    def from_features(self, features: Latents, length_samples: int) -> Tensor:
        """Make waves of log-mel spectra, by the vocoder or a phase method."""
        return self._filtered(self._spoken(features, length_samples))

    def speaker(self) -> Speaker:
        """Make waves window by window; a phase method goes on from the window before."""
        if self.chain.synthesis in self.chain.own_syntheses:
            return super().speaker()
        spoken = wave_before = None

        def speak(features: Latents, span: Span) -> Tensor:
            nonlocal spoken, wave_before
            before = None
            if spoken is not None and wave_before is not None:
                start = span.start_samples - spoken.start_samples
                before = wave_before[..., start : start + span.settled_samples]
            spoken, wave_before = span, self._spoken(features, span.length_samples, before)
            return self._filtered(wave_before)

        return speak

    def _spoken(self, features: Latents, length_samples: int, before: Tensor | None = None) -> Tensor:
        """Make waves of log-mel spectra; a phase method goes on from what comes before."""
        mel, config = features["mel"], self.chain
        if config.synthesis in config.own_syntheses:
            return self._speak(mel[:, 0], length_samples)[:, None]
        return self._from_magnitude(self._magnitude(mel), config.synthesis, length_samples, before=before)

    def _filtered(self, wave: Tensor) -> Tensor:
        name = self.chain.post_filter
        return wave if name is None else post_filter(name, wave, self.sample_rate_hz)

    def enhance(self, latents: Latents) -> Latents:
        """Change latents by the enhancer of the config, where it works on latents."""
        return {"z": self._enhanced(latents["z"], "latent")}

    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        check_codec_wave(wave, self)
        config = self.chain
        found = {"mel": self.mel(wave)}
        found["latent"] = self._to_latent(found["mel"])
        latents = {"z": found["latent"]}
        if config.enhancer is not None:
            latents = self.enhance(latents)
            found["latent_enhanced"] = latents["z"]
        features = self.to_features(latents)
        found["mel_decoded"] = features["mel"]
        if config.synthesis not in config.own_syntheses:
            found["magnitude"] = self._magnitude(features["mel"]).transpose(-1, -2)
        found["wave"] = self.from_features(features, wave.shape[-1])
        return found

    def _to_latent(self, mel: Tensor) -> Tensor:
        config = self.chain
        if config.autoencoder == "none":
            return mel.reshape(mel.shape[0], -1, FRAMES_PER_STEP, mel.shape[-1]).transpose(1, 2)
        posterior = cast(Any, self.autoencoder).encode(mel).latent_dist
        if config.autoencoder == "sample":
            drawn: Tensor = posterior.sample(torch.Generator(mel.device).manual_seed(config.seed))
            return drawn
        z: Tensor = posterior.mode()
        return z

    def _to_mel(self, z: Tensor) -> Tensor:
        if self.chain.autoencoder == "none":
            return z.transpose(1, 2).flatten(1, 2)[:, None]
        mel: Tensor = cast(Any, self.autoencoder).decode(z).sample
        return mel

    def _enhanced(self, tensor: Tensor, domain: str) -> Tensor:
        config = self.chain
        if config.enhancer is None or ENHANCERS.build(config.enhancer).domain != domain:
            return tensor
        context = EnhanceContext(
            seed=config.seed, decode=lambda z: self._to_mel(z)[:, 0], mel=config.mel, target=self.target
        )
        return enhance(config.enhancer, tensor, config.strength, context)

    def _magnitude(self, mel: Tensor) -> Tensor:
        """Find magnitudes `[..., F, N]` for log-mel spectra `[..., N, M]`."""
        return log_mel_to_linear(mel, self.chain.mel, self.chain.mel_inverse)

    def _from_magnitude(
        self,
        magnitude: Tensor,
        method: str,
        length_samples: int,
        phase: Tensor | None = None,
        before: Tensor | None = None,
    ) -> Tensor:
        """Find waves `[..., length_samples]` with magnitudes `[..., F, N]` of the front end's frames."""
        config = self.chain
        framing = mel_framing(config.mel, magnitude.shape[-1] * config.mel.hop_length)
        wave = reconstruct_framed(magnitude, method, framing, config.phase_iterations, config.seed, phase, before)
        return wave[..., :length_samples]
