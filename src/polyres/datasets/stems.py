"""Datasets: songs as stems `[S, C, T]`, mixed at random for training or track by track for validation."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset

from polyres.audio.track_files import TrackFiles
from polyres.core.catalogue import Catalogue
from polyres.core.config import Config
from polyres.core.errors import ConfigError
from polyres.datasets.layouts import LAYOUTS, check_split, find_tracks
from polyres.datasets.segments import SegmentSampler, StemsConfig
from polyres.datasets.tracks import SOURCES, list_tracks, load_layout_track, load_mixture, load_track

__all__ = [
    "DATASETS",
    "LAYOUTS",
    "StemsConfig",
    "StemsDataset",
    "TracksConfig",
    "TracksDataset",
    "find_tracks",
    "list_tracks",
    "load_layout_track",
    "load_mixture",
    "load_track",
]

DATASETS: Catalogue[Dataset[Tensor]] = Catalogue("dataset")


@DATASETS.register("stems", "random mixes of stems from folders of tracks")
class StemsDataset(Dataset[Tensor]):
    """Random segments; item `index` depends on the config's seed, the epoch and the index alone."""

    def __init__(self, config: StemsConfig) -> None:
        """Find and measure the tracks.

        Raises InputError if a root has no readable track; ConfigError if some source is in no track.
        """
        self.config = config
        self.sampler = SegmentSampler(config)
        self.epoch = 0

    @property
    def warnings(self) -> list[str]:
        """One line for each track with stems that are padded."""
        return self.sampler.warnings

    def set_epoch(self, epoch: int) -> None:
        """Choose which epoch's items come next, 0 upwards."""
        self.epoch = epoch

    def __len__(self) -> int:
        """Return the items per epoch."""
        return self.config.items_per_epoch

    def __getitem__(self, index: int) -> Tensor:
        """Return float32 stems `[S, C, T]`; an index past the epoch's end belongs to the next epoch."""
        later, index = divmod(index, self.config.items_per_epoch)
        return torch.from_numpy(self.sampler.draw(self.epoch + later, index))


class TracksConfig(Config):
    """Whole tracks, one after another; `layout` and `split` hold for all roots."""

    roots: tuple[str, ...]
    layout: str = "stems"
    split: Literal["all", "train", "valid", "test"] = "all"
    sources: tuple[str, ...] = SOURCES
    sample_rate_hz: int = Field(44_100, gt=0)
    audio_channels: int = Field(2, gt=0)
    max_length_s: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _layout_has_split(self) -> TracksConfig:
        """Refuse unknown layouts and splits that a layout does not have."""
        check_split(self.layout, self.split)
        return self


@DATASETS.register("tracks", "whole tracks in the order of their layout")
class TracksDataset(Dataset[Tensor]):
    """Whole tracks as stems; the mixture is their sum."""

    def __init__(self, config: TracksConfig) -> None:
        """Find the tracks.

        Raises InputError if a root is not a folder or has no track; ConfigError if there are no roots.
        """
        if not config.roots:
            raise ConfigError("roots = [] is not allowed; name at least one folder of tracks")
        self.config = config
        self.tracks: list[TrackFiles] = [
            track for root in config.roots for track in find_tracks(root, config.layout, config.split, config.sources)
        ]
        self.warnings: list[str] = []

    @property
    def names(self) -> list[str]:
        """Name of every track."""
        return [track.name for track in self.tracks]

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.tracks)

    def __getitem__(self, index: int) -> Tensor:
        """Return float32 stems `[S, C, T]` of one whole track, cut at the config's longest length.

        A line about stems that had to be padded is added to `warnings`, once per track.
        """
        return self._cut(
            load_layout_track(
                self.tracks[index],
                self.config.sources,
                self.config.sample_rate_hz,
                self.config.audio_channels,
                self._warn,
            )
        )

    def mixture(self, index: int) -> Tensor | None:
        """Return the mixture `[C, T]` that a track brings along, cut alike; None where it has none."""
        config = self.config
        mixture = load_mixture(self.tracks[index], config.sample_rate_hz, config.audio_channels)
        return None if mixture is None else self._cut(mixture)

    def _cut(self, wave: Tensor) -> Tensor:
        config = self.config
        if config.max_length_s is None:
            return wave
        return wave[..., : round(config.max_length_s * config.sample_rate_hz)]

    def _warn(self, line: str) -> None:
        if line not in self.warnings:
            self.warnings.append(line)
