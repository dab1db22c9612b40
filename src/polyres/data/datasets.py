"""Datasets: songs as stems `[S, C, T]`, mixed at random for training or track by track for validation."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import Field
from torch import Tensor
from torch.utils.data import Dataset

from polyres.core.catalogue import Catalogue
from polyres.core.config import Config
from polyres.core.errors import ConfigError
from polyres.data.segments import SegmentSampler, StemsConfig
from polyres.data.tracks import SOURCES, list_tracks, load_track

__all__ = [
    "DATASETS",
    "StemsConfig",
    "StemsDataset",
    "TracksConfig",
    "TracksDataset",
    "list_tracks",
    "load_track",
]

DATASETS: Catalogue[Dataset[Tensor]] = Catalogue("dataset")


@DATASETS.register("stems", "random mixes of stems from folders of tracks")
class StemsDataset(Dataset[Tensor]):
    """Random segments; item `index` depends on the config's seed, the epoch and the index alone."""

    def __init__(self, config: StemsConfig) -> None:
        """Find and measure the tracks.

        Raises:
            InputError: if a root has no readable track.
            ConfigError: if some source is in no track.
        """
        self.config = config
        self.sampler = SegmentSampler(config)
        self.epoch = 0

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
    """Whole tracks, one after another."""

    roots: tuple[str, ...]
    sources: tuple[str, ...] = SOURCES
    sample_rate_hz: int = Field(44_100, gt=0)
    audio_channels: int = Field(2, gt=0)
    max_length_s: float | None = Field(None, gt=0)


@DATASETS.register("tracks", "whole tracks in alphabetical order")
class TracksDataset(Dataset[Tensor]):
    """Whole tracks as stems; the mixture is their sum."""

    def __init__(self, config: TracksConfig) -> None:
        """Find the tracks.

        Raises:
            InputError: if a root is not a folder.
            ConfigError: if no root has a track.
        """
        self.config = config
        self.folders: list[Path] = [track for root in config.roots for track in list_tracks(root, config.sources)]
        if not self.folders:
            raise ConfigError(f"no tracks in roots = {list(config.roots)}; each track is a folder of stem files")

    @property
    def names(self) -> list[str]:
        """Folder name of every track."""
        return [folder.name for folder in self.folders]

    def __len__(self) -> int:
        """Return the number of tracks."""
        return len(self.folders)

    def __getitem__(self, index: int) -> Tensor:
        """Return float32 stems `[S, C, T]` of one whole track, cut at the config's longest length."""
        config = self.config
        stems = load_track(self.folders[index], config.sources, config.sample_rate_hz, config.audio_channels)
        if config.max_length_s is None:
            return stems
        return stems[..., : round(config.max_length_s * config.sample_rate_hz)]
