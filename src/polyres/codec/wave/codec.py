"""`polyres_wave`: a waveform codec of the strongest coefficients of a lapped transform, refined by a small network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from polyres.codec.base import CODEC_FILES, CODECS, Codec, CodecConfig, Latents, check_codec_wave
from polyres.codec.networks import load_codec_weights, save_codec_weights
from polyres.codec.wave.floor import floor_edges
from polyres.codec.wave.layer import Plan, decode_layer, encode_layer
from polyres.codec.wave.refiner import Posterior, Refiner, RefinerConfig, scale_of
from polyres.codec.wave.step import SILENT_LOG2, Layout, Tables, plain_tables
from polyres.core.errors import InputError
from polyres.weights.places import EMBEDDED_FOLDER

NAME, WIDE_NAME, LIVE_NAME = "polyres_wave", "polyres_wave_44k", "polyres_wave_live"
FILL_HIGH_HZ = 4000.0
SHARES = {"half": 1 / 2, "third": 1 / 3}
"""Variants that store fewer numbers: their share of those of the codec."""
EMBEDDED = EMBEDDED_FOLDER / "polyres-wave.safetensors"


class WaveCodecConfig(CodecConfig):
    """Sizes and rate; what the decoder does and `scalars_per_step` may be changed without other weights."""

    front_end: Literal["lapped"] = "lapped"  # `lapped`, the transform
    autoencoder: Literal["sparse"] = "sparse"  # `sparse`, the strongest coefficients
    synthesis: Literal["lapped", "refined"] = "lapped"  # `lapped`, with noise; `refined`, and the refiner
    sample_rate_hz: PositiveInt = 16_000  # of the waves
    audio_channels: Literal[1, 2] = 1  # coded together: 1, or 2 as middle and side
    frame_samples: PositiveInt = 2048  # of a frame, which is cut into blocks as it sounds
    frames_per_step: PositiveInt = 4  # frames that share a budget
    splits: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)  # how many blocks a frame may be cut into
    scalars_per_step: int = Field(default=1484, ge=32, le=60_000)  # numbers stored for a step, of all kinds together
    floor_scalars: PositiveInt = 208  # of these, for the levels of what is not kept
    floor_block: PositiveInt = 512  # samples between two levels
    floor_bands: PositiveInt = 64  # levels over frequency
    fill: float = Field(default=0.5, ge=0, le=1)  # amplitude of the noise below 4 kHz, as a share of what was not kept
    fill_high: float = Field(default=0.75, ge=0, le=1)  # the same from 4 kHz, where energy counts for more
    even_n_fft: PositiveInt = 1024  # window in samples in which the noise is made to keep to its levels
    even_rounds: int = Field(default=0, ge=0)  # how often; 0 leaves it as it is drawn, which delays nothing
    refiner: RefinerConfig | None = None  # sizes of the refiner; None leaves it out, and with it the KL latent

    @model_validator(mode="after")
    def _blocks_fit(self) -> WaveCodecConfig:
        """Refuse frames that cannot be cut."""
        powers = all(split & (split - 1) == 0 for split in self.splits)
        if not powers or not 1 <= len(self.splits) <= 8 or len(set(self.splits)) != len(self.splits):
            raise ValueError(f"splits are {list(self.splits)}; give 1 to 8 different powers of two")
        if self.frame_samples % (2 * max(self.splits)):
            raise ValueError(f"frame_samples {self.frame_samples} cannot be cut into {max(self.splits)} even blocks")
        if self.layout.step_samples % self.floor_block or self.floor_bands > self.floor_block:
            raise ValueError(f"floor_block {self.floor_block} must divide a step and hold {self.floor_bands} bands")
        if self.even_rounds and (self.even_n_fft % 32 or self.layout.step_samples % (self.even_n_fft // 8)):
            raise ValueError(
                f"even_n_fft {self.even_n_fft} must be a multiple of 32, and an eighth of it divide "
                f"{self.layout.step_samples}"
            )
        most = (self.layout.step_samples - self.frame_samples) // self.even_n_fft  # so that a step of context is enough
        if self.even_rounds > most:
            raise ValueError(
                f"{self.even_rounds} rounds of {self.even_n_fft} samples reach beyond a step; "
                f"even_rounds is at most {most}"
            )
        if self.kept_scalars < 8 * self.frames_per_step:
            raise ValueError(f"scalars_per_step {self.scalars_per_step} leaves {self.kept_scalars} for coefficients")
        if self.synthesis == "refined" and self.refiner is None:
            raise ValueError("synthesis refined needs the sizes of a refiner")
        if self.refiner is not None and self.layout.step_samples % self.refiner.latent_hop:
            raise ValueError(f"refiner.latent_hop {self.refiner.latent_hop} must divide {self.layout.step_samples}")
        return self

    @property
    def layout(self) -> Layout:
        """How a step is made up."""
        return Layout(self.frame_samples, self.frames_per_step, self.splits, self.audio_channels)

    @property
    def latent_scalars(self) -> int:
        """Numbers of the KL latent in a step."""
        if self.refiner is None:
            return 0
        return self.refiner.latent_channels * (self.layout.step_samples // self.refiner.latent_hop)

    @property
    def kept_scalars(self) -> int:
        """Numbers of a step for the kept coefficients and their places."""
        return self.scalars_per_step - self.floor_scalars - self.latent_scalars


class WaveCodec(Codec):
    """Keeps the strongest coefficients of a lapped transform whose blocks follow the signal."""

    config: WaveCodecConfig
    phase_sensitive = True
    free_settings: ClassVar[tuple[str, ...]] = (
        "fill",
        "fill_high",
        "even_n_fft",
        "even_rounds",
        "scalars_per_step",
        "synthesis",
    )
    code_settings = ("scalars_per_step",)

    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "half": {},
        "third": {},
        "plain": {"synthesis": "lapped"},
        "unfilled": {"synthesis": "lapped", "fill": 0.0, "fill_high": 0.0, "even_rounds": 0},
    }

    def __init__(self, config: WaveCodecConfig, name: str = NAME, seed: int = 0) -> None:
        """Build the codec with probabilities that know little of music."""
        super().__init__()
        self.config, self.name = config, name
        self.sample_rate_hz, self.audio_channels = config.sample_rate_hz, config.audio_channels
        self.hop_samples = config.layout.step_samples
        self.context_samples = 2 * self.hop_samples
        self.window_samples = 24 * self.hop_samples
        self.refiner = None
        if config.refiner is not None:
            self.refiner = Refiner(config.refiner, config.audio_channels, config.sample_rate_hz, seed)
        self.set_tables(plain_tables(len(config.splits)))

    def use_variant(self, variant: str) -> None:
        super().use_variant(variant)
        if variant in SHARES:
            self.configure({"scalars_per_step": round(SHARES[variant] * self.config.scalars_per_step)})

    def set_tables(self, tables: Tables) -> None:
        """Take other probabilities, for latents from now on."""
        for key, table in tables._asdict().items():
            self.register_buffer(f"table_{key}", torch.from_numpy(table.astype(np.float32)))

    @property
    def tables(self) -> Tables:
        """The probabilities."""
        found = (self.get_buffer(f"table_{key}").cpu().numpy().astype(np.int64) for key in Tables._fields)
        return Tables(*found)

    @property
    def plan(self) -> Plan:
        """How the carrying layer codes."""
        c = self.config
        middles = floor_edges(c.floor_block, c.floor_bands)[1:] / c.floor_block * c.sample_rate_hz / 2
        fill = np.where(middles > FILL_HIGH_HZ, c.fill_high, c.fill)
        return Plan(
            layout=c.layout,
            tables=self.tables,
            budget=c.kept_scalars,
            floor_budget=c.floor_scalars,
            floor_block=c.floor_block,
            floor_bands=c.floor_bands,
            fill=fill,
            even_n_fft=c.even_n_fft,
            even_rounds=c.even_rounds,
        )

    def code_state(self) -> Mapping[str, Tensor]:
        """Weights without which latents cannot be read: all."""
        return self.state_dict()

    def encode(self, wave: Tensor) -> Latents:
        """Turn waves into latents: `wave` `[B, C, T]`."""
        check_codec_wave(wave, self)
        if not bool(torch.isfinite(wave).all()):
            raise InputError(f"{self.name} was given a wave with NaN or infinite samples; repair the file")
        plan = self.plan
        coded = [encode_layer(one, plan) for one in wave.detach().cpu().numpy()]
        latents = {
            "coefficients": torch.from_numpy(np.stack([one.kept for one in coded])).to(wave.device),
            "floor": torch.from_numpy(np.stack([one.floor for one in coded])).to(wave.device),
        }
        if self.refiner is not None:
            carried = torch.from_numpy(np.stack([one.carried for one in coded]).astype(np.float32)).to(wave.device)
            posterior = self.refiner.encode(wave, carried, self.scale(latents["coefficients"]))
            latents["latent"] = _by_step(posterior, latents["floor"].shape[2])
        return latents

    def scale(self, coefficients: Tensor) -> Tensor:
        """Spread the thresholds that `coefficients` `[B, D, N]` hold over samples: `[B, 1, T]`."""
        log2 = coefficients[:, 0].float()
        return scale_of(torch.where(log2 <= SILENT_LOG2, 0.0, log2.exp2()), self.hop_samples)

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        """Turn latents into waves: `[B, C, length_samples]`."""
        return self._wave(latents, *self.parts(latents), length_samples)

    def _wave(self, latents: Latents, carried: Tensor, noise: Tensor, length_samples: int) -> Tensor:
        """Put the parts together."""
        if length_samples > carried.shape[-1]:
            raise InputError(f"{length_samples} samples were asked for; the latents hold {carried.shape[-1]}")
        wave = carried + noise
        if self.config.synthesis == "refined" and self.refiner is not None:
            latent = latents["latent"].flatten(2)
            wave = wave + self.refiner(carried, noise, self.scale(latents["coefficients"]), latent)
        return wave[..., :length_samples]

    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        """Encode and decode `[B, C, T]`: the latents, `carried` by them, `noise` in place of the rest, `wave`."""
        latents = {name: value.half().float() for name, value in self.encode(wave).items()}
        carried, noise = self.parts(latents)
        return {
            **latents,
            "carried": carried,
            "noise": noise,
            "wave": self._wave(latents, carried, noise, wave.shape[-1]),
        }

    def parts(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Decode what was kept, and noise in place of the rest: `[B, C, T]`."""
        names = ["coefficients", "floor", *(["latent"] if self.refiner is not None else [])]
        missing = [name for name in names if name not in latents]
        if missing or latents["coefficients"].ndim != 3 or latents["floor"].ndim != 3:
            found = ", ".join(f"{name} {list(value.shape)}" for name, value in latents.items())
            raise InputError(f"{self.name} needs latents {', '.join(names)}; given are {found or 'none'}")
        plan, device = self.plan, latents["floor"].device
        kept, floor = (latents[name].detach().cpu().numpy().astype(np.float32) for name in names[:2])
        found_parts = [decode_layer(one, levels, plan) for one, levels in zip(kept, floor, strict=True)]
        carried = np.stack([one[0] for one in found_parts]).astype(np.float32)
        noise = np.stack([one[1] for one in found_parts]).astype(np.float32)
        return torch.from_numpy(carried).to(device), torch.from_numpy(noise).to(device)


def _by_step(posterior: Posterior, steps: int) -> Tensor:
    """Means of the latent `[B, D, L]` as `[B, D, N, L / N]`."""
    return posterior.mean.unflatten(2, (steps, -1))


def save_wave_codec(
    model: WaveCodec, path: str | Path, card: Mapping[str, Any] | None = None, dtype: Literal["fp16", "fp32"] = "fp16"
) -> Path:
    """Write a codec with its config and card; see `save_codec_weights`."""
    return save_codec_weights(model, NAME, path, card, dtype)


@CODEC_FILES.register(NAME, "a waveform codec of ours")
def load_wave_codec(path: str | Path) -> WaveCodec:
    """Read a codec written by `save_wave_codec` from a file or a run folder with `best.safetensors`."""
    return load_codec_weights(path, NAME, lambda config: WaveCodec(WaveCodecConfig.from_dict(config)))


def _embedded(name: str) -> WaveCodec:
    """Read a codec that comes with the package."""
    codec = load_wave_codec(EMBEDDED.with_stem(name.replace("_", "-")))
    codec.name = name
    return codec


@CODECS.register(NAME, "our waveform codec, 16 kHz mono at 3 200 numbers a second or fewer; the default; embedded")
def embedded_wave_codec() -> WaveCodec:
    """Read the default."""
    return _embedded(NAME)


@CODECS.register(WIDE_NAME, "our waveform codec, 44.1 kHz stereo at 15 978 numbers a second; embedded")
def embedded_wide_codec() -> WaveCodec:
    """Read the one for whole recordings."""
    return _embedded(WIDE_NAME)


@CODECS.register(LIVE_NAME, "our waveform codec for live sound, 16 kHz mono, 128 ms, 3 188 numbers a second; embedded")
def embedded_live_codec() -> WaveCodec:
    """Read the one for live sound."""
    return _embedded(LIVE_NAME)
