"""Several models and several shifted passes averaged into one estimate of one group of channels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from polyres.audio.sources import Block
from polyres.dsp.overlap import Fifo, Runner, SegmentStream

MAX_SHIFT_S = 0.5
STD_FLOOR = 1e-8


@dataclass(frozen=True)
class Member:
    """One model of an ensemble."""

    run: Runner  # `[B, C, segment_samples]` to `[B, S, C, segment_samples]`
    segment_samples: int
    weights: tuple[float, ...]  # one weight per source; 0 leaves the model out for that source


@dataclass(frozen=True)
class Ensemble:
    """Everything that turns a normalised mixture into estimates."""

    members: tuple[Member, ...]
    sources: tuple[str, ...]
    sample_rate_hz: int
    audio_channels: int
    precision: str  # "fp32" or "bf16"
    batch: int = 1  # segments per call that suit where the models are


@dataclass(frozen=True)
class Passes:
    """How often and in which pieces the models listen.

    `offsets_samples`: where the first segment of each pass begins, <= 0; (0,) for a single pass without shifts.
    """

    computed: tuple[int, ...]
    offsets_samples: tuple[int, ...]
    overlap: float  # share of a segment that the next one covers again
    batch: int
    on_segments: Callable[[int], None] | None = None
    carriers: tuple[int, ...] = ()


def carriers(sources: Sequence[str], offset: str) -> tuple[int, ...]:
    """Say which sources get back the mean that is taken from the mixture."""
    if offset == "every":
        return tuple(range(len(sources)))
    named = [index for name in ("other", "residual") for index, source in enumerate(sources) if source == name]
    return (named[0] if named else len(sources) - 1,)


def shift_offsets(shifts: int, seed: int, sample_rate_hz: int) -> tuple[int, ...]:
    """Draw where the shifted passes begin."""
    if shifts == 0:
        return (0,)
    import torch  # its generator, so that a seed means the same passes as ever

    longest = int(MAX_SHIFT_S * sample_rate_hz)
    generator = torch.Generator().manual_seed(seed)
    return tuple(-int(n) for n in torch.randint(0, longest + 1, (shifts,), generator=generator))


class _Pass:
    """One shifted pass of one member: the sources it gives, and how much each counts."""

    def __init__(self, ensemble: Ensemble, member: Member, passes: Passes, start: int, end: int) -> None:
        sources = [index for index in passes.computed if member.weights[index]]
        self.rows = [passes.computed.index(index) for index in sources]
        self.weights = np.float32([member.weights[index] for index in sources]).reshape(-1, 1, 1)
        picked = slice(None) if sources == list(range(len(ensemble.sources))) else sources
        self.ready = Fifo()

        def run(segments: Block) -> Block:
            output = member.run(segments)
            if passes.on_segments is not None:
                passes.on_segments(segments.shape[0])
            return output[:, picked]

        self.stream = SegmentStream(run, member.segment_samples, passes.overlap, passes.batch, end, start)

    def push(self, block: Block) -> None:
        done = self.stream.push(block)
        if done is not None:
            self.ready.push(done)


class GroupStream:
    """Normalises one group of channels, runs all passes over it, averages and undoes the normalisation.

    Source: demucs 4.1.0 gives the mean back to every stem, so that their sum has it as often as there are stems.
    """

    def __init__(self, ensemble: Ensemble, passes: Passes, end: int, level: tuple[float, float], channels: int) -> None:
        mean, std = level
        self._mean, self._std = mean, std + STD_FLOOR
        self._copies = ensemble.audio_channels if channels == 1 else 1
        self._rows = len(passes.computed)
        self._offsets = np.float32([mean if index in passes.carriers else 0.0 for index in passes.computed])
        self._passes = [
            _Pass(ensemble, member, passes, start, end)
            for member in ensemble.members
            if any(member.weights[index] for index in passes.computed)
            for start in passes.offsets_samples
        ]
        self._totals = np.zeros((self._rows, 1, 1), np.float32)
        for one in self._passes:
            self._totals[one.rows] += one.weights

    @property
    def segment_count(self) -> int:
        """Number of segments over all passes."""
        return sum(one.stream.segment_count for one in self._passes)

    def push(self, block: Block) -> Block | None:
        """Take in the next samples.

        `block`: `[channels, n]` at the models' rate. Returns `[K, channels, m]` finished estimates, or None.
        """
        normal = (block - np.float32(self._mean)) / np.float32(self._std)
        normal = np.broadcast_to(normal, (self._copies, normal.shape[-1])) if self._copies > 1 else normal
        for one in self._passes:
            one.push(normal)
        count = min(one.ready.length for one in self._passes)
        return self._average(count) if count else None

    def _average(self, count: int) -> Block:
        parts = [one.ready.take(count) for one in self._passes]
        total = np.zeros((self._rows, *parts[0].shape[1:]), np.float32)
        for one, part in zip(self._passes, parts, strict=True):
            total[one.rows] += part * one.weights
        total = total / self._totals * np.float32(self._std) + self._offsets[:, None, None]
        return total.mean(axis=1, keepdims=True) if self._copies > 1 else total
