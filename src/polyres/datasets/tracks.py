"""Tracks: stems that belong together, measured, and read whole or in parts."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import soundfile
import soxr
import torch
from torch import Tensor

from polyres.audio.decode import UNLIMITED
from polyres.audio.file_names import shown
from polyres.audio.files import probe, read_audio
from polyres.audio.opening import open_sound
from polyres.audio.track_files import SOURCES, Part, Parts, TrackFiles
from polyres.core.errors import InputError
from polyres.datasets.collections import StemStreamReader
from polyres.datasets.layouts import find_tracks, stems_track
from polyres.datasets.stem_files import StemFile, index_stems, read_whole, spread_channels
from polyres.synth.modules.tracks import AS_WRITTEN, Variation, render

_SEEKABLE_SUFFIXES = (".wav", ".flac", ".ogg", ".aiff", ".aif")

Report = Callable[[str], None]


@dataclass(frozen=True)
class Track:
    """One song: its folder and its stems by source; sources it lacks are absent."""

    folder: Path  # its folder, or its file where one file holds all stems
    stems: dict[str, StemFile]
    name: str = ""
    warnings: tuple[str, ...] = ()  # at most one line, naming the stems that are shorter than the longest
    artist: str = ""  # who made it, where that is known

    @property
    def length_s(self) -> float:
        """Length of the longest stem in seconds."""
        return max(stem.length_s for stem in self.stems.values())


def index_tracks(
    root: str | Path,
    sources: Sequence[str] = SOURCES,
    layout: str = "stems",
    split: str = "all",
    report: Report | None = None,
) -> list[Track]:
    """List the tracks of a data set with the levels of their stems.

    `layout`: how the data set lies on disk, a name in `polyres.datasets.layouts.LAYOUTS`; `report`: receives one line
    per stem that is measured. Returns tracks in the order of the layout; those without any of the sources are left out.
    Raises ConfigError if there is no such layout, or it does not have the split; InputError if the root has no track,
    or a stem is missing or cannot be read.
    """
    found = find_tracks(root, layout, split, sources)
    for track in found:
        _refuse_problems(track)
    files = index_stems(Path(root), [parts for track in found for parts in track.stems.values()], report)
    return [_measured(track, files) for track in found if track.stems]


def _measured(track: TrackFiles, files: Mapping[Parts, StemFile]) -> Track:
    stems = {source: files[parts] for source, parts in track.stems.items()}
    lengths_s = {source: stem.length_s for source, stem in stems.items()}
    warning = padding_warning(track, lengths_s, min(stem.sample_rate_hz for stem in stems.values()))
    return Track(track.folder, stems, track.name, (warning,) if warning else (), track.artist)


def padding_warning(track: TrackFiles, lengths_s: Mapping[str, float], sample_rate_hz: int) -> str | None:
    """Word the warning about stems that are shorter than the longest."""
    longest_s = max(lengths_s.values())
    short = [source for source, length_s in lengths_s.items() if longest_s - length_s > 1.5 / sample_rate_hz]
    if not short:
        return None
    named = ", ".join(
        f"{shown(track.stems[source][0].path.name)} ({source}) by {longest_s - lengths_s[source]:.3f} s"
        for source in short
    )
    return f"track '{shown(track.name)}': shorter than its longest stem, padded with silence: {named}"


def _refuse_problems(track: TrackFiles) -> None:
    if track.problems:
        raise InputError(track.problems[0])


def read_part(
    path: Path, start_s: float, length_samples: int, sample_rate_hz: int, speed: float = 1.0, channels: int = 2
) -> np.ndarray:
    """Read a part of a file at another rate or speed.

    Args:
        path: audio file; WAV, FLAC, AIFF and Ogg are read from the start asked for, others are decoded up to it.
        start_s: where to begin, in seconds of the file.
        length_samples: samples wanted, counted at `sample_rate_hz`; zeros where the file ends earlier.
        speed: above 1 plays faster and higher, below 1 slower and lower.
        channels: channels of the result; one channel is repeated, extra ones are left out.

    Returns:
        float32 `[channels, length_samples]`.

    Raises:
        InputError: if the file cannot be read, or a file of another format ends before the start.
    """
    wave, _, factor = _excerpt(Part(path), start_s, length_samples, sample_rate_hz, speed)
    return _conform(wave, factor, length_samples, channels)


def read_stem(
    stem: StemFile,
    start_s: float,
    length_samples: int,
    sample_rate_hz: int,
    speed: float = 1.0,
    channels: int = 2,
    variation: Variation = AS_WRITTEN,
) -> np.ndarray:
    """Read a part of a stem, the sum of its files, at another rate or speed.

    `start_s`: where to begin, in seconds. `length_samples`: samples wanted, counted at `sample_rate_hz`; zeros where
    the stem ends earlier. `speed`: above 1 plays faster and higher, below 1 slower and lower. `channels`: channels of
    the result; one channel is repeated, extra ones are left out. `variation`: how a tracker module differs from what is
    written; recordings stay as they are. Returns float32 `[channels, length_samples]`. Raises InputError if a file is
    gone, cannot be read, or is shorter than when it was measured.
    """
    total: np.ndarray | None = None
    for part, length_s in zip(stem.parts, stem.part_lengths_s, strict=True):
        if start_s >= length_s:
            continue
        if part.instruments is not None:
            played = replace(variation, tempo=variation.tempo * speed, pitch=variation.pitch * speed)
            wave = render(part.path, part.instruments, length_samples, sample_rate_hz, max(0.0, start_s), played)
            wave = spread_channels(wave, channels)
            total = wave if total is None else total + wave
            continue
        wave, rate_hz, factor = _excerpt(part, start_s, length_samples, sample_rate_hz, speed)
        there = round(length_s * rate_hz) - round(max(0.0, start_s) * rate_hz)
        if len(wave) < min(there, _needed(length_samples, factor)) - 1:
            raise InputError(f"{part} is shorter than when it was measured; restore it, or start again to measure it")
        wave = _conform(wave, factor, length_samples, channels)
        total = wave if total is None else total + wave
    return np.zeros((channels, length_samples), np.float32) if total is None else total


def _excerpt(
    part: Part, start_s: float, length_samples: int, sample_rate_hz: int, speed: float
) -> tuple[np.ndarray, int, float]:
    """Read what a part at another rate or speed needs: `[T, C]`, the file's rate in Hz, its samples per result's."""
    path = part.path
    if part.stream is None and path.suffix.lower() in _SEEKABLE_SUFFIXES:
        try:
            with open_sound(path) as file:
                if 0 < file.frames < UNLIMITED:  # else its header states no length, which only decoding tells
                    factor = file.samplerate * speed / sample_rate_hz
                    file.seek(min(max(0, round(start_s * file.samplerate)), file.frames))
                    wave = file.read(_needed(length_samples, factor), dtype="float32", always_2d=True)
                    return wave, file.samplerate, factor
        except (soundfile.LibsndfileError, OSError) as error:
            raise InputError(f"cannot read the stem '{path}' ({error}); replace the file") from error
    reader = None if part.stream is None else StemStreamReader(path, part.stream)
    rate_hz = probe(path).sample_rate_hz if reader is None else reader.sample_rate_hz
    factor = rate_hz * speed / sample_rate_hz
    start_samples, needed = max(0, round(start_s * rate_hz)), _needed(length_samples, factor)
    wave = read_audio(path, start_samples, needed)[0] if reader is None else reader.read(start_samples, needed)
    return wave.T, rate_hz, factor


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
    folder: str | Path,
    sources: Sequence[str] = SOURCES,
    sample_rate_hz: int = 44_100,
    channels: int = 2,
    report: Report | None = None,
) -> Tensor:
    """Read all stems of one track folder.

    `folder`: holds `<source>.<ext>` files of any rate; missing stems become silence. `sources`: order of the stems in
    the result. `report`: receives one line where stems are padded. Returns float32 `[S, C, T]`, T being the longest
    stem's length; the sum over S is the mixture. Raises InputError if the folder has none of the stems or one cannot be
    read.
    """
    return load_layout_track(stems_track(Path(folder), sources), sources, sample_rate_hz, channels, report)


def load_layout_track(
    track: TrackFiles,
    sources: Sequence[str] = SOURCES,
    sample_rate_hz: int = 44_100,
    channels: int = 2,
    report: Report | None = None,
) -> Tensor:
    """Read all stems of one track of any layout.

    `track`: as `polyres.datasets.layouts.find_tracks` lists it; missing stems become silence. `sources`: order of the
    stems in the result. `report`: receives one line where stems are padded. Returns float32 `[S, C, T]`, T being the
    longest stem's length; the sum over S is the mixture. Raises InputError if the track has none of the stems, or a
    file is missing, short or cannot be read.
    """
    _refuse_problems(track)
    waves = {
        source: _load_parts(track.stems[source], sample_rate_hz, channels)
        for source in sources
        if source in track.stems
    }
    if not waves:
        raise InputError(f"no stems in '{track.folder}'; it needs files such as {sources[0]}.wav")
    lengths_s = {source: wave.shape[1] / sample_rate_hz for source, wave in waves.items()}
    warning = padding_warning(track, lengths_s, sample_rate_hz)
    if warning is not None and report is not None:
        report(warning)
    result = torch.zeros(len(sources), channels, max(wave.shape[1] for wave in waves.values()))
    for index, source in enumerate(sources):
        if source in waves:
            result[index, :, : waves[source].shape[1]] = torch.from_numpy(waves[source])
    return result


def load_mixture(track: TrackFiles, sample_rate_hz: int = 44_100, channels: int = 2) -> Tensor | None:
    """Read the mixture that a track brings along.

    Returns float32 `[C, T]`, or None where the track has no file of its mixture.
    """
    if track.mixture is None:
        return None
    return torch.from_numpy(_load_parts((track.mixture,), sample_rate_hz, channels))


def _load_parts(parts: Parts, sample_rate_hz: int, channels: int) -> np.ndarray:
    """Read the sum of whole files as `[channels, T]`."""
    total = np.zeros((channels, 0), np.float32)
    for number, part in enumerate(parts):
        wave, rate_hz = read_whole(part)
        length_samples = -(-wave.shape[1] * sample_rate_hz // rate_hz)
        conformed = _conform(wave.T, rate_hz / sample_rate_hz, length_samples, channels)
        if not number:
            total = conformed
            continue
        if length_samples > total.shape[1]:
            total = np.pad(total, ((0, 0), (0, length_samples - total.shape[1])))
        total[:, :length_samples] += conformed
    return total
