"""Where to listen: excerpts in which every source sounds, drawn by seed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from polyres.core.errors import InputError
from polyres.data.activity import StemFile


@dataclass(frozen=True)
class Excerpt:
    """A part of a song.

    Attributes:
        start_s: in seconds of the song.
        active_share: share of its seconds in which all sources sound, 0 to 1.
    """

    start_s: float
    active_share: float


def shared_activity(stems: Mapping[str, StemFile]) -> np.ndarray:
    """Return bool per second of the song: whether every stem is active in it.

    Args:
        stems: name -> measured stem.
    """
    masks = [stem.active for stem in stems.values()]
    length = min(len(mask) for mask in masks)
    return np.logical_and.reduce([mask[:length] for mask in masks])


def choose_excerpts(
    active: np.ndarray, *, count: int, length_s: float, min_share: float, generator: np.random.Generator
) -> list[Excerpt]:
    """Draw excerpts that do not overlap from all that are active enough, each with the same chance.

    Args:
        active: bool per second.
        count: how many at most.
        length_s: of each, in seconds.
        min_share: share of seconds in which all sources have to sound, 0 to 1.
        generator: of the draws.

    Returns:
        Excerpts in the order of the song; fewer where no more fit.

    Raises:
        InputError: if the song is too short or nowhere active enough; names the best there is.
    """
    seconds = int(np.ceil(length_s))
    if len(active) < seconds:
        raise InputError(f"only {len(active)} s long, excerpts are {length_s:g} s; make them shorter")
    sums = np.concatenate([[0], np.cumsum(active)])
    shares = (sums[seconds:] - sums[:-seconds]) / seconds
    if shares.max() < min_share:
        raise InputError(
            f"no {length_s:g} s in which all sources sound for {min_share:.0%} of the time (best: {shares.max():.0%}); "
            "lower excerpts.min_active_share, make excerpts shorter or name fewer sources"
        )
    free = np.flatnonzero(shares >= min_share - 1e-9)
    chosen: list[int] = []
    while len(chosen) < count and len(free):
        start = int(free[generator.integers(len(free))])
        chosen.append(start)
        free = free[np.abs(free - start) >= seconds]
    return [Excerpt(float(start), float(shares[start])) for start in sorted(chosen)]
