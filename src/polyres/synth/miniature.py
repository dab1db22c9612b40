"""Miniature songs: a few seconds of composed music for tests and examples, without downloads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from polyres.core.errors import ConfigError
from polyres.synth.composed import ComposedConfig, make_song
from polyres.synth.jobs import Made, run_jobs
from polyres.synth.mixing import MixConfig
from polyres.synth.scores.midi import STEMS

# Bars are long in these styles, or they leave a stem nearly empty.
_STYLES = ("synth_pop", "house", "funk", "rock", "drum_and_bass", "breaks")
_APART = 1000  # songs tried instead of one that lacks a stem have numbers that no other song has


@dataclass(frozen=True)
class MiniatureJob:
    """One miniature."""

    folder: Path
    number: int
    config: ComposedConfig

    @property
    def made_from(self) -> str:
        """Fingerprint of the config and the song's number."""
        return f"mini-{self.config.identity()}-{self.number}"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return four stems and the manifest; a song that lacks one is composed anew."""
        number = self.number
        waves, manifest = make_song(self.config, number)
        while set(waves) != set(STEMS):
            number += _APART * len(_STYLES)
            waves, manifest = make_song(self.config, number)
        return waves, manifest


def make_miniature(
    out: Path, seed: int = 0, tracks: int = 4, length_s: float = 6.0, splits: Mapping[str, int] | None = None
) -> list[Made]:
    """Write a few short songs with all four stems; the mixture is the exact sum of the files.

    Args:
        out: gets one folder per song; finished ones are skipped.
        seed: the same seed makes the same songs.
        tracks: how many, where there are no splits.
        length_s: length of each in seconds, 2 or more.
        splits: sub-folders with their numbers of songs, such as {"train": 3, "valid": 1}; no song is in two.

    Returns:
        What became of every song.

    Raises:
        ConfigError: if songs would be too short, or there are none.
        OutputError: if they cannot be written, or other ones are there.
    """
    if length_s < 2.0:
        raise ConfigError(f"length_s is {length_s:g}; a miniature needs 2 seconds or more")
    wanted = {"": tracks} if splits is None else dict(splits)
    if sum(wanted.values()) < 1:
        raise ConfigError("no miniature is asked for; give at least one track")
    config = ComposedConfig(
        seed=seed,
        length_s=length_s,
        tail_s=0.5,
        styles=_STYLES,
        always=("drums", "bass", "comping", "vocals"),
        mix=MixConfig(loudness_dbfs=(-18.0, -14.0)),
    )
    jobs: list[MiniatureJob] = []
    for split, count in wanted.items():
        for number in range(len(jobs), len(jobs) + count):
            jobs.append(MiniatureJob(out / split / f"miniature_{number:02d}", number, config))
    return run_jobs(jobs)
