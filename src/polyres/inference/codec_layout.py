"""What the tensors of a latent must be for a codec and a length; checked before anything is decoded."""

from __future__ import annotations

from torch import Tensor

from polyres.core.errors import ConfigError
from polyres.data.resample import resampled_length
from polyres.inference.codec_stream import LOG2_PEAK, LOUDEST_LOG2, LOUDEST_MEAN, MEAN, SILENCE_LOG2, step_count
from polyres.inference.ensemble import channel_groups
from polyres.models.codec_base import Codec
from polyres.models.codec_latent import Latent
from polyres.models.staged import AVERAGES

RANGES = {
    MEAN: (-LOUDEST_MEAN, LOUDEST_MEAN),
    LOG2_PEAK: (SILENCE_LOG2, LOUDEST_LOG2),
    **dict.fromkeys(AVERAGES, (-64.0, 64.0)),
    AVERAGES[1]: (0.0, 64.0),
}
"""What side information may be."""


def check_layout(latent: Latent, codec: Codec) -> None:
    """Refuse a latent whose counts, shapes or levels cannot be those of anything that the codec coded.

    Args:
        latent: any.
        codec: what is to decode it.

    Raises:
        InputError: naming what does not fit.
    """
    if latent.sample_rate_hz != codec.sample_rate_hz:
        raise latent.damaged(f"sample_rate_hz is {latent.sample_rate_hz}; {codec.name} has {codec.sample_rate_hz}")
    groups = len(channel_groups(latent.channels, codec.audio_channels))
    steps = step_count(codec, resampled_length(latent.length_samples, latent.input_rate_hz, codec.sample_rate_hz))
    told = {key: latent.config[key] for key in codec.code_settings if key in latent.config}
    try:
        one = (codec.reconfigured(told) if told else codec).step_shapes()
    except ConfigError as error:
        raise latent.damaged(f"its config: {error}") from error
    _compare(
        latent,
        {name: tuple(value.shape) for name, value in latent.tensors.items()},
        {name: (groups, shape[0], steps * shape[1], *shape[2:]) for name, shape in one.items()},
    )
    side = {MEAN: (latent.channels, 2), LOG2_PEAK: (latent.channels,)} if codec.level == "peak" else {}
    if any(name in latent.side for name in AVERAGES):
        bands = latent.side[AVERAGES[0]].shape[-1:] if AVERAGES[0] in latent.side else (0,)
        side |= dict.fromkeys(AVERAGES[:2], (groups, *bands)) | {AVERAGES[2]: (groups,)}
    _compare(latent, {name: tuple(value.shape) for name, value in latent.side.items()}, side)
    for name, value in latent.side.items():
        _check_range(latent, name, value)


def _compare(latent: Latent, found: dict[str, tuple[int, ...]], wanted: dict[str, tuple[int, ...]]) -> None:
    for name in dict.fromkeys((*wanted, *found)):
        if found.get(name) != wanted.get(name):
            here, there = (list(shapes[name]) if name in shapes else "absent" for shapes in (found, wanted))
            raise latent.damaged(
                f"{name!r} is {here}; for {latent.length_samples} samples at {latent.input_rate_hz} Hz in "
                f"{latent.channels} channels it must be {there}"
            )


def _check_range(latent: Latent, name: str, value: Tensor) -> None:
    low, high = RANGES[name]
    if not bool(((value >= low) & (value <= high)).all()):
        raise latent.damaged(
            f"{name!r} goes from {float(value.min()):g} to {float(value.max()):g}; {low:g} to {high:g} is possible"
        )
