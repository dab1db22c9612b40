"""Stems: the files whose sum is one stem, read block by block, and how loud each second of it is."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from polyres.audio.files import AudioReader
from polyres.audio.resample import StreamResampler, rechunk
from polyres.audio.track_files import Part, Parts, content_stamp, load_measured, save_measured
from polyres.core.errors import InputError
from polyres.datasets.collections import StemStreamReader
from polyres.dsp.levels import SILENCE_LUFS, LoudnessMeter
from polyres.synth.modules.tracks import ModulePartReader

Wave = npt.NDArray[np.float32]

_WHOLE_BLOCK_SAMPLES = 1 << 18


class PartReader(Protocol):
    """One file that is read block by block."""

    warnings: list[str]

    def blocks(self, block_samples: int) -> Generator[Wave, None, None]:
        """Pass over the file once, yielding `[C, n]`."""
        ...


class StemReader:
    """Read a stem, the sum of its parts, in constant memory.

    Parts of other rates are brought to the rate of the first; a part with fewer channels repeats its last one; those
    that end early count as silent behind their end.

    `sample_rate_hz`: Sample rate of the sum, that of the first part. `lengths_samples`: Samples of each part at its own
    rate; known once `blocks` has ended. Raises InputError: A file is missing or cannot be read.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        opened = [_open(part) for part in parts]
        self._readers: list[PartReader] = [reader for reader, _, _ in opened]
        self.sample_rates_hz = [rate_hz for _, rate_hz, _ in opened]
        self.sample_rate_hz = self.sample_rates_hz[0]
        self.channels = max(channels for _, _, channels in opened)
        self.lengths_samples = [0] * len(opened)

    @property
    def warnings(self) -> list[str]:
        """One line for each thing that went wrong in the last pass."""
        return [line for reader in self._readers for line in reader.warnings]

    def blocks(self, block_samples: int) -> Generator[Wave, None, None]:
        """Pass over all parts once.

        `block_samples`: Samples per block at the rate of the sum, 1 or more. Yields `[C, n]` float32; n is
        `block_samples` in all blocks but the last. Raises InputError: A file cannot be decoded, or holds NaN or
        infinite samples.
        """
        self.lengths_samples = [0] * len(self._readers)
        streams = [self._part(index, block_samples) for index in range(len(self._readers))]
        try:
            if len(streams) == 1:
                yield from streams[0]
                return
            for blocks in zip_longest(*streams):
                yield self._sum([block for block in blocks if block is not None])
        finally:
            for stream in streams:
                stream.close()

    def _part(self, index: int, block_samples: int) -> Generator[Wave, None, None]:
        """Yield one part at the rate of the sum."""
        reader, rate_hz = self._readers[index], self.sample_rates_hz[index]
        if rate_hz == self.sample_rate_hz:
            for block in reader.blocks(block_samples):
                self.lengths_samples[index] += block.shape[1]
                yield block
            return
        yield from rechunk(self._resampled(index, block_samples), block_samples)

    def _resampled(self, index: int, block_samples: int) -> Iterator[Wave]:
        resampler = None
        for block in self._readers[index].blocks(block_samples):
            if resampler is None:
                resampler = StreamResampler(self.sample_rates_hz[index], self.sample_rate_hz, len(block))
            self.lengths_samples[index] += block.shape[1]
            yield resampler.push(block)
        if resampler is not None:
            yield resampler.finish()

    def _sum(self, blocks: Sequence[Wave]) -> Wave:
        total = np.zeros((self.channels, max(block.shape[1] for block in blocks)), np.float32)
        for block in blocks:
            total[:, : block.shape[1]] += spread_channels(block, self.channels)
        return total


def _open(part: Part) -> tuple[PartReader, int, int]:
    """Return a reader with its rate and channels."""
    if part.instruments is not None:
        module = ModulePartReader(part)
        return module, module.sample_rate_hz, module.channels
    if part.stream is not None:
        stream = StemStreamReader(part.path, part.stream)
        return stream, stream.sample_rate_hz, stream.channels
    file = AudioReader(part.path)
    return file, file.info.sample_rate_hz, file.info.channels


def spread_channels(wave: Wave, channels: int) -> Wave:
    """Bring `[C, n]` to a number of channels: the last one is repeated, extra ones are left out."""
    return wave[np.minimum(np.arange(channels), len(wave) - 1)]


def refuse_warnings(warnings: Sequence[str]) -> None:
    """Refuse a file that did not end well. Raises InputError if there is a warning."""
    if warnings:
        raise InputError(f"{warnings[0]}; copy the file again or take it away")


def read_whole(part: Part) -> tuple[Wave, int]:
    """Read one file into memory. Returns `[C, T]` float32 and the sample rate in Hz."""
    reader, rate_hz, _ = _open(part)
    wave = np.concatenate(list(reader.blocks(_WHOLE_BLOCK_SAMPLES)), axis=1)
    refuse_warnings(reader.warnings)
    return wave, rate_hz


INDEX_NAME = ".polyres_index.json"
FLOOR_DB = -120.0
FORMAT = 2
_ACTIVE_RANGE_DB = 30.0
_ACTIVE_FLOOR_DB = -60.0
_SAVE_EVERY = 100

Report = Callable[[str], None]


@dataclass(frozen=True)
class StemFile:
    """One stem with its RMS level in dBFS for every full or begun second.

    `part_lengths_s`: length of each part in seconds; that of the stem where nothing is given.
    """

    parts: Parts  # the files whose sum it is
    sample_rate_hz: int
    length_samples: int  # length of the sum at that rate
    levels_db: np.ndarray  # RMS level of each second in dBFS
    loudness_lufs: float = SILENCE_LUFS  # integrated loudness; -120 for silence
    part_lengths_s: tuple[float, ...] = field(default=())

    def __post_init__(self) -> None:
        if not self.part_lengths_s:
            object.__setattr__(self, "part_lengths_s", (self.length_s,) * len(self.parts))

    @property
    def path(self) -> Path:
        """The first file."""
        return self.parts[0].path

    @property
    def is_module(self) -> bool:
        """Whether it is played from a tracker module."""
        return self.parts[0].instruments is not None

    @property
    def length_s(self) -> float:
        """Length in seconds."""
        return self.length_samples / self.sample_rate_hz

    @property
    def active(self) -> np.ndarray:
        """Bool per second: at most 30 dB below the loud seconds of the file and above -60 dBFS."""
        if len(self.levels_db) == 0:
            return np.zeros(0, bool)
        loud_db = float(np.percentile(self.levels_db, 95))
        return np.asarray(self.levels_db > max(_ACTIVE_FLOOR_DB, loud_db - _ACTIVE_RANGE_DB))

    @property
    def active_level_db(self) -> float:
        """RMS over the active seconds in dBFS; -120 when there are none."""
        levels_db = self.levels_db[self.active]
        if len(levels_db) == 0:
            return FLOOR_DB
        return float(10.0 * np.log10(np.mean(10.0 ** (levels_db / 10.0))))


def measure(parts: Sequence[Part]) -> StemFile:
    """Read a stem once, second by second, and note its levels.

    `parts`: the files whose sum it is. Raises InputError if a file is missing, cannot be read, is shorter than it says,
    is empty or holds NaN or infinite samples.
    """
    levels_db = []
    length_samples = 0
    reader = StemReader(parts)
    meter = LoudnessMeter(reader.sample_rate_hz, reader.channels)
    for block in reader.blocks(reader.sample_rate_hz):
        levels_db.append(level_db(block))
        length_samples += block.shape[1]
        meter.push(block)
    refuse_warnings(reader.warnings)
    lengths_s = zip(reader.lengths_samples, reader.sample_rates_hz, strict=True)
    return StemFile(
        tuple(parts),
        reader.sample_rate_hz,
        length_samples,
        np.round(np.asarray(levels_db), 1),
        round(meter.integrated_lufs(), 2),
        tuple(samples / rate_hz for samples, rate_hz in lengths_s),
    )


def level_db(block: np.ndarray) -> float:
    """RMS level of a block `[C, n]`, n >= 1, in dBFS; at least -120."""
    samples = block.reshape(-1)
    power = float(np.dot(samples, samples)) / len(samples)
    return max(FLOOR_DB, 10.0 * float(np.log10(max(power, 1e-12))))


def index_stems(root: Path, stems: Iterable[Parts], report: Report | None = None) -> dict[Parts, StemFile]:
    """Measure stems, reading only those that are new or changed since the last time.

    The index is kept as `.polyres_index.json` in the root, or in the user's cache folder when the root is read-only.
    What was measured before an error is kept too.
    """
    known = load_measured(root, INDEX_NAME, FORMAT)
    entries: dict[str, dict[str, Any]] = {}
    files: dict[Parts, StemFile] = {}
    stamps: dict[Path, str] = {}
    unsaved = 0
    try:
        for parts in stems:
            for part in parts:
                if part.path not in stamps:
                    stamps[part.path] = content_stamp(part.path)
            key = "|".join(_key(root, part) for part in parts)
            stamp = [stamps[part.path] for part in parts]
            entry = known.get(key)
            if entry is None or entry["stamp"] != stamp:
                if report is not None:
                    report(f"measuring {key}")
                entry = {"stamp": stamp, **_entry(measure(parts))}
                unsaved += 1
            entries[key] = entry
            files[parts] = _from_entry(parts, entry)
            if unsaved >= _SAVE_EVERY:
                save_measured(root, INDEX_NAME, FORMAT, {**known, **entries})
                unsaved = 0
    finally:
        if unsaved:
            save_measured(root, INDEX_NAME, FORMAT, {**known, **entries})
    return files


def _key(root: Path, part: Part) -> str:
    name = part.path.relative_to(root).as_posix()
    if part.instruments is not None:
        return f"{name}#{','.join(map(str, part.instruments))}"
    return name if part.stream is None else f"{name}#{part.stream}"


def _entry(stem: StemFile) -> dict[str, Any]:
    return {
        "rate_hz": stem.sample_rate_hz,
        "length_samples": stem.length_samples,
        "loudness_lufs": stem.loudness_lufs,
        "lengths_s": list(stem.part_lengths_s),
        "levels_db": stem.levels_db.tolist(),
    }


def _from_entry(parts: Parts, entry: dict[str, Any]) -> StemFile:
    return StemFile(
        parts,
        entry["rate_hz"],
        entry["length_samples"],
        np.asarray(entry["levels_db"], float),
        entry["loudness_lufs"],
        tuple(entry["lengths_s"]),
    )


SILENT_PEAK = 1e-4
"""A stem that never gets louder than this (-80 dBFS) counts as absent."""

ACTIVE_LEVEL_DB = -50.0
"""A second of a stem below this level, relative to the stem's loudest second, counts as a rest."""


def most_active_excerpt(stems: Tensor, length_samples: int, sample_rate_hz: int) -> Tensor:
    """Cut the excerpt in which most stems play for most of the time; the most central one of equals.

    `stems`: whole track `[S, C, T]`. `length_samples`: of the excerpt; a shorter track is returned whole. Returns A
    view `[S, C, min(T, length_samples)]`.
    """
    second = sample_rate_hz
    length = stems.shape[-1]
    num_seconds = length // second
    window = -(-length_samples // second)
    if length <= length_samples or num_seconds <= window:
        start = max((length - length_samples) // 2, 0)
        return stems[..., start : start + length_samples]
    levels = stems[..., : num_seconds * second].unflatten(-1, (num_seconds, second)).square().mean(dim=(1, 3))  # [S, N]
    threshold = levels.amax(dim=1, keepdim=True) * 10 ** (ACTIVE_LEVEL_DB / 10)
    playing = ((levels > threshold) & (levels > SILENT_PEAK**2)).sum(dim=0).double()
    sums = torch.nn.functional.pad(playing.cumsum(0), (1, 0))
    counts = sums[window:] - sums[:-window]
    best = torch.nonzero(counts == counts.max()).flatten()
    start = int(best[(best - (num_seconds - window) / 2).abs().argmin()]) * second
    return stems[..., start : start + length_samples]
