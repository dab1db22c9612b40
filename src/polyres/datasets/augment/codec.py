"""Augmentation by lossy coding: a round trip through an encoder and its decoder, in memory and in place."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import numpy as np
import numpy.typing as npt
import torch
from av.audio.codeccontext import AudioCodecContext
from torch import Tensor

from polyres.audio.resample import resample
from polyres.core.catalogue import unknown_name_message
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.datasets.augment.base import AUGMENTATIONS, change_chosen, draw_uniform
from polyres.datasets.augment.config import AugmentConfig

Wave = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Coding:
    """An encoder, its decoder, and what they take: the sample format, rates in Hz, and bit/s per channel."""

    encoder: str
    decoder: str
    sample_format: str
    rates_hz: tuple[int, ...]
    bit_rates: tuple[int, int]


_LOW_HZ = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000)
CODINGS = {
    "mp3": Coding("libmp3lame", "mp3float", "fltp", (*_LOW_HZ, 32_000, 44_100, 48_000), (8_000, 160_000)),
    "opus": Coding("libopus", "opus", "flt", (48_000,), (6_000, 256_000)),
    "aac": Coding("aac", "aac", "fltp", (16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000), (8_000, 256_000)),
}
"""Codecs by name; of those with several makers the one that all builds of PyAV have."""

_AAC_BITS_PER_SAMPLE = 6
_SPARE_FRAMES = 4  # more than any delay, so that the decoder gives back the last sample
_PAIR = 2


@AUGMENTATIONS.register("codec", "lossy coding and back, as of downloaded music")
def codec(stems: Tensor, config: AugmentConfig, generator: torch.Generator) -> Tensor:
    """Encode and decode each chosen stem; every sample stays where it was."""
    settings = config.codec

    def code(stem: Tensor, own: torch.Generator) -> Tensor:
        name = settings.codecs[int(torch.randint(len(settings.codecs), (1,), generator=own))]
        low, high = (float(np.log2(rate)) for rate in settings.bit_rate_kbps)
        bit_rate = 1000.0 * 2.0 ** float(draw_uniform((1,), (low, high), stem, own))
        pairs = [
            round_trip(stem[first : first + _PAIR].numpy(), name, round(bit_rate), config.sample_rate_hz)
            for first in range(0, len(stem), _PAIR)
        ]
        return torch.from_numpy(np.concatenate(pairs))

    return change_chosen(stems, settings.probability, generator, code)


def round_trip(wave: Wave, name: str, bit_rate: int, sample_rate_hz: int) -> Wave:
    """Encode a signal and decode it again.

    `wave`: `[C, T]` with one or two channels; peaks above full scale are brought down for the codec and up again.
    `name`: "mp3", "opus" or "aac". Returns `[C, T]` with the codec's delay taken out.
    """
    if name not in CODINGS:
        raise UnknownNameError(unknown_name_message("codec", name, CODINGS))
    coding = CODINGS[name]
    coded_hz = min((hz for hz in coding.rates_hz if hz >= sample_rate_hz), default=coding.rates_hz[-1])
    scale = max(1.0, float(np.abs(wave).max()))
    fitting = resample(wave / np.float32(scale), sample_rate_hz, coded_hz)
    low, high = coding.bit_rates
    if name == "aac":
        high = min(high, _AAC_BITS_PER_SAMPLE * coded_hz)
    try:
        coded = _code(fitting, coding, coded_hz, len(wave) * min(max(bit_rate // _PAIR, low), high))
    except av.codec.codec.UnknownCodecError as error:
        raise ConfigError(
            f"codec {name!r} needs FFmpeg's {coding.encoder} and {coding.decoder}, which this PyAV lacks; "
            "install PyAV from its wheels or take it out of augment.codec.codecs"
        ) from error
    return resample(coded, coded_hz, sample_rate_hz)[:, : wave.shape[1]] * np.float32(scale)


def _code(wave: Wave, coding: Coding, rate_hz: int, bit_rate: int) -> Wave:
    """Encode and decode `[C, T]` at a rate that the codec has."""
    channels, length = wave.shape
    layout = "mono" if channels == 1 else "stereo"
    encoder = cast(AudioCodecContext, av.CodecContext.create(coding.encoder, "w"))
    encoder.sample_rate, encoder.layout, encoder.format = rate_hz, layout, coding.sample_format
    encoder.bit_rate, encoder.time_base = bit_rate, Fraction(1, rate_hz)
    encoder.open()
    size = encoder.frame_size
    frames = -(-length // size) + _SPARE_FRAMES
    padded = np.zeros((channels, frames * size), np.float32)
    padded[:, :length] = wave
    packets = []
    for start in range(0, padded.shape[1], size):
        block = padded[:, start : start + size]
        data = block if encoder.format.is_planar else block.T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(data), format=coding.sample_format, layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate_hz, Fraction(1, rate_hz), start
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoder = cast(AudioCodecContext, av.CodecContext.create(coding.decoder, "r"))
    decoder.sample_rate, decoder.layout, decoder.extradata = rate_hz, layout, encoder.extradata
    decoded = [frame for packet in packets for frame in decoder.decode(packet)]
    return _placed(decoded, channels, length)


def _placed(frames: list[av.AudioFrame], channels: int, length: int) -> Wave:
    """Join decoded frames to `[C, T]` by the time that the last one states.

    FFmpeg cuts the delay of some codecs from the first frames without changing what these state.
    """
    parts = []
    for frame in frames:
        data = frame.to_ndarray()
        parts.append(data if frame.format.is_planar else data.reshape(-1, channels).T)
    last = frames[-1]
    joined = np.concatenate(parts, axis=1, dtype=np.float32)
    start = (last.pts or 0) - (joined.shape[1] - last.samples)
    result = np.zeros((channels, length), np.float32)
    kept = joined[:, max(0, -start) : max(0, length - start)]
    result[:, max(0, start) : max(0, start) + kept.shape[1]] = kept
    return result
