"""The interface of every codec: encode, decode, and all intermediate steps by name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from polyres.codec.bandwidth import BandwidthExtender
from polyres.codec.latent import Latent
from polyres.core.catalogue import Catalogue, unknown_name_message
from polyres.core.config import Config, diff
from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.dsp.input_level import level_of
from polyres.dsp.mel import MelConfig, log_mel
from polyres.metrics.reconstruction.spectra import metric_mel

__all__ = ["CODECS", "CODEC_FILES", "Codec", "CodecConfig", "Latent", "Latents", "check_codec_wave"]


class CodecConfig(Config):
    """The five slots of a codec, each naming one entry of its catalogue; a codec adds settings of its own."""

    front_end: str  # from waves to what the autoencoder reads
    autoencoder: str  # from that to latents and back
    enhancer: str | None = None  # changes latents before they are decoded; none where None
    synthesis: str  # from what the autoencoder gives to waves
    post_filter: str | None = None  # changes decoded waves; none where None


Latents = dict[str, Tensor]
"""Name to `[B, D, N, ...]`: axis 2 is time, N = T / hop_samples steps. All numbers that a decoder needs."""


@dataclass(frozen=True)
class Span:
    """Where a window lies in its file."""

    start_samples: int  # its first sample
    length_samples: int  # of it
    settled_samples: int  # how many of its first samples the window before it has spoken for good; 0 for the first


Speaker = Callable[[Latents, Span], Tensor]
"""Makes waves `[B, C, length_samples]` of the features of one window after the other."""


class Codec(nn.Module, ABC):
    """Encodes and decodes one window at a time; `polyres.load_codec` makes whole files of any rate out of it.

    Step n of the latents and samples n * hop_samples to (n + 1) * hop_samples belong together. With at least
    `context_samples` around it, no step and no sample may depend noticeably on where its window was cut.

    A codec whose decoder passes through a picture of its own (a mel spectrogram) where windows are better joined
    than in the wave sets `joins_features` and overrides `to_features` and `from_features`.
    """

    name: str
    """As users write it."""

    config: CodecConfig

    sample_rate_hz: int
    """Rate of all waves."""

    audio_channels: int
    """Channels coded together; 1 codes each channel on its own."""

    hop_samples: int
    """Samples per step of the latents."""

    context_samples: int
    """Samples needed on each side of what is kept of a window, a multiple of hop_samples."""

    window_samples: int
    """Longest window to hand over at a time, context included; a multiple of hop_samples."""

    phase_sensitive: bool
    """Whether decoded waves follow the phase of the original, so that SNR and correlation mean something."""

    level: ClassVar[Literal["peak", "none"]] = "none"
    """`peak`: files are handed over with their mean removed and their peak at 0.5; `none`: as they are."""

    joins_features: ClassVar[bool] = False
    """Whether windows are joined in `to_features` before waves are made of them."""

    free_settings: ClassVar[tuple[str, ...]] = ("enhancer", "post_filter")
    """Fields of the config that `configure` may change."""

    code_settings: ClassVar[tuple[str, ...]] = ()
    """Fields of the config on which shapes of latents depend and which the decoder reads off them."""

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Settings under a name: `NAME:VARIANT` is a codec, too."""

    @abstractmethod
    def encode(self, wave: Tensor) -> Latents:
        """Turn waves into latents.

        Args:
            wave: `[B, C, T]` float32, C = audio_channels, T a multiple of hop_samples.

        Returns:
            `[B, D, N, ...]` each, N = T / hop_samples.
        """

    @abstractmethod
    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        """Turn latents into waves.

        Args:
            latents: as `encode` gives them; float32.
            length_samples: of the waves, at most N * hop_samples.

        Returns:
            `[B, C, length_samples]` float32.
        """

    @abstractmethod
    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        """Encode and decode, and keep every intermediate.

        Args:
            wave: `[B, C, T]` float32, C = audio_channels, T a multiple of hop_samples.

        Returns:
            Name to tensor, in the order they arise, such as `mel`, `latent`, `mel_decoded`; `wave` is the last.
        """

    def step_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes `[D, 1, ...]` of what `encode` makes of a single step, by name, found by encoding one of silence."""
        silence = torch.zeros(1, self.audio_channels, self.hop_samples, device=self.device)
        with torch.no_grad():
            return {name: tuple(value.shape[1:]) for name, value in self.encode(silence).items()}

    def to_features(self, latents: Latents) -> Latents:
        """Decode latents to the picture in which windows are joined; the latents themselves by default.

        Args:
            latents: as `encode` gives them; float32.

        Returns:
            `[B, D, N', ...]` each, N' a multiple of N.
        """
        return latents

    def from_features(self, features: Latents, length_samples: int) -> Tensor:
        """Synthesise waves from the features that `to_features` returns.

        Args:
            features: as `to_features` gives them.

        Returns:
            `[B, C, length_samples]` float32.
        """
        return self.decode(features, length_samples)

    def speaker(self) -> Speaker:
        """Return the synthesiser of all windows of a file, in order; by default each window on its own.

        Returns:
            What may remember how it spoke the window before.
        """
        return lambda features, span: self.from_features(features, span.length_samples)

    def enhance(self, latents: Latents) -> Latents:
        """Change latents before they are decoded, by the enhancer of the config; nothing by default.

        Args:
            latents: as `encode` gives them; float32.

        Returns:
            The same names and shapes.
        """
        return latents

    def extender(self) -> BandwidthExtender | None:
        """Return what makes the band above the codec's own once waves are decoded; none by default."""
        return None

    def told(self, side: Mapping[str, Tensor]) -> Codec:
        """Return a codec, with the same weights, that knows the side information of a latent; itself by default.

        Args:
            side: as a latent carries it.
        """
        return self

    def code_state(self) -> Mapping[str, Tensor]:
        """Weights that give latents their meaning: a decoder with others cannot read them; all by default."""
        return self.state_dict()

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change settings that need no other weights.

        Args:
            settings: what of the config is to be otherwise.

        Raises:
            ConfigError: for a setting that is unknown, out of range, or part of the weights.
        """
        config = type(self.config).from_dict(self.config.complete(settings))
        fixed = [key for key in diff(self.config, config) if key.partition(".")[0] not in self.free_settings]
        if fixed:
            raise ConfigError(
                f"{fixed[0]} of {self.name} cannot be changed: its weights were trained with it; "
                f"free are {', '.join(self.free_settings)}"
            )
        self.config = config

    def reconfigured(self, settings: Mapping[str, Any]) -> Self:
        """Return a codec with other settings that shares the weights; see `configure`.

        Args:
            settings: what of the config is to be otherwise.

        Returns:
            The other codec; this one stays as it is.

        Raises:
            ConfigError: for a setting that is unknown, out of range, or part of the weights.
        """
        twin = copy(self)
        twin._modules = dict(self._modules)  # another part may take the place of one
        twin.configure(settings)
        return twin

    def use_variant(self, variant: str) -> None:
        """Turn into a variant; the name says so from then on.

        Args:
            variant: a name in `variants`.

        Raises:
            UnknownNameError: for another one.
        """
        if variant not in self.variants:
            raise UnknownNameError(unknown_name_message(f"variant of {self.name}", variant, self.variants))
        self.configure(self.variants[variant])
        self.name = f"{self.name}:{variant}"

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next((value.device for value in self.parameters()), torch.device("cpu"))


CODECS: Catalogue[Codec] = Catalogue("codec")
"""Each builds a codec with its weights, on the CPU, in evaluation mode; `load_codec` is the way for users."""

CODEC_FILES: Catalogue[Codec] = Catalogue("kind of codec file")
"""Each reads a codec from a path; the name is the value of "codec" in the metadata of our own weight files."""


def check_codec_wave(wave: Tensor, codec: Codec) -> None:
    """Refuse waves that a codec cannot encode.

    Args:
        codec: what is to encode it.

    Raises:
        InputError: when the shape, type or length does not fit.
    """
    channels, hop = codec.audio_channels, codec.hop_samples
    if wave.ndim != 3 or wave.shape[1] != channels or not wave.is_floating_point():
        raise InputError(
            f"{codec.name} was given a wave of shape {tuple(wave.shape)} and type {wave.dtype}; "
            f"floating point [B, {channels}, T] is needed"
        )
    if wave.shape[-1] == 0 or wave.shape[-1] % hop:
        raise InputError(
            f"{codec.name} was given {wave.shape[-1]} samples; a multiple of {hop} is needed; pad the wave"
        )


MEL = "mel"


class CodecPicture:
    """Access to the latent and the mel spectrogram of a codec."""

    def __init__(self, codec: Codec) -> None:
        """Find the codec's only latent and whether it decodes to mel spectra."""
        self.codec = codec
        config = getattr(codec.config, "mel", None)
        self.has_mel = codec.joins_features
        self.mel_config = config if isinstance(config, MelConfig) else metric_mel(codec.sample_rate_hz)
        self._name = ""

    def levelled(self, wave: Tensor) -> Tensor:
        """Bring waves `[..., T]` to the level that the codec expects of whole files, each channel on its own."""
        return level_of(wave).apply(wave) if self.codec.level == "peak" else wave

    def encode(self, wave: Tensor) -> Tensor:
        """Encode waves `[B, C, T]` without gradients to the codec's only latent, `[B, D, T]` or `[B, D, T, F]`."""
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
