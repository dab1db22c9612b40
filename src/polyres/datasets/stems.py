"""Datasets: songs as stems `[S, C, T]`, mixed at random for training or track by track for validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor
from torch.utils.data import Dataset

from polyres.audio.track_files import SOURCES, TrackFiles
from polyres.core.catalogue import Catalogue
from polyres.core.config import Config
from polyres.core.errors import ConfigError
from polyres.datasets.layouts import check_split, find_tracks
from polyres.datasets.stem_files import FLOOR_DB, StemFile
from polyres.datasets.tracks import Track, index_tracks, load_layout_track, load_mixture, read_stem
from polyres.synth.cache import root_of
from polyres.synth.modules.tracks import AS_WRITTEN, Variation, draw_variation


class RootConfig(Config):
    """One folder of tracks and its share of the draws.

    `layout` says how the tracks lie in the folder (`polyres.datasets.layouts.LAYOUTS`), `split` which of them count.
    `draw_by: artist` gives every artist the same share, however many tracks there are of each.
    Instead of a path a root may say what to make: `make: {kind: miniature}` (`polyres.synth.cache.MadeConfig`).
    """

    path: str
    weight: float = Field(1.0, ge=0)
    source_weights: dict[str, float] = {}
    layout: str = "stems"
    split: Literal["all", "train", "valid", "test"] = "all"
    draw_by: Literal["track", "artist"] = "track"

    @model_validator(mode="before")
    @classmethod
    def _made_is_a_path(cls, given: Any) -> Any:
        """Keep what is to be made in the place of the path."""
        if isinstance(given, Mapping) and "make" in given and "path" not in given:
            rest = {key: value for key, value in given.items() if key != "make"}
            return {**rest, "path": root_of({"make": given["make"]})}
        return given

    @model_validator(mode="after")
    def _layout_has_split(self) -> RootConfig:
        """Refuse unknown layouts and splits that a layout does not have."""
        check_split(self.layout, self.split)
        return self

    def weight_of(self, source: str) -> float:
        """Return the share of this root when a stem of the source is drawn on its own."""
        return self.source_weights.get(source, self.weight)


class LevelConfig(Config):
    """Random level of one source: mean and spread of its active RMS in dBFS."""

    mean_db: float
    spread_db: float = Field(4.0, ge=0)


class StemsConfig(Config):
    """Random mixes of stems.

    `coherent_probability` is the share of items whose stems come from one track at the same time, as far as it has
    them; of those `balanced_probability` also keep the track's balance. `silence_probability` empties a source.
    `active_probability` is how often a segment must be active for `active_fraction` of its seconds.
    A mapping of levels given by the user replaces the default one.
    """

    roots: tuple[RootConfig, ...]
    sources: tuple[str, ...] = SOURCES
    sample_rate_hz: int = Field(44_100, gt=0)
    audio_channels: int = Field(2, gt=0)
    segment_samples: int = Field(264_600, gt=0)
    items_per_epoch: int = Field(800, gt=0)
    seed: int = Field(0, ge=0)
    draw_roots_per: Literal["stem", "item"] = "stem"
    coherent_probability: float = Field(0.3, ge=0, le=1)
    balanced_probability: float = Field(0.5, ge=0, le=1)
    silence_probability: float = Field(0.05, ge=0, le=1)
    active_probability: float = Field(0.9, ge=0, le=1)
    active_fraction: float = Field(0.5, ge=0, le=1)
    speed_probability: float = Field(0.3, ge=0, le=1)
    speed_range: tuple[float, float] = (0.88, 1.12)
    normalise_levels: bool = True
    levels: dict[str, LevelConfig] = {
        "drums": LevelConfig(mean_db=-20.0),
        "bass": LevelConfig(mean_db=-21.0),
        "other": LevelConfig(mean_db=-21.0),
        "vocals": LevelConfig(mean_db=-19.0),
    }
    default_level: LevelConfig = LevelConfig(mean_db=-21.0)
    balanced_level: LevelConfig = LevelConfig(mean_db=-16.0, spread_db=3.0)


@dataclass(frozen=True)
class Draw:
    """What one source of one item is read from, and how; `stem` None is silence."""

    stem: StemFile | None
    start_s: float = 0.0
    speed: float = 1.0
    gain_db: float = 0.0
    variation: Variation = AS_WRITTEN


class SegmentSampler:
    """Draws items; the same config, epoch and index give the same bits."""

    def __init__(self, config: StemsConfig) -> None:
        if not config.roots:
            raise ConfigError("roots = [] is not allowed; name at least one folder of tracks")
        self.config = config
        found = [index_tracks(root.path, config.sources, root.layout, root.split) for root in config.roots]
        self.tracks: list[list[Track]] = [_audible(tracks) for tracks in found]
        if not any(self.tracks):
            raise ConfigError("every stem of every track is silent; add a root with sound")
        self._with_source: dict[str, list[list[Track]]] = {}
        self._silent: list[str] = []
        for source in config.sources:
            if not self._is_drawable(source, found):
                raise ConfigError(f"no track has the source '{source}'; add a root with {source} or drop the source")
            if not self._is_drawable(source, self.tracks):
                self._silent.append(source)
            self._with_source[source] = _having(source, self.tracks)
        self._coherent = [[track for track in tracks if len(track.stems) > 1] for tracks in self.tracks]

    @property
    def warnings(self) -> list[str]:
        """One line for each track with stems that are padded, and for each source that never sounds."""
        silent = [f"source '{source}' is silent in every track, so silence is all to learn" for source in self._silent]
        return [line for tracks in self.tracks for track in tracks for line in track.warnings] + silent

    def _is_drawable(self, source: str, tracks: list[list[Track]]) -> bool:
        """Tell whether a root that may be drawn has a track with the source."""
        roots = zip(_having(source, tracks), self.config.roots, strict=True)
        return any(having and root.weight_of(source) > 0 for having, root in roots)

    def draw(self, epoch: int, index: int) -> np.ndarray:
        """Return float32 stems `[S, C, T]` of one item."""
        config = self.config
        rng = np.random.default_rng([config.seed, epoch, index])
        plan = self.plan(rng)
        item = np.zeros((len(config.sources), config.audio_channels, config.segment_samples), np.float32)
        for position, source in enumerate(config.sources):
            draw = plan[source]
            if draw.stem is None:
                continue
            part = read_stem(
                draw.stem,
                draw.start_s,
                config.segment_samples,
                config.sample_rate_hz,
                speed=draw.speed,
                channels=config.audio_channels,
                variation=draw.variation,
            )
            np.multiply(part, np.float32(10.0 ** (draw.gain_db / 20.0)), out=item[position])
        return item

    def plan(self, rng: np.random.Generator) -> dict[str, Draw]:
        """Draw what every source of one item is read from."""
        config = self.config
        root = self._draw_root(rng, [root.weight for root in config.roots], self.tracks)
        plan: dict[str, Draw] = {}
        if rng.random() < config.coherent_probability and any(self._coherent):
            plan = self._plan_coherent(rng)
        for source in config.sources:
            if source in self._silent:
                plan[source] = Draw(None)
            elif source not in plan:
                plan[source] = self._plan_source(rng, source, root)
        for source in config.sources:
            if rng.random() < config.silence_probability:
                plan[source] = Draw(None)
        return _vary_modules(plan, rng)

    def _plan_coherent(self, rng: np.random.Generator) -> dict[str, Draw]:
        config = self.config
        root = self._draw_root(rng, [root.weight for root in config.roots], self._coherent)
        tracks = self._coherent[root]
        track = self._draw_track(rng, root, tracks)
        guide = track.stems[str(rng.choice(sorted(track.stems)))]
        speed = self._draw_speed(rng)
        start_s = self._draw_start(rng, guide, speed)
        if rng.random() < config.balanced_probability:
            power = sum(10.0 ** (stem.active_level_db / 10.0) for stem in track.stems.values())
            joint_db = self._draw_level(rng, config.balanced_level) - 10.0 * float(np.log10(max(power, 1e-12)))
            gains_db = dict.fromkeys(track.stems, joint_db if config.normalise_levels else 0.0)
        else:
            gains_db = {source: self._draw_gain(rng, source, stem) for source, stem in sorted(track.stems.items())}
        return {source: Draw(stem, start_s, speed, gains_db[source]) for source, stem in track.stems.items()}

    def _plan_source(self, rng: np.random.Generator, source: str, item_root: int) -> Draw:
        having = self._with_source[source]
        root = item_root
        if self.config.draw_roots_per == "stem" or not having[root]:
            root = self._draw_root(rng, [root.weight_of(source) for root in self.config.roots], having)
        tracks = having[root]
        stem = self._draw_track(rng, root, tracks).stems[source]
        speed = self._draw_speed(rng)
        return Draw(stem, self._draw_start(rng, stem, speed), speed, self._draw_gain(rng, source, stem))

    def _draw_track(self, rng: np.random.Generator, root: int, tracks: list[Track]) -> Track:
        if self.config.roots[root].draw_by == "artist":
            artists = sorted({track.artist for track in tracks})
            artist = artists[int(rng.integers(len(artists)))]
            tracks = [track for track in tracks if track.artist == artist]
        return tracks[int(rng.integers(len(tracks)))]

    def _draw_root(self, rng: np.random.Generator, weights: list[float], tracks: list[list[Track]]) -> int:
        shares = np.array([weight if available else 0.0 for weight, available in zip(weights, tracks, strict=True)])
        if shares.sum() == 0.0:
            shares = np.array([1.0 if available else 0.0 for available in tracks])
        return int(rng.choice(len(shares), p=shares / shares.sum()))

    def _draw_speed(self, rng: np.random.Generator) -> float:
        changed, speed = rng.random(), rng.uniform(*self.config.speed_range)
        return float(speed) if changed < self.config.speed_probability else 1.0

    def _draw_level(self, rng: np.random.Generator, level: LevelConfig) -> float:
        return level.mean_db + level.spread_db * float(np.clip(rng.standard_normal(), -2.5, 2.5))

    def _draw_gain(self, rng: np.random.Generator, source: str, stem: StemFile) -> float:
        wanted_db = self._draw_level(rng, self.config.levels.get(source, self.config.default_level))
        return wanted_db - stem.active_level_db if self.config.normalise_levels else 0.0

    def _draw_start(self, rng: np.random.Generator, stem: StemFile, speed: float) -> float:
        """Draw a start in seconds; mostly one where enough of the segment is active."""
        config = self.config
        span_s = config.segment_samples / config.sample_rate_hz * speed
        last_s = max(0.0, stem.length_s - span_s)
        must_be_active, anywhere = rng.random() < config.active_probability, float(rng.uniform(0.0, last_s))
        if not must_be_active:
            return anywhere
        seconds = max(1, round(span_s))
        active = np.concatenate([[0], np.cumsum(stem.active)])
        firsts = np.arange(int(last_s) + 1)
        shares = (active[np.minimum(firsts + seconds, len(active) - 1)] - active[firsts]) / seconds
        eligible = np.flatnonzero((shares >= config.active_fraction) & (shares > 0.0))
        if len(eligible) == 0:
            eligible = np.flatnonzero(shares >= shares.max())
        first = float(eligible[int(rng.integers(len(eligible)))])
        return min(last_s, max(0.0, first + float(rng.uniform(-0.5, 0.5))))


def _vary_modules(plan: dict[str, Draw], rng: np.random.Generator) -> dict[str, Draw]:
    """Give every tracker module a variation of its own, shared by its stems; a plan without modules stays as it is."""
    modules = {draw.stem.path for draw in plan.values() if draw.stem is not None and draw.stem.is_module}
    if not modules:
        return plan
    generator = rng.spawn(1)[0]
    variations = {path: draw_variation(generator) for path in sorted(modules)}
    return {
        source: replace(draw, variation=variations[draw.stem.path])
        if draw.stem is not None and draw.stem.is_module
        else draw
        for source, draw in plan.items()
    }


def _having(source: str, tracks: list[list[Track]]) -> list[list[Track]]:
    """Keep the tracks that have a source."""
    return [[track for track in some if source in track.stems] for some in tracks]


def _audible(tracks: list[Track]) -> list[Track]:
    """Leave out stems that never sound, and tracks without any other."""
    kept = []
    for track in tracks:
        stems = {source: stem for source, stem in track.stems.items() if stem.active_level_db > FLOOR_DB}
        if stems:
            kept.append(replace(track, stems=stems))
    return kept


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
