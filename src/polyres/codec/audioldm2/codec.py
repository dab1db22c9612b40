"""AudioLDM2's autoencoder and vocoder as a codec, with the front end that they were trained on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from pydantic import model_validator
from torch import Tensor, nn
from torch.nn import functional as F

from polyres.codec.audioldm2.parts import REPOSITORIES, TINY, hub_folder, load_autoencoder, load_vocoder, tiny_folder
from polyres.codec.base import CODEC_FILES, CODECS
from polyres.codec.mel.chain import FRAMES_PER_STEP, MelChain, MelChainConfig
from polyres.dsp.input_level import level_of
from polyres.dsp.mel import AUDIOLDM2_16K, MEL_CONTROLS, MelConfig, audioldm2_log_mel, log_mel, require_front_end

FRONT_END = "audioldm2"
WINDOW_STEPS = 256
"""10.24 s, on which the weights were trained: attention and group norms see the whole window."""
CONTEXT_STEPS = 24

logger = logging.getLogger("polyres")


class AudioLDM2Config(MelChainConfig):
    """Settings of AudioLDM2 as a codec; see `MelChainConfig`."""

    front_end: str = FRONT_END  # `audioldm2`, or one of the wrong ones in MEL_CONTROLS
    autoencoder: Literal["mode", "sample", "doubled_scaling", "none"] = "mode"  # `doubled_scaling` scales latents twice
    mel: MelConfig = AUDIOLDM2_16K
    vocoder: str | None = None  # folder of another vocoder

    @model_validator(mode="after")
    def _has_front_end(self) -> AudioLDM2Config:
        """Refuse names that no catalogue has."""
        if self.front_end != FRONT_END:
            MEL_CONTROLS.get(self.front_end)
        return self


class AudioLDM2Codec(MelChain):
    """Mel spectrogram, autoencoder, vocoder; each channel on its own, 3200 numbers per second of it."""

    sample_rate_hz = AUDIOLDM2_16K.sample_rate_hz
    hop_samples = FRAMES_PER_STEP * AUDIOLDM2_16K.hop_length
    window_samples = WINDOW_STEPS * hop_samples
    context_samples = CONTEXT_STEPS * hop_samples
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
        """Take diffusers' AutoencoderKL of 64 mels and transformers' SpeechT5HifiGan of 64 mels at 16 kHz."""
        super().__init__()
        self.name = name
        self.config = AudioLDM2Config()
        self.autoencoder = autoencoder.requires_grad_(False)
        self.vocoder = vocoder.requires_grad_(False)
        self._lag: int | None = None

    @property
    def settings(self) -> AudioLDM2Config:
        """The config with its own type."""
        return cast(AudioLDM2Config, self.config)

    def configure(self, settings: Mapping[str, Any]) -> None:
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
        """Compute the log-mel spectrogram `[B, 1, T / 160, 64]` of waves `[B, 1, T]`, T a multiple of 640."""
        front_end = self.settings.front_end
        return audioldm2_log_mel(wave) if front_end == FRONT_END else MEL_CONTROLS.build(front_end, wave)

    def _speak(self, mel: Tensor, length_samples: int) -> Tensor:
        return _shifted(self._vocode(mel), self.lag_samples, length_samples)

    def _to_latent(self, mel: Tensor) -> Tensor:
        z = super()._to_latent(mel)
        return z * self._scale if self.settings.autoencoder == "doubled_scaling" else z

    def _to_mel(self, z: Tensor) -> Tensor:
        return super()._to_mel(z * self._scale if self.settings.autoencoder == "doubled_scaling" else z)

    @property
    def _scale(self) -> float:
        """What the diffusion model multiplies latents by."""
        return float(cast(Any, self.autoencoder).config.scaling_factor)

    def _vocode(self, mel: Tensor) -> Tensor:
        """Speak `[B, N, 64]` as `[B, L]`, in full precision: half of it costs much over that many layers."""
        with torch.autocast(self.device.type, enabled=False), torch.no_grad():
            wave: Tensor = self.vocoder(mel.float().to(self.device))
        return wave


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


LENGTH_FRAMES = 128
TRUSTED = 0.5
"""Correlation of the envelopes above which an estimate is believed."""

_BURSTS, _DECAY_S, _SMOOTHING_SAMPLES, _MARGIN_SAMPLES = 8, 0.02, 33, 80


def estimate_lag(vocode: Callable[[Tensor], Tensor], mel: MelConfig) -> int:
    """Estimate the delay of a vocoder, in samples (may be negative), from the envelope of a known signal.

    Transposed convolutions make it give a few samples more than its frames stand for: 160 T + 32 for AudioLDM2's.
    Where they belong depends on its training, so the known signal decides. A vocoder that does not follow it at all
    (random weights) is taken to spread them evenly.
    """
    known = bursts(LENGTH_FRAMES * mel.hop_length, mel.sample_rate_hz)
    spoken = vocode(log_mel(known[None], mel))[0].cpu()
    surplus = spoken.shape[-1] - known.shape[-1]
    lag, correlation = _best_lag(known, spoken, range(-_MARGIN_SAMPLES, max(0, surplus) + _MARGIN_SAMPLES + 1))
    return lag if correlation >= TRUSTED else surplus // 2


def bursts(length_samples: int, sample_rate_hz: int) -> Tensor:
    """Make the known signal `[T]`: decaying bursts of noise at uneven distances at AudioLDM2's level."""
    generator = torch.Generator().manual_seed(5)
    time_s = torch.arange(length_samples) / sample_rate_hz
    envelope = torch.zeros(length_samples)
    for number in range(_BURSTS):
        shift = float(torch.rand(1, generator=generator))
        begin_s = (number + 0.2 + 0.6 * shift) / _BURSTS * length_samples / sample_rate_hz
        since_s = time_s - begin_s
        envelope += torch.where(since_s >= 0, (-since_s.clamp_min(0) / _DECAY_S).exp(), 0)
    wave = envelope * torch.randn(length_samples, generator=generator)
    return level_of(wave).apply(wave)


def _best_lag(known: Tensor, spoken: Tensor, lags: range) -> tuple[int, float]:
    """Find the lag at which two envelopes agree best, and their correlation there."""
    one, other = _envelope(known), _envelope(spoken)
    found = (0, -1.0)
    for lag in lags:
        low, high = max(0, -lag), min(one.shape[0], other.shape[0] - lag)
        here = torch.stack([one[low:high], other[low + lag : high + lag]])
        correlation = float(torch.corrcoef(here)[0, 1])
        if correlation > found[1]:
            found = (lag, correlation)
    return found


def _envelope(wave: Tensor) -> Tensor:
    """Smoothed root of the power."""
    window = torch.hann_window(_SMOOTHING_SAMPLES + 2)[1:-1]
    kernel = (window / window.sum()).reshape(1, 1, -1)
    power = F.conv1d(wave.float().square()[None, None], kernel, padding=kernel.shape[-1] // 2)
    return power[0, 0].clamp_min(0).sqrt()
