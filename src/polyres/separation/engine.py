"""The one way from samples to stems, in memory and from file to file: two passes over blocks, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from polyres.audio.resample import StreamResampler
from polyres.audio.sources import Block, BlockSource, Progress, channel_groups, resampled, split_groups
from polyres.core.errors import InputError
from polyres.dsp.levels import RunningLevel
from polyres.dsp.overlap import Fifo
from polyres.separation.ensemble import Ensemble, GroupStream, Passes, carriers, shift_offsets
from polyres.separation.options import SeparateOptions, StemPlan, plan_stems


@dataclass(frozen=True)
class Measure:
    """What the first pass finds out.

    Args:
        length_samples: length at the rate of the input.
        model_length_samples: length at the rate of the models.
        levels: mean and standard deviation of the mono mixture, per group of channels, at the rate of the models.
    """

    length_samples: int
    model_length_samples: int
    levels: tuple[tuple[float, float], ...]


def measure(source: BlockSource, ensemble: Ensemble, block_samples: int) -> Measure:
    """First pass: length and level of the whole source.

    Args:
        source: where samples come from.
        ensemble: the models.
        block_samples: samples read at a time.

    Returns:
        Lengths and levels.

    Raises:
        InputError: when there are no samples.
    """
    groups = channel_groups(source.channels, ensemble.audio_channels)
    levels = [RunningLevel() for _ in groups]
    length = model_length = 0
    for block, wave in resampled(source, ensemble.sample_rate_hz, block_samples):
        length += block.shape[-1]
        model_length += wave.shape[-1]
        for level, part in zip(levels, split_groups(wave, groups), strict=True):
            level.push(part)
    if length == 0:
        raise InputError(f"{source.name}: holds no samples; nothing to separate")
    return Measure(length, model_length, tuple((level.mean, level.std) for level in levels))


class _Track:
    """Second pass: everything that carries state from block to block."""

    def __init__(self, source: BlockSource, ensemble: Ensemble, plan: StemPlan, found: Measure, passes: Passes) -> None:
        self._plan = plan
        self._groups = channel_groups(source.channels, ensemble.audio_channels)
        end = found.model_length_samples
        self._streams = [
            GroupStream(ensemble, passes, end, level, len(group))
            for group, level in zip(self._groups, found.levels, strict=True)
        ]
        self._rows = (len(plan.computed), source.channels)
        self._back = StreamResampler(ensemble.sample_rate_hz, source.sample_rate_hz, self._rows[0] * self._rows[1])
        self._mix = Fifo()
        self._left = found.length_samples
        self.segment_count = sum(stream.segment_count for stream in self._streams)

    def push(self, block: Block, wave: Block) -> Block | None:
        """Take in one block at both rates and return `[W, C, m]` finished stems at the input's rate."""
        if self._plan.needs_mix:
            self._mix.push(block)
        if wave.shape[-1] == 0:
            return None
        parts = [
            stream.push(part) for stream, part in zip(self._streams, split_groups(wave, self._groups), strict=True)
        ]
        estimates = [part for part in parts if part is not None]
        if not estimates:
            return None
        return self._finished(
            self._back.push(np.concatenate(estimates, axis=1).reshape(self._rows[0] * self._rows[1], -1))
        )

    def finish(self) -> Block | None:
        """Return the last stems."""
        return self._finished(self._back.finish())

    def _finished(self, samples: Block) -> Block | None:
        estimates = samples[:, : self._left]
        count = estimates.shape[-1]
        if count == 0:
            return None
        self._left -= count
        mix = self._mix.take(count) if self._plan.needs_mix else None
        return self._plan.apply(estimates.reshape(*self._rows, count), mix)

    @property
    def missing_samples(self) -> int:
        """Samples that are not out yet."""
        return self._left


def separate_blocks(
    source: BlockSource, ensemble: Ensemble, options: SeparateOptions, progress: Progress | None = None
) -> Iterator[Block]:
    """Separate a source and hand out the stems as they are finished.

    Peak memory does not depend on the length of the source.

    Args:
        source: where samples come from; it is read twice.
        ensemble: the models.
        options: how to separate.
        progress: called with the finished share, 0 to 1, after every model call.

    Yields:
        `[W, C, m]` float32, one entry per wanted stem, at the rate of the source; together exactly its length.

    Raises:
        InputError: when there are no samples, or the source changes between the passes.
        UnknownNameError: for a stem the models do not have.
    """
    plan = plan_stems(ensemble.sources, options)
    found = measure(source, ensemble, options.block_samples)
    calls = _Counter(progress)
    passes = Passes(
        plan.computed,
        shift_offsets(options.shifts, options.seed, ensemble.sample_rate_hz),
        options.overlap,
        options.batch or ensemble.batch,
        calls.add,
        carriers(ensemble.sources, options.offset),
    )
    track = _Track(source, ensemble, plan, found, passes)
    calls.total = track.segment_count
    read = 0
    for block, wave in resampled(source, ensemble.sample_rate_hz, options.block_samples):
        read += block.shape[-1]
        if read > found.length_samples:
            break
        stems = track.push(block, wave)
        if stems is not None:
            yield stems
    if read == found.length_samples:
        stems = track.finish()
        if stems is not None:
            yield stems
    if read != found.length_samples or track.missing_samples:
        raise InputError(f"{source.name}: changed while it was read; try again when nothing writes to it")


class _Counter:
    """Turns numbers of segments into a share of the whole."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._done = 0
        self.total = 1

    def add(self, segments: int) -> None:
        self._done += segments
        if self._progress is not None:
            self._progress(self._done / self.total)
