"""A codec without weights whose every number is known: frames of 8 samples, halved on the way."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from polyres.codec.base import Codec, CodecConfig, Latents, check_codec_wave


class ToyConfig(CodecConfig):
    front_end: str = "frames"
    autoencoder: str = "half"
    synthesis: str = "frames"


class ToyCodec(Codec):
    name = "toy"
    sample_rate_hz = 1000
    hop_samples = 8
    context_samples = 16
    window_samples = 80
    phase_sensitive = True
    level: ClassVar[Literal["peak", "none"]] = "peak"
    joins_features: ClassVar[bool] = True
    variants = {"filtered": {"post_filter": "none"}}

    def __init__(self, audio_channels: int = 1) -> None:
        super().__init__()
        self.audio_channels = audio_channels
        self.config = ToyConfig()
        self.longest = 0
        self.register_buffer("scale", torch.tensor([2.0]))

    def encode(self, wave: Tensor) -> Latents:
        check_codec_wave(wave, self)
        self.longest = max(self.longest, wave.shape[-1])
        frames = wave.reshape(*wave.shape[:2], -1, 8).transpose(1, 2).flatten(2)  # [B, N, C * 8]
        return {"z": frames.transpose(1, 2) / self.scale}

    def to_features(self, latents: Latents) -> Latents:
        return {"frames": latents["z"].repeat_interleave(2, dim=2) * self.scale}

    def from_features(self, features: Latents, length_samples: int) -> Tensor:
        frames = features["frames"][:, :, ::2].transpose(1, 2)
        wave = frames.reshape(*frames.shape[:2], self.audio_channels, 8).transpose(1, 2).flatten(2)
        return wave[..., :length_samples]

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        return self.from_features(self.to_features(latents), length_samples)

    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        latents = self.encode(wave)
        return {"latent": latents["z"], "wave": self.decode(latents, wave.shape[-1])}
