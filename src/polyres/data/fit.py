"""What the formats can hold, and the way there: resampled to a rate they have, mixed down to two channels."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from polyres.data.resample import StreamResampler

Wave = npt.NDArray[np.float32]

MAX_CHANNELS = {"wav": 65535, "flac": 8, "mp3": 2, "m4a": 2, "ogg": 2, "opus": 2}
MAX_RATE_HZ = 0xFFFFFFFF
_LIMITS_HZ = {"wav": MAX_RATE_HZ, "flac": 655_350, "ogg": 200_000, "opus": MAX_RATE_HZ}
_USUAL_RATES_HZ = (192_000, 384_000)
_RATES_HZ = {
    "mp3": (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000),
    "m4a": (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000),
}
_HALF = math.sqrt(0.5)
# Gains of the channels in the left one, in the order of RFC 9639, section 9.1.3; the right one mirrors them.
_LEFT = {
    3: (1, 0, _HALF),
    4: (1, 0, _HALF, 0),
    5: (1, 0, _HALF, _HALF, 0),
    6: (1, 0, _HALF, 0, _HALF, 0),
    7: (1, 0, _HALF, 0, 0.5, _HALF, 0),
    8: (1, 0, _HALF, 0, _HALF, 0, _HALF, 0),
}
_MIRROR = {
    3: (1, 0, 2),
    4: (1, 0, 3, 2),
    5: (1, 0, 2, 4, 3),
    6: (1, 0, 2, 3, 5, 4),
    7: (1, 0, 2, 3, 4, 6, 5),
    8: (1, 0, 2, 3, 5, 4, 7, 6),
}


def held_rate_hz(audio_format: str, sample_rate_hz: int) -> int:
    """Return the rate at which a format holds sound: the same, else the next above, else the highest.

    Args:
        audio_format: a format of `polyres.data.writer.FORMATS`.
        sample_rate_hz: of the sound, 1 or more.
    """
    if audio_format in _RATES_HZ:
        rates_hz = _RATES_HZ[audio_format]
        return next((rate_hz for rate_hz in rates_hz if rate_hz >= sample_rate_hz), rates_hz[-1])
    limit_hz = _LIMITS_HZ[audio_format]
    if sample_rate_hz <= limit_hz:
        return sample_rate_hz
    return max((rate_hz for rate_hz in _USUAL_RATES_HZ if rate_hz <= limit_hz), default=limit_hz)


def held_channels(audio_format: str, channels: int) -> int:
    """Return the number of channels in which a format holds sound: the same, else 2."""
    return channels if channels <= MAX_CHANNELS[audio_format] else 2


def downmix_gains(channels: int) -> Wave:
    """Return `[2, C]` gains that mix channels down to left and right and let nothing clip that did not before.

    Up to eight channels stand for front, centre, bass and surround as FLAC orders them; the bass channel is left out.
    Of more channels nobody says what they are: the odd ones go to the left, the even ones to the right.

    Source: ITU-R BS.775-4, annex 4, scaled to a sum of 1 per row.

    Args:
        channels: C, 3 or more.
    """
    if channels in _LEFT:
        left = np.array(_LEFT[channels])
        gains = np.stack([left, left[list(_MIRROR[channels])]])
    else:
        gains = np.stack([np.arange(channels) % 2 == side for side in (0, 1)]).astype(np.float64)
    return (gains / gains.sum(axis=1, keepdims=True)).astype(np.float32)


class Fitter:
    """Turns blocks into what a format can hold.

    Args:
        audio_format: as for `held_rate_hz`.
        sample_rate_hz: of the blocks.
        channels: of the blocks.
    """

    def __init__(self, audio_format: str, sample_rate_hz: int, channels: int) -> None:
        held = held_channels(audio_format, channels)
        self._gains = downmix_gains(channels) if held != channels else None
        self._resampler = StreamResampler(sample_rate_hz, held_rate_hz(audio_format, sample_rate_hz), held)

    def push(self, block: Wave) -> Wave:
        """Take `[C, n]` and return `[held channels, m]`; m may be 0."""
        # Not a matrix product, whose rounding may depend on the length of the block.
        mixed = block if self._gains is None else np.einsum("sc,cn->sn", self._gains, block)
        return self._resampler.push(mixed)

    def finish(self) -> Wave:
        """Return the last samples."""
        return self._resampler.finish()


def fit_note(audio_format: str, sample_rate_hz: int, channels: int) -> str | None:
    """Say in one line what becomes of sound in a format; None where it stays as it is."""
    rate_hz, held = held_rate_hz(audio_format, sample_rate_hz), held_channels(audio_format, channels)
    parts = [] if rate_hz == sample_rate_hz else [f"{sample_rate_hz} Hz resampled to {rate_hz} Hz"]
    parts += [] if held == channels else [f"{channels} channels mixed down to {held}"]
    if not parts:
        return None
    return f"{' and '.join(parts)}, which {audio_format} can hold; wav keeps all"
