"""Settings of the augmentations: one small config each, all of them together, and named presets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, Field, field_validator, model_validator

from polyres.core.catalogue import unknown_name_message
from polyres.core.config import Config
from polyres.core.errors import UnknownNameError
from polyres.core.yaml_files import merge

Pair = TypeVar("Pair", bound=tuple[float, float])


def _ordered(bounds: Pair) -> Pair:
    low, high = bounds
    if low > high:
        raise ValueError(f"the lower end comes first; write [{high:g}, {low:g}]")
    return bounds


Positive = Annotated[float, Field(gt=0)]
NotAbove = Annotated[float, Field(le=0)]
NotNegative = Annotated[float, Field(ge=0)]
Range = Annotated[tuple[float, float], AfterValidator(_ordered)]
NotNegativeRange = Annotated[tuple[NotNegative, NotNegative], AfterValidator(_ordered)]
PositiveRange = Annotated[tuple[Positive, Positive], AfterValidator(_ordered)]
LevelRange = Annotated[tuple[NotAbove, NotAbove], AfterValidator(_ordered)]


class ChanceConfig(Config):
    """A change without settings."""

    probability: float = Field(0.5, ge=0, le=1)


class GainConfig(Config):
    """Random gain as a factor."""

    probability: float = Field(1.0, ge=0, le=1)
    range: Range = (0.25, 1.25)


class RemixConfig(Config):
    """Exchange of stems between items; the probability is per source and batch.

    Only items of one group exchange stems, so that the number of songs that meet in a mix does not depend on the batch
    size; None makes the batch one group. A batch that `group_size` does not divide is cut into as many groups as are
    full (at least one), of sizes that differ by one at most: no group but a small batch is smaller than asked for.
    """

    probability: float = Field(0.5, ge=0, le=1)
    group_size: int | None = Field(None, ge=1)


class ShiftConfig(Config):
    """Random shift in time, zeros moving in."""

    probability: float = Field(0.1, ge=0, le=1)
    max_samples: int = Field(11_025, ge=0)


class CropConfig(Config):
    """Random shift that shortens every segment by `shift_s`, so that no zeros move in; `same` within an item."""

    probability: float = Field(1.0, ge=0, le=1)
    shift_s: float = Field(1.0, ge=0)
    same: bool = False


class TempoConfig(Config):
    """Random tempo at an unchanged pitch: normal with this spread, within these limits, per cent of the tempo.

    `same` treats all stems of an item alike; the probability is then per item. Where a stem becomes shorter, zeros
    fill its end; `trim` instead cuts every segment to what is left at the highest tempo.
    """

    probability: float = Field(0.2, ge=0, le=1)
    max_tempo_percent: float = Field(12.0, ge=0, le=50)
    tempo_std_percent: float = Field(5.0, ge=0)
    same: bool = True
    trim: bool = False


class RepitchConfig(TempoConfig):
    """Random pitch in whole semitones, together with a random tempo."""

    max_semitones: int = Field(2, ge=0, le=12)


class EqConfig(Config):
    """Random tilt, shelves and peaks; spreads are standard deviations in dB, `max_db` limits the sum."""

    probability: float = Field(0.4, ge=0, le=1)
    tilt_db_per_octave: float = Field(0.7, ge=0)
    shelf_db: float = Field(3.0, ge=0)
    peak_db: float = Field(3.0, ge=0)
    peaks: int = Field(2, ge=0)
    max_db: float = Field(12.0, ge=0)


class LowPassConfig(Config):
    """Random dullness, as of strongly compressed files or old synthesisers."""

    probability: float = Field(0.12, ge=0, le=1)
    cutoff_hz: PositiveRange = (3_500.0, 16_000.0)


class WidthConfig(Config):
    """Random stereo width as a factor on the side signal; `mono_probability` of the changed ones become mono."""

    probability: float = Field(0.3, ge=0, le=1)
    range: Range = (0.3, 1.5)
    mono_probability: float = Field(0.3, ge=0, le=1)


class SaturationConfig(Config):
    """Random soft clipping; `drive` times the RMS is where the curve bends, smaller is stronger."""

    probability: float = Field(0.12, ge=0, le=1)
    drive: PositiveRange = (1.0, 4.0)


class CodecConfig(Config):
    """Lossy coding and back; `bit_rate_kbps` is that of a stereo stem, drawn by ratio and kept to what a codec can."""

    probability: float = Field(0.1, ge=0, le=1)
    codecs: tuple[Literal["mp3", "opus", "aac"], ...] = Field(("mp3", "opus", "aac"), min_length=1)
    bit_rate_kbps: PositiveRange = (64.0, 256.0)


class ReverbConfig(Config):
    """A random room: time of decay by 60 dB, level of the room below the direct sound, and time before it answers."""

    probability: float = Field(0.1, ge=0, le=1)
    decay_s: PositiveRange = (0.2, 1.2)
    level_db: LevelRange = (-24.0, -6.0)
    delay_s: NotNegativeRange = (0.002, 0.03)


class NoiseConfig(Config):
    """Random noise at a level relative to the stem's RMS; the tilt makes it white (0) to brown (-6)."""

    probability: float = Field(0.1, ge=0, le=1)
    level_db: LevelRange = (-70.0, -30.0)
    tilt_db_per_octave: Range = (-6.0, 0.0)


class AugmentConfig(Config):
    """Which augmentations run, in which order, and how far each goes.

    `preset` names values to start from; all others given say what differs from it. It is replaced by those values, so
    that a config that has been read shows what is done and not where it came from.
    """

    preset: str | None = None
    chain: tuple[str, ...] = (
        "remix",
        "shift",
        "saturation",
        "eq",
        "low_pass",
        "width",
        "flip_channels",
        "flip_sign",
        "gain",
    )
    sample_rate_hz: int = Field(44_100, gt=0)
    gain: GainConfig = GainConfig()
    flip_channels: ChanceConfig = ChanceConfig()
    flip_sign: ChanceConfig = ChanceConfig()
    remix: RemixConfig = RemixConfig()
    shift: ShiftConfig = ShiftConfig()
    crop: CropConfig = CropConfig()
    repitch: RepitchConfig = RepitchConfig()
    tempo: TempoConfig = TempoConfig()
    eq: EqConfig = EqConfig()
    low_pass: LowPassConfig = LowPassConfig()
    width: WidthConfig = WidthConfig()
    saturation: SaturationConfig = SaturationConfig()
    codec: CodecConfig = CodecConfig()
    reverb: ReverbConfig = ReverbConfig()
    noise: NoiseConfig = NoiseConfig()

    @field_validator("chain")
    @classmethod
    def _knows_the_chain(cls, chain: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse a name without settings: every augmentation has a field of its name."""
        known = [name for name in cls.model_fields if name not in ("preset", "chain", "sample_rate_hz")]
        for name in chain:
            if name not in known:
                raise UnknownNameError(unknown_name_message("augmentation", name, known))
        return chain

    @model_validator(mode="before")
    @classmethod
    def _start_from_preset(cls, given: Any) -> Any:
        """Lay the given values over those of the named preset."""
        if not isinstance(given, Mapping) or not isinstance(given.get("preset"), str):
            return given
        name = given["preset"]
        if name not in PRESETS:
            raise UnknownNameError(unknown_name_message("augmentation preset", name, PRESETS))
        if set(cls.model_fields) <= set(given):
            raise ValueError(f"preset {name!r} beside every other value changes nothing; leave out what it shall set")
        return {**merge(PRESETS[name], given), "preset": None}

    def complete(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Lay given values over these; a preset among them takes the place of these."""
        return dict(given) if given.get("preset") is not None else super().complete(given)


PRESETS: dict[str, dict[str, Any]] = {
    # Segments come out shorter, as there: 0.88 of their length less 1 s (11 s become 8.68 s, 10 s become 7.8 s).
    # Source: https://github.com/facebookresearch/demucs, conf/config.yaml.
    "htdemucs": {
        "chain": ["repitch", "crop", "flip_channels", "flip_sign", "gain", "remix"],
        "repitch": {
            "probability": 0.2,
            "max_semitones": 2,
            "max_tempo_percent": 12.0,
            "tempo_std_percent": 5.0,
            "same": True,
            "trim": True,
        },
        "crop": {"probability": 1.0, "shift_s": 1.0, "same": False},
        "flip_channels": {"probability": 0.5},
        "flip_sign": {"probability": 0.5},
        "gain": {"probability": 1.0, "range": [0.25, 1.25]},
        "remix": {"probability": 1.0, "group_size": 4},
    }
}
"""Values by name that `preset` starts from."""
