"""The piece of a file that climbs the ladder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.data.audio import probe, read_audio
from polyres.data.resample import resample
from polyres.models.codec_base import Codec
from polyres.ops.input_level import InputLevel, level_of

LEAST_STEPS = 8


@dataclass(frozen=True)
class Piece:
    """A piece of a file, at rate and level of a codec.

    Attributes:
        name: of the file.
        reference: `[C, T]` float32, T a multiple of the codec's hop.
        grouped: the same `[G, c, T]`, in groups of channels that the codec codes together.
        level: what was taken away of mean and peak; None for codecs that take files as they are.
        source: `[C, L]` float32 at the rate of the file.
        source_rate_hz: of the file.
    """

    name: str
    reference: Tensor
    grouped: Tensor
    level: InputLevel | None
    source: Tensor
    source_rate_hz: int

    def at(self, rate_hz: int) -> Tensor:
        """Return the piece at another rate, `[C, L']`, at the level of the codec."""
        wave = torch.from_numpy(resample(self.source.numpy(), self.source_rate_hz, rate_hz))
        return wave if self.level is None else self.level.apply(wave)


def read_piece(path: Path, codec: Codec, seconds: float) -> Piece:
    """Read the middle of a file.

    Args:
        path: any file with audio in it.
        codec: what is to be taken apart.
        seconds: of the piece; one window of the codec at most.

    Returns:
        The piece, cut to whole steps of the codec.

    Raises:
        InputError: if the file cannot be used or is shorter than 8 steps.
    """
    info = probe(path)
    length = round(min(seconds, codec.window_samples / codec.sample_rate_hz) * info.sample_rate_hz)
    start = max(0, ((info.length_samples or 0) - length) // 2)
    samples, rate_hz = read_audio(path, start, length)
    return piece_of(torch.from_numpy(samples), rate_hz, codec, path.name)


def piece_of(samples: Tensor, sample_rate_hz: int, codec: Codec, name: str) -> Piece:
    """Bring a waveform to rate and level of a codec.

    Args:
        samples: `[C, L]` float32, no longer than one window of the codec.
        sample_rate_hz: its rate.
        codec: what is to be taken apart.
        name: of the file.

    Returns:
        The piece, cut to whole steps of the codec.

    Raises:
        InputError: if it is shorter than 8 steps.
    """
    wave = torch.from_numpy(resample(samples.numpy(), sample_rate_hz, codec.sample_rate_hz))
    steps = min(wave.shape[-1], codec.window_samples) // codec.hop_samples
    if steps < LEAST_STEPS:
        least_s = LEAST_STEPS * codec.hop_samples / codec.sample_rate_hz
        raise InputError(
            f"{name}: {wave.shape[-1] / codec.sample_rate_hz:.2f} s are too short for {codec.name}; "
            f"{least_s:.2f} s or more are needed (a longer file, or more --seconds)"
        )
    wave = wave[:, : steps * codec.hop_samples]
    level = level_of(wave) if codec.level == "peak" else None
    wave = wave if level is None else level.apply(wave)
    missing = -wave.shape[0] % codec.audio_channels
    grouped = torch.cat([wave, wave[:1].expand(missing, -1)]).unflatten(0, (-1, codec.audio_channels))
    return Piece(name, wave, grouped, level, samples, sample_rate_hz)
