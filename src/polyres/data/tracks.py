"""Tracks: folders that hold one audio file per stem, found, read whole or in parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from polyres.core.errors import InputError
from polyres.data.activity import StemFile, index_files
from polyres.data.audio import probe, read_audio

SOURCES = ("drums", "bass", "other", "vocals")
AUDIO_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3", ".m4a", ".opus", ".wma")
_SEEKABLE_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif")


@dataclass(frozen=True)
class Track:
    """One song: its folder and its stems by source; sources it lacks are absent."""

    folder: Path
    stems: dict[str, StemFile]

    @property
    def length_s(self) -> float:
        """Length of the longest stem in seconds."""
        return max(stem.length_s for stem in self.stems.values())


def stem_paths(folder: Path, sources: Sequence[str] = SOURCES) -> dict[str, Path]:
    """Find the stem files of one track folder; with several formats of one stem the first of the list above counts."""
    found = {}
    for source in sources:
        for suffix in AUDIO_SUFFIXES:
            path = folder / f"{source}{suffix}"
            if path.is_file():
                found[source] = path
                break
    return found


def list_tracks(root: str | Path, sources: Sequence[str] = SOURCES) -> list[Path]:
    """List the track folders under a root, the root itself included.

    Args:
        root: folder searched at any depth; names that begin with a dot are left out.
        sources: a folder with a `<source>.<ext>` file of one of these is a track.

    Returns:
        Folders in alphabetical order.

    Raises:
        InputError: if the root is not a folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise InputError(f"no folder '{root}'; give a folder of tracks, each a folder with files such as drums.wav")
    folders = []
    pending = [root]
    while pending:
        folder = pending.pop()
        if stem_paths(folder, sources):
            folders.append(folder)
        pending += [sub for sub in folder.iterdir() if sub.is_dir() and not sub.name.startswith(".")]
    return sorted(folders)


def index_tracks(root: str | Path, sources: Sequence[str] = SOURCES) -> list[Track]:
    """List the tracks under a root with the levels of their stems.

    Args:
        root: folder of tracks.
        sources: stems to look for.

    Returns:
        Tracks in alphabetical order of their folders.

    Raises:
        InputError: if the root has no track or a stem cannot be read.
    """
    root = Path(root)
    paths = {folder: stem_paths(folder, sources) for folder in list_tracks(root, sources)}
    if not paths:
        names = ", ".join(f"{source}.wav" for source in sources)
        raise InputError(f"no tracks in '{root}'; each track is a folder with some of {names}")
    files = index_files(root, [path for stems in paths.values() for path in stems.values()])
    return [Track(folder, {source: files[path] for source, path in stems.items()}) for folder, stems in paths.items()]


def read_part(
    path: Path, start_s: float, length_samples: int, sample_rate_hz: int, speed: float = 1.0, channels: int = 2
) -> np.ndarray:
    """Read a part of a stem at another rate or speed.

    Args:
        path: audio file; WAV, FLAC, AIFF and Ogg are read from the start asked for, others are decoded up to it.
        start_s: where to begin, in seconds of the file.
        length_samples: samples wanted, counted at `sample_rate_hz`; zeros where the file ends earlier.
        sample_rate_hz: rate of the result.
        speed: above 1 plays faster and higher, below 1 slower and lower.
        channels: channels of the result; one channel is repeated, extra ones are left out.

    Returns:
        float32 `[channels, length_samples]`.

    Raises:
        InputError: if the file cannot be read, or a file of another format ends before the start.
    """
    if path.suffix.lower() in _SEEKABLE_SUFFIXES:
        try:
            with soundfile.SoundFile(path) as file:
                factor = file.samplerate * speed / sample_rate_hz
                file.seek(min(max(0, round(start_s * file.samplerate)), file.frames))
                wave = file.read(_needed(length_samples, factor), dtype="float32", always_2d=True)
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(f"cannot read the stem '{path}' ({error}); replace the file") from error
    else:
        rate_hz = probe(path).sample_rate_hz
        factor = rate_hz * speed / sample_rate_hz
        start_samples = max(0, round(start_s * rate_hz))
        wave = read_audio(path, start_samples, _needed(length_samples, factor))[0].T
    return _conform(wave, factor, length_samples, channels)


def _needed(length_samples: int, factor: float) -> int:
    """Samples to read for a resampled length, with a few more for the filter."""
    return length_samples if factor == 1.0 else int(np.ceil(length_samples * factor)) + 64


def _conform(wave: np.ndarray, factor: float, length_samples: int, channels: int) -> np.ndarray:
    """Resample `[T, C]` by the factor and bring it to `[channels, length_samples]`."""
    if factor != 1.0:
        wave = soxr.resample(wave, factor, 1.0, quality="HQ")
    kept = min(len(wave), length_samples)
    result = np.empty((channels, length_samples), np.float32)
    result[:, kept:] = 0.0
    for channel in range(channels):
        result[channel, :kept] = wave[:kept, min(channel, wave.shape[1] - 1)]
    return result


def load_track(
    folder: str | Path, sources: Sequence[str] = SOURCES, sample_rate_hz: int = 44_100, channels: int = 2
) -> Tensor:
    """Read all stems of one track.

    Args:
        folder: holds `<source>.<ext>` files of any rate; missing stems become silence.
        sources: order of the stems in the result.
        sample_rate_hz: rate of the result.
        channels: channels of the result.

    Returns:
        float32 `[S, C, T]`, T being the longest stem's length; the sum over S is the mixture.

    Raises:
        InputError: if the folder has none of the stems or one cannot be read.
    """
    folder = Path(folder)
    paths = stem_paths(folder, sources)
    if not paths:
        raise InputError(f"no stems in '{folder}'; it needs files such as {sources[0]}.wav")
    waves = {}
    for source, path in paths.items():
        wave, rate_hz = read_audio(path)
        length_samples = -(-wave.shape[1] * sample_rate_hz // rate_hz)
        waves[source] = _conform(wave.T, rate_hz / sample_rate_hz, length_samples, channels)
    result = torch.zeros(len(sources), channels, max(wave.shape[1] for wave in waves.values()))
    for index, source in enumerate(sources):
        if source in waves:
            result[index, :, : waves[source].shape[1]] = torch.from_numpy(waves[source])
    return result
