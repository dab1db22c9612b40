"""AudioLDM2's autoencoder and vocoder as a codec, with the front end that they were trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from polyres.models.audioldm2_lag import estimate_lag
from polyres.models.audioldm2_parts import (
    FRAMES_PER_STEP,
    REPOSITORIES,
    TINY,
    hub_folder,
    load_autoencoder,
    load_vocoder,
    tiny_folder,
)
from polyres.models.codec_base import CODEC_FILES, CODECS, Codec, CodecConfig, Latents, check_codec_wave
from polyres.nn.enhance import ENHANCERS, enhance
from polyres.nn.enhance_context import EnhanceContext, MelStatistics
from polyres.nn.post_filter import POST_FILTERS, post_filter
from polyres.ops.mel import AUDIOLDM2_16K, MelConfig, audioldm2_log_mel, mel_framing, require_front_end
from polyres.ops.mel_controls import MEL_CONTROLS
from polyres.ops.mel_inverse import MEL_INVERSES, log_mel_to_linear
from polyres.ops.phase import PHASE_METHODS, reconstruct_framed

FRONT_END, VOCODER = "audioldm2", "vocoder"
WINDOW_STEPS = 256
"""10.24 s, on which the weights were trained: attention and group norms see the whole window."""
CONTEXT_STEPS = 24

logger = logging.getLogger("polyres")


class AudioLDM2Config(CodecConfig):
    """AudioLDM2 as a codec.

    Attributes:
        front_end: `audioldm2`, or one of the wrong ones in MEL_CONTROLS.
        autoencoder: `mode` of the posterior; `sample` draws from it; `doubled_scaling` scales latents for the
            diffusion model and once more instead of back; `none` leaves it out: the latent is the mel spectrogram.
        synthesis: `vocoder`, or a phase method on magnitudes that fit the mel spectrogram.
        strength: of the enhancer.
        seed: of everything random.
        mel_inverse: how magnitudes are found for a phase method.
        phase_iterations: of a phase method.
        mel: the front end; other settings than those of the training are refused.
        vocoder: folder of another vocoder.
    """

    front_end: str = FRONT_END
    autoencoder: Literal["mode", "sample", "doubled_scaling", "none"] = "mode"
    synthesis: str = VOCODER
    strength: float = Field(default=1.0, ge=0)
    seed: int = Field(default=0, ge=0)
    mel_inverse: str = "nnls"
    phase_iterations: int = Field(default=32, ge=0)
    mel: MelConfig = AUDIOLDM2_16K
    vocoder: str | None = None

    @model_validator(mode="after")
    def _known(self) -> AudioLDM2Config:
        """Refuse names that no catalogue has."""
        if self.front_end != FRONT_END:
            MEL_CONTROLS.get(self.front_end)
        if self.synthesis != VOCODER:
            PHASE_METHODS.get(self.synthesis)
        if self.enhancer is not None:
            ENHANCERS.get(self.enhancer)
        if self.post_filter is not None:
            POST_FILTERS.get(self.post_filter)
        MEL_INVERSES.get(self.mel_inverse)
        return self


class AudioLDM2Codec(Codec):
    """Mel spectrogram, autoencoder, vocoder; each channel on its own, 3200 numbers per second of it."""

    sample_rate_hz = AUDIOLDM2_16K.sample_rate_hz
    audio_channels = 1
    hop_samples = FRAMES_PER_STEP * AUDIOLDM2_16K.hop_length
    window_samples = WINDOW_STEPS * hop_samples
    context_samples = CONTEXT_STEPS * hop_samples
    phase_sensitive = False
    level: ClassVar[Literal["peak", "none"]] = "peak"
    joins_features: ClassVar[bool] = True
    free_settings = (*(name for name in AudioLDM2Config.model_fields if name != "mel"),)
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "decibel_front_end": {"front_end": "decibel_front_end"},
        "transposed_layout": {"front_end": "transposed_layout"},
        "doubled_scaling": {"autoencoder": "doubled_scaling"},
        "sampled_latent": {"autoencoder": "sample"},
        "no_autoencoder": {"autoencoder": "none"},
    }
    """The first four are wrong turns, kept as controls."""

    def __init__(self, name: str, autoencoder: nn.Module, vocoder: nn.Module) -> None:
        """Put the parts together.

        Args:
            name: of the codec.
            autoencoder: diffusers' AutoencoderKL of 64 mels.
            vocoder: transformers' SpeechT5HifiGan of 64 mels at 16 kHz.
        """
        super().__init__()
        self.name = name
        self.config = AudioLDM2Config()
        self.autoencoder = autoencoder.requires_grad_(False)
        self.vocoder = vocoder.requires_grad_(False)
        self._lag: int | None = None
        self.target: MelStatistics | None = None
        """What enhancers that match averages are told; per channel."""

    @property
    def settings(self) -> AudioLDM2Config:
        """The config with its own type."""
        return cast(AudioLDM2Config, self.config)

    def configure(self, settings: Mapping[str, Any]) -> None:
        """Change settings; see `Codec.configure`.

        Raises:
            ConfigError: for a setting that is unknown, out of range, or that the weights do not allow.
            UnknownNameError: for a name that no catalogue has.
            WeightsError: when the other vocoder cannot be read.
        """
        before = self.settings
        wanted = AudioLDM2Config.from_dict(before.complete(settings))
        require_front_end(wanted.mel, before.mel, self.name)
        vocoder = self.vocoder
        if wanted.vocoder != before.vocoder and wanted.vocoder is not None:
            vocoder = load_vocoder(Path(wanted.vocoder), wanted.mel).requires_grad_(False)
        super().configure(settings)
        if vocoder is not self.vocoder:
            self.vocoder = vocoder.to(self.device)
            self._lag = None

    def code_state(self) -> Mapping[str, Tensor]:
        """Weights of the autoencoder: any vocoder can speak what it decodes."""
        return self.autoencoder.state_dict()

    @property
    def lag_samples(self) -> int:
        """Samples by which the vocoder is late; estimated once, of a known signal."""
        if self._lag is None:
            self._lag = estimate_lag(self._vocode, self.settings.mel)
        return self._lag

    def mel(self, wave: Tensor) -> Tensor:
        """Log-mel spectrogram as the autoencoder reads it.

        Args:
            wave: `[B, 1, T]` float32, T a multiple of 640.

        Returns:
            `[B, 1, T / 160, 64]`.
        """
        front_end = self.settings.front_end
        return audioldm2_log_mel(wave) if front_end == FRONT_END else MEL_CONTROLS.build(front_end, wave)

    def encode(self, wave: Tensor) -> Latents:
        """Turn waves into latents; see `Codec.encode`: "z" `[B, 8, T / 640, 16]`."""
        check_codec_wave(wave, self)
        return {"z": self._to_latent(self.mel(wave))}

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        """Turn latents into waves; see `Codec.decode`."""
        return self.from_features(self.to_features(latents), length_samples)

    def to_features(self, latents: Latents) -> Latents:
        """Decode latents to log-mel spectra "mel" `[B, 1, N', 64]`, enhanced where the enhancer works on those."""
        mel = self._to_mel(latents["z"])
        return {"mel": self._enhanced(mel[:, 0], "mel")[:, None]}

    def from_features(self, features: Latents, length_samples: int) -> Tensor:
        """Make waves of log-mel spectra, by the vocoder or a phase method."""
        mel, config = features["mel"], self.settings
        if config.synthesis == VOCODER:
            spoken = self._vocode(mel[:, 0])
            wave = _shifted(spoken, self.lag_samples, length_samples)[:, None]
        else:
            wave = self._from_magnitude(log_mel_to_linear(mel, config.mel, config.mel_inverse), length_samples)
        return wave if config.post_filter is None else post_filter(config.post_filter, wave, self.sample_rate_hz)

    def enhance(self, latents: Latents) -> Latents:
        """Change latents by the enhancer of the config, where it works on latents."""
        return {"z": self._enhanced(latents["z"], "latent")}

    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        """Encode and decode, and keep every intermediate; see `Codec.stages`."""
        check_codec_wave(wave, self)
        config = self.settings
        found = {"mel": self.mel(wave)}
        found["latent"] = self._to_latent(found["mel"])
        latents = {"z": found["latent"]}
        if config.enhancer is not None:
            latents = self.enhance(latents)
            found["latent_enhanced"] = latents["z"]
        features = self.to_features(latents)
        found["mel_decoded"] = features["mel"]
        if config.synthesis != VOCODER:
            magnitude = log_mel_to_linear(features["mel"], config.mel, config.mel_inverse)
            found["magnitude"] = magnitude.transpose(-1, -2)
        found["wave"] = self.from_features(features, wave.shape[-1])
        return found

    def _to_latent(self, mel: Tensor) -> Tensor:
        config = self.settings
        if config.autoencoder == "none":
            return mel.reshape(mel.shape[0], -1, FRAMES_PER_STEP, mel.shape[-1]).transpose(1, 2)
        posterior = self.autoencoder.encode(mel).latent_dist
        if config.autoencoder == "sample":
            return posterior.sample(torch.Generator(mel.device).manual_seed(config.seed))
        z: Tensor = posterior.mode()
        return z * self.autoencoder.config.scaling_factor if config.autoencoder == "doubled_scaling" else z

    def _to_mel(self, z: Tensor) -> Tensor:
        config = self.settings
        if config.autoencoder == "none":
            return z.transpose(1, 2).flatten(1, 2)[:, None]
        if config.autoencoder == "doubled_scaling":
            z = z * self.autoencoder.config.scaling_factor
        mel: Tensor = self.autoencoder.decode(z).sample
        return mel

    def _enhanced(self, tensor: Tensor, domain: str) -> Tensor:
        config = self.settings
        if config.enhancer is None or ENHANCERS.build(config.enhancer).domain != domain:
            return tensor
        context = EnhanceContext(
            seed=config.seed, decode=lambda z: self._to_mel(z)[:, 0], mel=config.mel, target=self.target
        )
        return enhance(config.enhancer, tensor, config.strength, context)

    def _vocode(self, mel: Tensor) -> Tensor:
        """Speak `[B, N, 64]` as `[B, L]`, in full precision: half of it costs much over that many layers."""
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            wave: Tensor = self.vocoder(mel.float().to(self.device))
        return wave

    def _from_magnitude(self, magnitude: Tensor, length_samples: int) -> Tensor:
        config = self.settings
        framing = mel_framing(config.mel, magnitude.shape[-1] * config.mel.hop_length)
        wave = reconstruct_framed(magnitude, config.synthesis, framing, config.phase_iterations, config.seed)
        return wave[..., :length_samples]


def _shifted(wave: Tensor, lag: int, length_samples: int) -> Tensor:
    """Take a lag away and cut `[B, L]` to a length; zeros stand where there is nothing."""
    late = nn.functional.pad(wave, (max(0, -lag), max(0, lag + length_samples - wave.shape[-1])))
    start = max(0, lag)
    return late[..., start : start + length_samples]


def _load(name: str, folder: Path) -> AudioLDM2Codec:
    return AudioLDM2Codec(name, load_autoencoder(folder, AUDIOLDM2_16K), load_vocoder(folder, AUDIOLDM2_16K))


def _released(name: str) -> Callable[[], AudioLDM2Codec]:
    return lambda: _load(name, hub_folder(name))


for _name in REPOSITORIES:
    CODECS.register(_name, f"{_name} of the Hugging Face Hub, 16 kHz, 3200 numbers per second (CC BY-NC-SA 4.0)")(
        _released(_name)
    )


@CODECS.register(TINY, "the same chain with tiny random weights, for tests; what it decodes is noise")
def _build_tiny() -> AudioLDM2Codec:
    """Build the tiny codec and say what it is."""
    _remark_random()
    return _load(TINY, tiny_folder())


@cache
def _remark_random() -> None:
    logger.warning("%s has random weights: it shows that the chain works, and decodes to noise", TINY)


@CODEC_FILES.register("audioldm2", "a folder with vae and vocoder")
def _read_folder(folder: Path) -> AudioLDM2Codec:
    """Read a local folder; latents name it by its path."""
    return _load(str(folder), folder)
