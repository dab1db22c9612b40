"""Checks of data sets: what is missing, unreadable, cut, clipped, silent, or does not sum to its mixture."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from polyres.audio.file_names import shown
from polyres.audio.track_files import SOURCES, Parts, TrackFiles
from polyres.core.errors import InputError
from polyres.datasets.layouts import find_tracks, guess_layout
from polyres.datasets.stem_files import StemReader, spread_channels
from polyres.datasets.tracks import padding_warning
from polyres.dsp.levels import LoudnessMeter

Wave = npt.NDArray[np.float32]

MIXTURE = "mixture"
CLIPPED_LEVEL = 32767.0 / 32768.0
"""A sample at or beyond the largest value of 16 bits counts as clipped."""

SILENT_PEAK = 1e-4
"""A stem that never gets louder than this (-80 dBFS) counts as silent."""

RESIDUAL_LIMIT_DB = -20.0
"""A mixture minus the sum of its stems should stay below this, relative to the mixture; lossy files reach -25."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class TrackCheck:
    """What was found in one track.

    `residual_db`: power of mixture minus sum of stems, relative to the mixture; None where it cannot be told.
    `loudness_lufs`: integrated loudness of the mixture, or of the sum of the stems where there is none.
    """

    name: str
    folder: str
    length_s: float = 0.0
    sample_rates_hz: tuple[int, ...] = ()  # all sample rates that occur
    channels: tuple[int, ...] = ()
    stems: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    silent: tuple[str, ...] = ()
    clipped_samples: int = 0  # samples at full scale, over all channels of stems and mixture
    residual_db: float | None = None
    loudness_lufs: float | None = None
    problems: tuple[str, ...] = ()  # one line each; what should be mended
    notes: tuple[str, ...] = ()  # one line each; what is allowed and good to know


@dataclass(frozen=True)
class DataCheck:
    """What was found in a data set."""

    root: str
    layout: str
    split: str
    tracks: tuple[TrackCheck, ...]

    @property
    def problems(self) -> int:
        """Number of problems in all tracks."""
        return sum(len(track.problems) for track in self.tracks)

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON would hold it, with totals."""
        residuals_db = [track.residual_db for track in self.tracks if track.residual_db is not None]
        return {
            "root": self.root,
            "layout": self.layout,
            "split": self.split,
            "tracks": [asdict(track) for track in self.tracks],
            "total": {
                "tracks": len(self.tracks),
                "length_s": sum(track.length_s for track in self.tracks),
                "sample_rates_hz": sorted({rate_hz for track in self.tracks for rate_hz in track.sample_rates_hz}),
                "channels": sorted({channels for track in self.tracks for channels in track.channels}),
                "missing_stems": sum(len(track.missing) for track in self.tracks),
                "silent_stems": sum(len(track.silent) for track in self.tracks),
                "clipped_samples": sum(track.clipped_samples for track in self.tracks),
                "worst_residual_db": max(residuals_db, default=None),
                "tracks_with_problems": sum(bool(track.problems) for track in self.tracks),
                "problems": self.problems,
            },
        }


@dataclass
class _Voice:
    """One stem, or the mixture, while it is read."""

    name: str
    parts: Parts
    problems: list[str]
    reader: StemReader | None = None
    blocks: Generator[Wave, None, None] | None = None
    length_samples: int = 0
    peak: float = 0.0
    clipped_samples: int = 0
    is_whole: bool = True
    rates_hz: set[int] = field(default_factory=set)

    def open(self) -> None:
        """Open the files and start to read them second by second."""
        try:
            self.reader = StemReader(self.parts)
        except InputError as error:
            self._fail(str(error))
            return
        self.rates_hz.update(self.reader.sample_rates_hz)
        self.blocks = self.reader.blocks(self.reader.sample_rate_hz)

    def next(self) -> Wave | None:
        """Return the next second, or None behind the end."""
        if self.blocks is None or self.reader is None:
            return None
        try:
            block = next(self.blocks, None)
        except InputError as error:
            self._fail(str(error))
            return None
        if block is None:
            self.blocks = None
            self.problems += self.reader.warnings
            return None
        self.length_samples += block.shape[1]
        level = np.abs(block)
        self.peak = max(self.peak, float(level.max()))
        self.clipped_samples += int(np.count_nonzero(level >= CLIPPED_LEVEL))
        return block

    def _fail(self, problem: str) -> None:
        self.problems.append(problem)
        self.is_whole = False
        self.blocks = None

    @property
    def length_s(self) -> float:
        """Seconds read so far."""
        return 0.0 if self.reader is None else self.length_samples / self.reader.sample_rate_hz


class _Comparison:
    """Compares a mixture with the sum of its stems, second by second."""

    def __init__(self, sample_rate_hz: int, channels: int, has_mixture: bool) -> None:
        self._channels = channels
        self._has_mixture = has_mixture
        self._meter = LoudnessMeter(sample_rate_hz, channels)
        self._difference = 0.0
        self._power = 0.0

    def push(self, blocks: Mapping[str, Wave]) -> None:
        """Take the same second of all that still sounds."""
        total = np.zeros((self._channels, max(block.shape[1] for block in blocks.values())), np.float32)
        for name, block in blocks.items():
            if name != MIXTURE:
                total[:, : block.shape[1]] += spread_channels(block, self._channels)
        if self._has_mixture:
            mixture = np.zeros_like(total)
            if MIXTURE in blocks:
                given = spread_channels(blocks[MIXTURE], self._channels)
                mixture[:, : given.shape[1]] = given
            self._difference += float(np.square(mixture - total, dtype=np.float64).sum())
            self._power += float(np.square(mixture, dtype=np.float64).sum())
            total = mixture
        self._meter.push(total)

    @property
    def residual_db(self) -> float | None:
        """Power of the difference relative to the mixture; None without a mixture that sounds; at least -200."""
        if self._power == 0.0:
            return None
        return round(10.0 * float(np.log10(max(self._difference / self._power, 1e-20))), 2)

    @property
    def loudness_lufs(self) -> float:
        """Loudness of the mixture, or of the sum."""
        return round(self._meter.integrated_lufs(), 2)


def check_track(track: TrackFiles, sources: Sequence[str] = SOURCES) -> TrackCheck:
    """Read all files of a track once, side by side, second by second."""
    problems = list(track.problems)
    voices = [_Voice(source, track.stems[source], problems) for source in sources if source in track.stems]
    if track.mixture is not None:
        voices.append(_Voice(MIXTURE, (track.mixture,), problems))
    for voice in voices:
        voice.open()
    comparison = _compare(voices)
    stems = [voice for voice in voices if voice.name != MIXTURE]
    whole = [voice for voice in stems if voice.is_whole]
    silent = tuple(voice.name for voice in whole if voice.peak < SILENT_PEAK)
    problems += _length_problems(track, voices)
    if len(_rates_hz(voices)) > 1:
        rates = ", ".join(f"{rate_hz} Hz" for rate_hz in _rates_hz(voices))
        problems.append(f"its files have different sample rates ({rates}); bring them to one")
    residual_db = None
    if comparison is not None and len(whole) == len(stems) and stems and not track.problems:
        residual_db = comparison.residual_db
    if residual_db is not None and residual_db > RESIDUAL_LIMIT_DB:
        problems.append(f"its mixture differs from the sum of its stems by {residual_db:.1f} dB")
    return TrackCheck(
        name=track.name,
        folder=shown(track.folder),
        length_s=max((voice.length_s for voice in stems), default=0.0),
        sample_rates_hz=tuple(_rates_hz(voices)),
        channels=tuple(sorted({voice.reader.channels for voice in voices if voice.reader is not None})),
        stems=tuple(voice.name for voice in stems),
        missing=tuple(source for source in sources if source not in track.stems),
        silent=silent,
        clipped_samples=sum(voice.clipped_samples for voice in voices),
        residual_db=residual_db,
        loudness_lufs=None if comparison is None else comparison.loudness_lufs,
        problems=tuple(dict.fromkeys(problems)),
        notes=_notes(track, sources, silent, sum(voice.clipped_samples for voice in voices)),
    )


def _rates_hz(voices: Sequence[_Voice]) -> list[int]:
    return sorted({rate_hz for voice in voices for rate_hz in voice.rates_hz})


def _compare(voices: Sequence[_Voice]) -> _Comparison | None:
    """Read all voices to their ends; None where they have different rates or none could be opened."""
    opened = [voice for voice in voices if voice.reader is not None]
    rates_hz = {voice.reader.sample_rate_hz for voice in opened if voice.reader is not None}
    comparison = None
    if len(rates_hz) == 1:
        channels = max(voice.reader.channels for voice in opened if voice.reader is not None)
        has_mixture = any(voice.name == MIXTURE for voice in opened)
        comparison = _Comparison(min(rates_hz), channels, has_mixture)
    while True:
        blocks = {voice.name: block for voice in opened if (block := voice.next()) is not None}
        if not blocks:
            return comparison
        if comparison is not None:
            comparison.push(blocks)


def _length_problems(track: TrackFiles, voices: Sequence[_Voice]) -> list[str]:
    """Word what is shorter than the longest."""
    whole = [voice for voice in voices if voice.is_whole and voice.rates_hz]
    lengths_s = {voice.name: voice.length_s for voice in whole if voice.name != MIXTURE}
    if not lengths_s:
        return []
    rate_hz = min(_rates_hz(whole))
    warning = padding_warning(track, lengths_s, rate_hz)
    found = [] if warning is None else [warning]
    for voice in whole:
        longer_s = voice.length_s - max(lengths_s.values())
        if voice.name == MIXTURE and abs(longer_s) > 1.5 / rate_hz:
            found.append(
                f"its mixture is {abs(longer_s):.3f} s {'longer' if longer_s > 0 else 'shorter'} than its stems"
            )
    return found


def _notes(track: TrackFiles, sources: Sequence[str], silent: Sequence[str], clipped_samples: int) -> tuple[str, ...]:
    notes = []
    missing = [source for source in sources if source not in track.stems]
    if missing:
        notes.append(f"lacks {', '.join(missing)}")
    if silent:
        notes.append(f"silent: {', '.join(silent)}")
    if clipped_samples:
        notes.append(f"{clipped_samples} clipped samples")
    return tuple(notes)


def check_data(
    root: str | Path,
    layout: str | None = None,
    split: str = "all",
    sources: Sequence[str] = SOURCES,
    progress: Progress | None = None,
) -> DataCheck:
    """Check a data set, one track after another, in constant memory.

    `layout`: how it lies on disk; found out where None. `progress`: receives the tracks done and their number. Raises
    ConfigError if there is no such layout, or it does not have the split; InputError if there is no track at all.
    """
    if layout is None:
        layout = guess_layout(root, sources) or "stems"
    found = find_tracks(root, layout, split, sources)
    checks = []
    for number, track in enumerate(found):
        if progress is not None:
            progress(number, len(found))
        checks.append(check_track(track, sources))
    if progress is not None:
        progress(len(found), len(found))
    return DataCheck(shown(root), layout, split, tuple(checks))
