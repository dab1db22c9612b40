"""`polyres_wave`: a waveform codec of the strongest coefficients of a lapped transform, refined by a small network."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor

from polyres.core.errors import ConfigError, InputError, WeightsError
from polyres.models.codec_base import CODEC_FILES, CODECS, Codec, CodecConfig, Latents, check_codec_wave
from polyres.models.wave_codec_layer import decode_layer, encode_layer
from polyres.models.wave_weights import read_codec_facts, save_codec_weights
from polyres.models.weights import fill, read_tensors, weights_file
from polyres.ops.sparse_contexts import BANDS, Layout, Tables, plain_tables

NAME = "polyres_wave"
EMBEDDED = Path(__file__).parent / "embedded" / "polyres-wave.safetensors"


class WaveCodecConfig(CodecConfig):
    """Sizes and rate of the codec; `fill` and `scalars_per_step` may be changed without other weights.

    Args:
        front_end: `lapped`, the transform.
        autoencoder: `sparse`, the strongest coefficients.
        synthesis: `lapped`, the inverse transform with noise in place of what was not kept.
        sample_rate_hz: of the waves.
        audio_channels: coded together: 1, or 2 as middle and side.
        frame_samples: of a frame, which is cut into blocks as it sounds.
        frames_per_step: frames that share a budget.
        splits: how many blocks a frame may be cut into.
        scalars_per_step: numbers stored for a step.
        fill: amplitude of the noise, as a share of what was not kept.
    """

    front_end: Literal["lapped"] = "lapped"
    autoencoder: Literal["sparse"] = "sparse"
    synthesis: Literal["lapped"] = "lapped"
    sample_rate_hz: PositiveInt = 16_000
    audio_channels: Literal[1, 2] = 1
    frame_samples: PositiveInt = 2048
    frames_per_step: PositiveInt = 4
    splits: tuple[PositiveInt, ...] = (1, 2, 4, 8, 16)
    scalars_per_step: int = Field(default=1480, ge=32, le=60_000)
    fill: float = Field(default=0.7, ge=0, le=1)

    @model_validator(mode="after")
    def _blocks_fit(self) -> WaveCodecConfig:
        """Refuse frames that cannot be cut."""
        unknown = [split for split in self.splits if split not in BANDS]
        if unknown or not 1 <= len(self.splits) <= 8:
            raise ValueError(f"splits are {list(self.splits)}; take 1 to 5 of {', '.join(map(str, BANDS))}")
        if self.frame_samples % (64 * max(self.splits)) and self.frame_samples % max(self.splits):
            raise ValueError(f"frame_samples {self.frame_samples} cannot be cut into {max(self.splits)} blocks")
        return self

    @property
    def layout(self) -> Layout:
        """How a step is made up."""
        return Layout(self.frame_samples, self.frames_per_step, self.splits, self.audio_channels)


class WaveCodec(Codec):
    """Keeps the strongest coefficients of a lapped transform whose blocks follow the signal.

    Latents: `coefficients` `[B, scalars_per_step, N]`: per step the threshold, integers that say where the kept
    coefficients are and how strong the rest is, and the coefficients themselves as real numbers.
    """

    config: WaveCodecConfig
    phase_sensitive = True
    free_settings: ClassVar[tuple[str, ...]] = ("fill", "scalars_per_step")
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "half": {"scalars_per_step": 740},
        "quarter": {"scalars_per_step": 370},
        "unfilled": {"fill": 0.0},
    }

    def __init__(self, config: WaveCodecConfig, name: str = NAME) -> None:
        """Build the codec with probabilities that know little of music.

        Args:
            config: sizes and rate.
            name: as users write it.
        """
        super().__init__()
        self.config, self.name = config, name
        self.sample_rate_hz, self.audio_channels = config.sample_rate_hz, config.audio_channels
        self.hop_samples = config.layout.step_samples
        self.context_samples = 2 * self.hop_samples
        self.window_samples = 24 * self.hop_samples
        self.set_tables(plain_tables(len(config.splits)))

    def set_tables(self, tables: Tables) -> None:
        """Take other probabilities, for latents from now on."""
        for key, table in tables._asdict().items():
            self.register_buffer(f"table_{key}", torch.from_numpy(table.astype(np.float32)))

    @property
    def tables(self) -> Tables:
        """The probabilities."""
        found = (self.get_buffer(f"table_{key}").cpu().numpy().astype(np.int64) for key in Tables._fields)
        return Tables(*found)

    def encode(self, wave: Tensor) -> Latents:
        """Turn waves into latents.

        Args:
            wave: `[B, C, T]` float32, C = audio_channels, T a multiple of hop_samples.

        Returns:
            `coefficients` `[B, scalars_per_step, N]`.

        Raises:
            InputError: when the wave does not fit or is not finite.
        """
        check_codec_wave(wave, self)
        if not bool(torch.isfinite(wave).all()):
            raise InputError(f"{self.name} was given a wave with NaN or infinite samples; repair the file")
        config, tables = self.config, self.tables
        columns = [
            encode_layer(one, config.layout, tables, config.scalars_per_step) for one in wave.detach().cpu().numpy()
        ]
        return {"coefficients": torch.from_numpy(np.stack(columns)).to(wave.device)}

    def decode(self, latents: Latents, length_samples: int) -> Tensor:
        """Turn latents into waves.

        Args:
            latents: as `encode` gives them; float32.
            length_samples: of the waves, at most N * hop_samples.

        Returns:
            `[B, C, length_samples]` float32.

        Raises:
            InputError: when the latents are none of this codec or too short.
        """
        carried, noise = self._parts(latents)
        if length_samples > carried.shape[-1]:
            raise InputError(f"{length_samples} samples were asked for; the latents hold {carried.shape[-1]}")
        return (carried + noise)[..., :length_samples]

    def stages(self, wave: Tensor) -> dict[str, Tensor]:
        """Encode and decode: `coefficients`, `carried` by them, `noise` in place of the rest, `wave`.

        Args:
            wave: `[B, C, T]` float32, C = audio_channels, T a multiple of hop_samples.

        Returns:
            Name to tensor, in the order they arise.
        """
        latents = {name: value.half().float() for name, value in self.encode(wave).items()}
        carried, noise = self._parts(latents)
        return {**latents, "carried": carried, "noise": noise, "wave": self.decode(latents, wave.shape[-1])}

    def _parts(self, latents: Latents) -> tuple[Tensor, Tensor]:
        """Decode what was kept, and the noise in place of the rest, `[B, C, T]` each."""
        scalars = latents.get("coefficients")
        if scalars is None or scalars.ndim != 3:
            raise InputError(f"{self.name} needs latents 'coefficients' [B, D, N]; encode the audio again")
        config, tables = self.config, self.tables
        columns = scalars.detach().cpu().numpy().astype(np.float32)
        found = [decode_layer(one, config.layout, tables, config.fill) for one in columns]
        waves = (np.stack([parts[place] for parts in found]).astype(np.float32) for place in range(2))
        carried, noise = (torch.from_numpy(wave).to(scalars.device) for wave in waves)
        return carried, noise


def save_wave_codec(
    model: WaveCodec, path: str | Path, card: Mapping[str, Any] | None = None, dtype: Literal["fp16", "fp32"] = "fp16"
) -> Path:
    """Write a codec with its config and card; see `polyres.models.wave_weights.save_codec_weights`."""
    return save_codec_weights(model, {"codec": NAME, "config": model.config.to_dict()}, path, card, dtype)


@CODEC_FILES.register(NAME, "a waveform codec of ours")
def load_wave_codec(path: str | Path) -> WaveCodec:
    """Read a codec written by `save_wave_codec`.

    Args:
        path: the file, or a run folder with `best.safetensors`.

    Returns:
        The codec, float32, in evaluation mode.

    Raises:
        WeightsError: when the file is missing, cut, of another kind, or its tensors do not fit its config.
    """
    source = weights_file(path)
    facts = read_codec_facts(source, NAME)
    try:
        model = WaveCodec(WaveCodecConfig.from_dict(facts["config"]))
    except ConfigError as error:
        raise WeightsError(f"{source}: its config is not usable: {error}") from error
    fill(model, read_tensors(source), str(source))
    return model.eval()


@CODECS.register(NAME, "our waveform codec, 16 kHz mono at 3 200 numbers a second or fewer; embedded")
def embedded_wave_codec() -> WaveCodec:
    """Read the codec that comes with the package.

    Raises:
        WeightsError: when the package is damaged.
    """
    return load_wave_codec(EMBEDDED)
