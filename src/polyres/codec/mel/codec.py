"""`polyres_mel`: mel autoencoder, and a vocoder that works at the rate of frames and ends in an inverse transform."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.codec.base import CODEC_FILES, CODECS
from polyres.codec.mel.autoencoder import MelAutoencoder, MelAutoencoderConfig
from polyres.codec.mel.chain import FRAMES_PER_STEP, VOCODER, MelChain, MelChainConfig
from polyres.codec.networks import load_codec_weights, save_codec_weights
from polyres.core.config import Config
from polyres.core.errors import InputError
from polyres.dsp.framing import FrameTransform
from polyres.dsp.mel import MelConfig, log_mel, mel_filterbank, mel_framing, require_front_end
from polyres.weights.places import EMBEDDED_FOLDER

_MOST_NEPER = 6.0  # a bin may differ from the level of its mel bands by so much
_TINY = 1e-7
_ROUNDS = 4  # of fitting magnitudes to mel bands where it has to be exact


class MelVocoderConfig(Config):
    """Sizes of the vocoder."""

    width: int = Field(default=256, ge=1)  # channels inside
    depth: int = Field(default=6, ge=1)  # blocks
    widening: int = Field(default=3, ge=1)  # how much wider a block is inside
    kernel: int = Field(default=7, ge=1)  # frames that a block sees at once; odd


class _Block(nn.Module):
    """A convolution per channel over time, then two layers per frame; added to what comes in."""

    def __init__(self, config: MelVocoderConfig) -> None:
        super().__init__()
        width = config.width
        self.over_time = nn.Conv1d(width, width, config.kernel, padding=config.kernel // 2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.widen = nn.Linear(width, config.widening * width)
        self.narrow = nn.Linear(config.widening * width, width)
        self.gain = nn.Parameter(torch.full((width,), 1 / config.depth))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, N, width]`, same shape."""
        seen = self.over_time(x.transpose(1, 2)).transpose(1, 2)
        return x + self.gain * self.narrow(F.gelu(self.widen(self.norm(seen))))


class MelVocoder(nn.Module):
    """Log-mel spectra `[B, N, M]` to waves `[B, N * hop]`.

    Source: Siuzdak 2023, "Vocos: Closing the gap between time-domain and Fourier-based neural vocoders"; Liu et al.
        2022, "A ConvNet for the 2020s".
    """

    def __init__(self, config: MelVocoderConfig, mel: MelConfig, seed: int = 0) -> None:
        super().__init__()
        self.config, self.mel = config, mel
        bins = mel.n_fft // 2 + 1
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embed = nn.Conv1d(mel.mel_bins, config.width, config.kernel, padding=config.kernel // 2)
            self.norm = nn.LayerNorm(config.width)
            self.blocks = nn.ModuleList(_Block(config) for _ in range(config.depth))
            self.last_norm = nn.LayerNorm(config.width)
            self.head = nn.Linear(config.width, 2 * bins)
            self.louder = nn.Linear(config.width, mel.mel_bins)
            nn.init.normal_(self.head.weight, std=0.02)
            for value in (self.head.bias, self.louder.weight, self.louder.bias):
                nn.init.zeros_(value)
            with torch.no_grad():  # a click in the middle of the frame, not at its ends, where the window is 0
                self.head.bias[bins + 1 :: 2] = torch.pi
        filters = mel_filterbank(mel).float()
        # Share of each mel band in a bin; bins that no filter reaches take the nearest one's.
        share = filters / filters.amax(dim=1, keepdim=True).clamp_min(_TINY)
        bare = share.sum(dim=0) <= _TINY
        near = torch.where(torch.arange(bins) * mel.sample_rate_hz / mel.n_fft > mel.max_hz / 2, mel.mel_bins - 1, 0)
        share[near[bare], bare.nonzero()[:, 0]] = 1.0
        self.register_buffer("_filters", filters, persistent=False)
        self.register_buffer("_share", share / share.sum(dim=0), persistent=False)
        self.register_buffer("_heard", (~bare).float(), persistent=False)

    @property
    def context_frames(self) -> int:
        """Frames on each side that can change a sample."""
        overlap = -(-self.mel.n_fft // self.mel.hop_length)
        return (self.config.depth + 1) * (self.config.kernel // 2) + overlap

    def spectrum(self, log_mel: Tensor, as_given: bool = False) -> tuple[Tensor, Tensor]:
        """Predict log magnitudes and phases `[B, N, F]` of log-mel spectra `[B, N, M]`."""
        x = self.norm(self.embed((log_mel + 5).transpose(1, 2)).transpose(1, 2))
        for block in self.blocks:
            x = block(x)
        x = self.last_norm(x)
        shape, phase = self.head(x).chunk(2, dim=-1)
        shape = _MOST_NEPER * torch.tanh(shape / _MOST_NEPER)
        if not as_given:
            return self._fitted(shape, log_mel + self.louder(x)), phase
        for _ in range(_ROUNDS):
            shape = self._fitted(shape, log_mel)
        return shape, phase

    def _fitted(self, shape: Tensor, log_mel: Tensor) -> Tensor:
        """Bring log-magnitudes to the level of the mel bands: the logarithm of what they lack is spread over bins."""
        filters, share, power = self.get_buffer("_filters"), self.get_buffer("_share"), self.mel.power
        found = self.heard((power * shape).exp()) @ filters.T
        lacking = log_mel - found.clamp_min(_TINY).log()
        return shape + (lacking @ share) / power

    def magnitude(self, log_mel: Tensor) -> Tensor:
        """Return magnitudes `[B, F, N]` for a phase method; bins that no filter reaches are 0."""
        return self.heard(self.spectrum(log_mel, as_given=True)[0].exp()).transpose(1, 2)

    def heard(self, magnitude: Tensor) -> Tensor:
        """Silence bins of `[B, N, F]` that no filter reaches."""
        return magnitude * self.get_buffer("_heard")

    def forward(self, log_mel: Tensor) -> Tensor:
        """Synthesise waves `[B, N * hop]` from log-mel spectra `[B, N, M]`."""
        log_magnitude, phase = self.spectrum(log_mel)
        return self.wave(torch.polar(self.heard(log_magnitude.exp()), phase))

    def wave(self, spectra: Tensor) -> Tensor:
        """Put spectra `[B, N, F]` together: the waves whose frames come closest to them."""
        framing = mel_framing(self.mel, spectra.shape[1] * self.mel.hop_length)
        return FrameTransform(framing, torch.float32, spectra.device).synthesise(spectra)


NAME = "polyres_mel"
EMBEDDED = EMBEDDED_FOLDER / "polyres-mel.safetensors"
POLISHED = "vocoder+fgla"
LEARNED = "vocoder"

MEL_44K = MelConfig(
    sample_rate_hz=44100, n_fft=2048, win_length=2048, hop_length=512, mel_bins=128, min_hz=0.0, max_hz=22050.0
)
"""The whole band at 44.1 kHz: 86 frames per second of 128 mels."""

_WINDOW_STEPS = 256


class MelCodecConfig(MelChainConfig):
    """Front end, sizes of the two networks, and how waves are made; see `MelChainConfig`."""

    front_end: Literal["mel"] = "mel"  # `mel`, with any settings in `mel`
    autoencoder: Literal["mode", "sample", "none"] = "mode"  # as for all chains
    mel: MelConfig = MEL_44K  # the front end; those that the weights were not trained with are refused
    network: MelAutoencoderConfig = MelAutoencoderConfig(widths=(12, 24, 64))  # sizes of the autoencoder
    vocoder: MelVocoderConfig = MelVocoderConfig()  # sizes of the vocoder

    own_syntheses: ClassVar[tuple[str, ...]] = (VOCODER, POLISHED)
    own_inverses: ClassVar[tuple[str, ...]] = (LEARNED,)

    @model_validator(mode="after")
    def _can_be_cut(self) -> MelCodecConfig:
        """Refuse front ends whose spectra do not fit the autoencoder."""
        if self.mel.mel_bins % FRAMES_PER_STEP:
            raise ValueError(f"mel.mel_bins {self.mel.mel_bins} must be a multiple of {FRAMES_PER_STEP}")
        if self.mel.framing != "between":
            raise ValueError("mel.framing must be 'between': frames and samples of a step belong together")
        return self


class MelCodec(MelChain):
    """Mel autoencoder and vocoder of one front end; latents are "z" `[B, D, N, M / 4]`, four frames a step."""

    free_settings = (
        *(name for name in MelCodecConfig.model_fields if name not in ("mel", "network", "vocoder", "front_end")),
    )
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "no_autoencoder": {"autoencoder": "none"},
        "sampled_latent": {"autoencoder": "sample"},
        "phase": {"synthesis": "pghi+fgla", "phase_iterations": 32},
        "learned_phase": {"synthesis": "pghi+fgla", "phase_iterations": 32, "mel_inverse": LEARNED},
        "vocoder": {"synthesis": VOCODER},
        "polished": {"synthesis": POLISHED},
    }

    def __init__(self, config: MelCodecConfig, name: str = NAME, seed: int = 0) -> None:
        super().__init__()
        self.config, self.name = config, name
        self.sample_rate_hz = config.mel.sample_rate_hz
        self.hop_samples = FRAMES_PER_STEP * config.mel.hop_length
        self.autoencoder: MelAutoencoder = MelAutoencoder(config.network, config.mel.mel_bins, seed)
        self.vocoder = MelVocoder(config.vocoder, config.mel, seed)
        frames = max(self.autoencoder.context_frames, self.vocoder.context_frames)
        self.context_samples = -(-frames // FRAMES_PER_STEP) * self.hop_samples
        self.window_samples = max(_WINDOW_STEPS * self.hop_samples, 4 * self.context_samples)

    @property
    def settings(self) -> MelCodecConfig:
        """The config with its own type."""
        return cast(MelCodecConfig, self.config)

    def configure(self, settings: Mapping[str, Any]) -> None:
        wanted = MelCodecConfig.from_dict(self.config.complete(settings))
        require_front_end(wanted.mel, self.settings.mel, self.name)
        super().configure(settings)

    def code_state(self) -> Mapping[str, Tensor]:
        """Weights of the autoencoder: any vocoder can speak what it decodes."""
        return self.autoencoder.state_dict()

    def mel(self, wave: Tensor) -> Tensor:
        """Log-mel spectrogram `[B, 1, N, M]` of waves `[B, 1, T]`, T a multiple of hop_samples."""
        return log_mel(wave, self.settings.mel)

    def _magnitude(self, mel: Tensor) -> Tensor:
        if self.settings.mel_inverse != LEARNED:
            return super()._magnitude(mel)
        return self.vocoder.magnitude(mel.flatten(0, 1)).unflatten(0, mel.shape[:2])

    def _speak(self, mel: Tensor, length_samples: int) -> Tensor:
        if self.settings.synthesis == VOCODER:
            return cast(Tensor, self.vocoder(mel))[..., :length_samples]
        log_magnitude, phase = self.vocoder.spectrum(mel, as_given=True)
        magnitude = self.vocoder.heard(log_magnitude.exp()).transpose(1, 2)
        return self._from_magnitude(magnitude, "fast_griffin_lim", length_samples, phase.transpose(1, 2))

    def decode(self, latents: Mapping[str, Tensor], length_samples: int) -> Tensor:
        z, config = latents.get("z"), self.settings
        bins = config.mel.mel_bins // (1 if config.autoencoder == "none" else FRAMES_PER_STEP)
        if z is None or z.ndim != 4 or z.shape[3] != bins:
            found = ", ".join(f"{name} {list(value.shape)}" for name, value in latents.items())
            raise InputError(f"{self.name} needs latents z [B, D, N, {bins}]; given are {found or 'none'}")
        if length_samples > z.shape[2] * self.hop_samples:
            held = z.shape[2] * self.hop_samples
            raise InputError(f"{length_samples} samples were asked for; the latents hold {held}")
        return super().decode(dict(latents), length_samples)


def save_mel_codec(
    model: MelCodec, path: str | Path, card: Mapping[str, Any] | None = None, dtype: Literal["fp16", "fp32"] = "fp16"
) -> Path:
    """Write a codec, both networks in one file, with its config and card; see `save_codec_weights`."""
    return save_codec_weights(model, NAME, path, card, dtype)


@CODEC_FILES.register(NAME, "a mel codec of ours")
def load_mel_codec(path: str | Path) -> MelCodec:
    """Read a codec written by `save_mel_codec` from a file or a run folder with `best.safetensors`."""
    return load_codec_weights(
        path, NAME, lambda config: MelCodec(MelCodecConfig.from_dict(config), name=str(path))
    ).requires_grad_(False)


@CODECS.register(NAME, "our mel codec, 44.1 kHz, each channel on its own at 5 513 numbers a second; embedded")
def embedded_mel_codec() -> MelCodec:
    """Read the codec that comes with the package."""
    model = load_mel_codec(EMBEDDED)
    model.name = NAME
    return model
