"""Augmentations: cheap random changes of stems `[B, S, C, T]`, each drawn anew per item and stem."""

from __future__ import annotations

from collections.abc import Callable

import torch
from pydantic import Field
from torch import Tensor

from polyres.core.catalogue import Catalogue
from polyres.core.config import Config


class GainConfig(Config):
    """Random gain as a factor."""

    probability: float = Field(1.0, ge=0, le=1)
    range: tuple[float, float] = (0.25, 1.25)


class ChanceConfig(Config):
    """A change without settings."""

    probability: float = Field(0.5, ge=0, le=1)


class ShiftConfig(Config):
    """Random shift in time, zeros moving in."""

    probability: float = Field(0.1, ge=0, le=1)
    max_samples: int = Field(11_025, ge=0)


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
    cutoff_hz: tuple[float, float] = (3_500.0, 16_000.0)


class WidthConfig(Config):
    """Random stereo width as a factor on the side signal; `mono_probability` of the changed ones become mono."""

    probability: float = Field(0.3, ge=0, le=1)
    range: tuple[float, float] = (0.3, 1.5)
    mono_probability: float = Field(0.3, ge=0, le=1)


class SaturationConfig(Config):
    """Random soft clipping; `drive` times the RMS is where the curve bends, smaller is stronger."""

    probability: float = Field(0.12, ge=0, le=1)
    drive: tuple[float, float] = (1.0, 4.0)


class AugmentConfig(Config):
    """Which augmentations run, in which order, and how far each goes."""

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
    remix: ChanceConfig = ChanceConfig()
    shift: ShiftConfig = ShiftConfig()
    eq: EqConfig = EqConfig()
    low_pass: LowPassConfig = LowPassConfig()
    width: WidthConfig = WidthConfig()
    saturation: SaturationConfig = SaturationConfig()


Augmentation = Callable[[Tensor, AugmentConfig, torch.Generator], Tensor]
AUGMENTATIONS: Catalogue[Tensor] = Catalogue("augmentation")
"""Functions of stems, config and generator that return new stems and leave the given ones as they are."""


def augment_batch(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Change a batch of stems at random, one augmentation of the config's chain after another.

    Args:
        stems: float32 `[B, S, C, T]`; left as it is.
        config: which changes, how often and how far.
        generator: source of randomness, on the CPU.

    Returns:
        float32 `[B, S, C, T]`; the new mixture is the sum over S.

    Raises:
        UnknownNameError: if the chain names an augmentation that does not exist.
    """
    for name in config.chain:
        stems = AUGMENTATIONS.build(name, stems, config, generator)
    return stems


def _uniform(shape: tuple[int, ...], bounds: tuple[float, float], like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(shape, generator=generator) * (bounds[1] - bounds[0]) + bounds[0]
    return drawn.to(like)


def _chosen(stems: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    """Draw which stems `[B, S]` are changed."""
    return (torch.rand(stems.shape[:2], generator=generator) < probability).to(stems.device)


@AUGMENTATIONS.register("gain", "multiply each stem by a random factor")
def gain(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Multiply each chosen stem by a random factor."""
    factors = _uniform((*stems.shape[:2], 1, 1), config.gain.range, stems, generator)
    chosen = _chosen(stems, config.gain.probability, generator)[..., None, None]
    return stems * torch.where(chosen, factors, 1.0)


@AUGMENTATIONS.register("flip_channels", "swap left and right")
def flip_channels(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Reverse the channels of each chosen stem."""
    chosen = _chosen(stems, config.flip_channels.probability, generator)
    result = stems.clone()
    result[chosen] = stems[chosen].flip(1)
    return result


@AUGMENTATIONS.register("flip_sign", "turn the wave upside down")
def flip_sign(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Negate each chosen stem."""
    chosen = _chosen(stems, config.flip_sign.probability, generator)[..., None, None]
    return stems * (1.0 - 2.0 * chosen.to(stems.dtype))


@AUGMENTATIONS.register("remix", "exchange stems between the items of a batch")
def remix(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Permute each chosen source across the batch, independently of the other sources."""
    batch, sources = stems.shape[:2]
    columns = []
    chosen = torch.rand(sources, generator=generator) < config.remix.probability
    for source in range(sources):
        order = torch.randperm(batch, generator=generator)
        columns.append(order if chosen[source] else torch.arange(batch))
    order = torch.stack(columns, dim=1).to(stems.device)
    return stems[order, torch.arange(sources, device=stems.device)]


@AUGMENTATIONS.register("shift", "move each stem a little in time")
def shift(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Move each chosen stem later or earlier; zeros move in and nothing wraps around."""
    length = stems.shape[-1]
    limit = min(config.shift.max_samples, length)
    offsets = torch.randint(-limit, limit + 1, stems.shape[:2], generator=generator)
    chosen = _chosen(stems, config.shift.probability, generator)
    moved = stems.clone()
    for item, source in chosen.nonzero().tolist():
        offset = int(offsets[item, source])
        kept = length - abs(offset)
        moved[item, source] = 0.0
        start_to, start_from = max(offset, 0), max(-offset, 0)
        moved[item, source, :, start_to : start_to + kept] = stems[item, source, :, start_from : start_from + kept]
    return moved


@AUGMENTATIONS.register("width", "change the stereo width, down to mono")
def width(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Scale what differs between the channels of each chosen stem; their mean stays."""
    shape = (*stems.shape[:2], 1, 1)
    factors = _uniform(shape, config.width.range, stems, generator)
    mono = torch.rand(shape, generator=generator).to(stems) < config.width.mono_probability
    chosen = _chosen(stems, config.width.probability, generator)
    if not chosen.any():
        return stems
    picked = stems[chosen]
    middle = picked.mean(dim=1, keepdim=True)
    result = stems.clone()
    result[chosen] = torch.lerp(middle, picked, factors.masked_fill(mono, 0.0)[chosen])
    return result


@AUGMENTATIONS.register("saturation", "soft clipping at an unchanged level")
def saturation(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Bend the peaks of each chosen stem with tanh and bring its RMS back."""
    drive = _uniform((*stems.shape[:2], 1, 1), config.saturation.drive, stems, generator)
    chosen = _chosen(stems, config.saturation.probability, generator)
    if not chosen.any():
        return stems
    picked = stems[chosen]
    rms = picked.square().mean(dim=(1, 2), keepdim=True).sqrt()
    knee = drive[chosen] * rms + 1e-8
    bent = knee * torch.tanh(picked / knee)
    bent = bent * (rms / (bent.square().mean(dim=(1, 2), keepdim=True).sqrt() + 1e-8))
    result = stems.clone()
    result[chosen] = bent
    return result


@AUGMENTATIONS.register("eq", "random tilt, shelves and peaks")
def eq(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Filter each chosen stem with its own smooth zero-phase curve."""
    settings = config.eq
    count = stems.shape[0] * stems.shape[1]

    def spread(deviation: float) -> Tensor:
        return (torch.randn(count, 1, generator=generator) * deviation).to(stems)

    def curve(frequency_hz: Tensor) -> Tensor:
        octave = torch.log2(frequency_hz.clamp(min=20.0) / 1000.0)
        gain_db = spread(settings.tilt_db_per_octave) * octave
        for low, high, side in ((-4.0, -1.5, -1.0), (1.0, 3.5, 1.0)):
            corner = _uniform((count, 1), (low, high), stems, generator)
            gain_db = gain_db + spread(settings.shelf_db) * torch.sigmoid(side * 4.0 * (octave - corner))
        for _ in range(settings.peaks):
            centre = _uniform((count, 1), (-4.0, 4.0), stems, generator)
            octaves = _uniform((count, 1), (0.3, 1.5), stems, generator)
            gain_db = gain_db + spread(settings.peak_db) * torch.exp(-0.5 * ((octave - centre) / octaves) ** 2)
        return 10.0 ** (gain_db.clamp(-settings.max_db, settings.max_db) / 20.0)

    chosen = _chosen(stems, settings.probability, generator)
    return _filter_chosen(stems, chosen, curve, config.sample_rate_hz)


@AUGMENTATIONS.register("low_pass", "make a stem dull")
def low_pass(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Cut the treble of each chosen stem above a random frequency, about 50 dB within half an octave."""
    low, high = (torch.log2(torch.tensor(bound)).item() for bound in config.low_pass.cutoff_hz)
    count = stems.shape[0] * stems.shape[1]
    cutoff = _uniform((count, 1), (low, high), stems, generator)

    def curve(frequency_hz: Tensor) -> Tensor:
        above = (torch.log2(frequency_hz.clamp(min=20.0)) - cutoff).clamp(0.0, 0.5)
        return 10.0 ** (-100.0 * above / 20.0)

    chosen = _chosen(stems, config.low_pass.probability, generator)
    return _filter_chosen(stems, chosen, curve, config.sample_rate_hz)


_CURVE_POINTS = 512


def _filter_chosen(stems: Tensor, chosen: Tensor, curve: Callable[[Tensor], Tensor], sample_rate_hz: int) -> Tensor:
    """Filter the chosen stems; `curve` maps frequencies `[F]` in Hz to gains `[B * S, F]`."""
    # The curve is smooth in log frequency, so it is drawn on few points and interpolated.
    top = torch.log2(torch.tensor(sample_rate_hz / 2.0)).item()
    points = torch.linspace(0.0, 1.0, _CURVE_POINTS, device=stems.device)
    bottom = 4.0  # 16 Hz
    gains = curve(2.0 ** (bottom + points * (top - bottom)))
    if not chosen.any():
        return stems
    picked = stems[chosen]
    length = picked.shape[-1]
    size = fast_fft_size(length + sample_rate_hz // 50)
    frequency_hz = torch.fft.rfftfreq(size, 1.0 / sample_rate_hz, device=stems.device).clamp(min=16.0)
    place = ((torch.log2(frequency_hz) - bottom) / (top - bottom)).clamp(0.0, 1.0) * (_CURVE_POINTS - 1)
    left = place.floor().long().clamp(max=_CURVE_POINTS - 2)
    share = (place - left).to(gains)
    gains = gains[chosen.flatten()]
    response = gains[:, left] * (1.0 - share) + gains[:, left + 1] * share
    spectrum = torch.fft.rfft(picked, size) * response[:, None]
    result = stems.clone()
    result[chosen] = torch.fft.irfft(spectrum, size)[..., :length].to(stems.dtype)
    return result


def fast_fft_size(length: int) -> int:
    """Return the smallest even size of at least `length` whose prime factors are 2, 3 and 5."""
    best = 1 << max(1, (length - 1).bit_length())
    five = 1
    while five < best:
        three = five
        while three < best:
            two = 2 * three
            while two < length:
                two *= 2
            best = min(best, two)
            three *= 3
        five *= 5
    return best
