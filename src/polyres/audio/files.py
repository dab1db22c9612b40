"""Read audio files: their facts, and their samples block by block in constant memory."""

from __future__ import annotations

import os
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from polyres.audio.decode import Decoder, open_decoder
from polyres.audio.file_names import shown
from polyres.audio.opening import check_facts, check_file
from polyres.audio.resample import rechunk
from polyres.audio.tags import read_tags
from polyres.core.errors import InputError
from polyres.dsp.axes import scale_warning

Wave = npt.NDArray[np.float32]
AnyPath = str | os.PathLike[str]


@dataclass(frozen=True)
class AudioInfo:
    """Facts about one audio stream of a file."""

    path: Path
    sample_rate_hz: int
    channels: int
    # Samples per channel: exact for PCM and FLAC, an estimate for other codings, None if unknown
    length_samples: int | None
    tags: dict[str, str]  # tags by their names in `polyres.audio.tags.TAG_NAMES`.
    codec: str  # name of the coding in lower case, such as `pcm_16`, `flac`, `mp3`
    streams: int = 1
    # A line for each thing that was chosen: the stream of several, silence before sound that starts late
    notes: tuple[str, ...] = ()


def probe(path: AnyPath, stream_index: int | None = None) -> AudioInfo:
    """Return the facts about an audio file without reading it through.

    Args:
        stream_index: Which of its audio streams, from 0; None is the one that it marks as the default.

    Raises:
        InputError: Missing, a folder, empty, not readable, not audio, or without a single sample.
    """
    return _info(Path(path), _open(Path(path), stream_index))


class AudioReader:
    """Read an audio file as float32 blocks in constant memory.

    Channels and rate stay as they are in the file. A file that is cut or damaged in mid-stream yields what
    decodes, and a line in `warnings` says so.

    Args:
        path: The file: anything that libsndfile or FFmpeg's libraries read.
        stream_index: Which of its audio streams, from 0; the first of a `.stem.mp4` is the mixture. None is the one
            that it marks as the default.

    Attributes:
        info: Facts about the file.
        warnings: One line for each thing that went wrong in the last pass over the file.

    Raises:
        InputError: Missing, a folder, empty, not readable, not audio, or without a single sample.
    """

    def __init__(self, path: AnyPath, stream_index: int | None = None) -> None:
        self._decoder = _open(Path(path), stream_index)
        self.info = _info(Path(path), self._decoder)
        self.warnings: list[str] = []
        self._running: Generator[Wave, None, None] | None = None

    def blocks(self, block_samples: int) -> Generator[Wave, None, None]:
        """Pass over the file once; every call starts a new pass and ends the one before.

        Args:
            block_samples: Samples per block, 1 or more.

        Yields:
            `[C, n]` float32, full scale at ±1; n is `block_samples` in all blocks but the last.

        Raises:
            InputError: A sample is NaN or infinite, or there is none at all.
            ValueError: `block_samples` is below 1.
        """
        if block_samples < 1:
            raise ValueError(f"block_samples is {block_samples}; it must be 1 or more")
        self.close()
        self.warnings.clear()
        self._running = self._pass(block_samples)
        return self._running

    def close(self) -> None:
        """Let go of the file; a running pass ends."""
        running, self._running = self._running, None
        if running is not None:
            running.close()

    def __enter__(self) -> AudioReader:
        """Return the reader."""
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Close the file."""
        self.close()

    def _pass(self, block_samples: int) -> Generator[Wave, None, None]:
        """Yield the checked blocks, then write down how the file ended."""
        got, peak = 0, 0.0
        with closing(self._decoder.pieces()) as pieces:
            for block in rechunk(pieces, block_samples):
                _check_finite(block, got, self.info)
                got += block.shape[1]
                peak = max(peak, float(block.max()), -float(block.min()))
                yield block
        if not got:
            raise _no_samples(self.info.path)
        lines = [*_endings(self._decoder, got), scale_warning(peak)]
        self.warnings += [f"{shown(self.info.path)} {line}" for line in lines if line]


def read_audio(
    path: AnyPath, start_samples: int = 0, length_samples: int | None = None, stream_index: int | None = None
) -> tuple[Wave, int]:
    """Read an audio file, or a part of it, into memory.

    WAV, FLAC, AIFF and Ogg Vorbis are read from exactly `start_samples` on; other files are decoded from
    their beginning, which gives the same samples and takes longer.

    Args:
        start_samples: First sample, from 0.
        length_samples: Number of samples, None for all up to the end. A file that ends earlier gives fewer.
        stream_index: Which of its audio streams, from 0; None is the one that it marks as the default.

    Returns:
        The samples `[C, T]` float32 with full scale at ±1, and the sample rate in Hz.

    Raises:
        InputError: As for `AudioReader`; or the file ends before `start_samples`.
        ValueError: A negative start, or a length below 1.
    """
    if start_samples < 0 or (length_samples is not None and length_samples < 1):
        raise ValueError(f"cannot read {length_samples} samples from {start_samples} on")
    decoder = _open(Path(path), stream_index)
    parts: list[Wave] = []
    missing = length_samples
    with closing(decoder.pieces(start_samples)) as pieces:
        for piece in pieces:
            parts.append(piece[:, :missing])
            if missing is not None:
                missing -= parts[-1].shape[1]
                if missing == 0:
                    break
    info = _info(Path(path), decoder, with_tags=False)
    if not parts and not start_samples:
        raise _no_samples(info.path)
    if not parts:
        raise InputError(f"{shown(path)} ends before sample {start_samples}; start earlier")
    wave = np.ascontiguousarray(np.concatenate(parts, axis=1))
    _check_finite(wave, start_samples, info)
    return wave, info.sample_rate_hz


def _open(path: Path, stream_index: int | None) -> Decoder:
    """Check the file itself, then open the decoder for it."""
    decoder = open_decoder(path, check_file(path), stream_index)
    check_facts(path, decoder.facts.sample_rate_hz, decoder.facts.channels)
    if decoder.facts.length_samples == 0:
        raise _no_samples(path)
    return decoder


def _info(path: Path, decoder: Decoder, with_tags: bool = True) -> AudioInfo:
    """Join the decoder's facts and the tags."""
    facts = decoder.facts
    return AudioInfo(
        path=path,
        sample_rate_hz=facts.sample_rate_hz,
        channels=facts.channels,
        length_samples=facts.length_samples,
        tags=read_tags(path) if with_tags else {},
        codec=facts.codec,
        streams=facts.streams,
        notes=facts.notes,
    )


def _no_samples(path: Path) -> InputError:
    return InputError(f"{shown(path)} holds no samples; give a file with sound in it")


def _check_finite(block: Wave, start_samples: int, info: AudioInfo) -> None:
    """Refuse NaN and infinite samples, naming the first."""
    finite = np.isfinite(block)
    if finite.all():
        return
    first = int(np.argmin(finite.all(axis=0)))
    channel = int(np.argmin(finite[:, first]))
    what = "a NaN" if np.isnan(block[channel, first]) else "an infinite"
    at_s = (start_samples + first) / info.sample_rate_hz
    raise InputError(
        f"{shown(info.path)} holds {what} sample at {at_s:.3f} s (channel {channel + 1}); "
        "repair the file or export it again"
    )


def _endings(decoder: Decoder, got_samples: int) -> list[str]:
    """Describe gaps in the file and an early end."""
    gaps = decoder.gaps
    told = ", ".join(f"{gap.length_s:.2f} s from {gap.start_s:.2f} s on" for gap in gaps[:3])
    more = f" and {len(gaps) - 3} more" if len(gaps) > 3 else ""
    found = [f"has gaps, which are silent in the result: {told}{more}"] if gaps else []
    ending = _ending(decoder, got_samples)
    return found if ending is None else [*found, ending]


def _ending(decoder: Decoder, got_samples: int) -> str | None:
    facts = decoder.facts
    got_s = got_samples / facts.sample_rate_hz
    if facts.stated_samples is not None and got_samples + facts.tolerance_samples < facts.stated_samples:
        return f"ends early: {got_s:.2f} s of {facts.stated_samples / facts.sample_rate_hz:.2f} s could be read"
    if decoder.is_cut:
        return f"ends early: {got_s:.2f} s could be read, its end is missing"
    if decoder.damaged_parts and not decoder.gaps:
        return f"is damaged: {decoder.damaged_parts} part(s) could not be decoded, {got_s:.2f} s could be read"
    return None
