"""Subjects of an evaluation: models, parts of models, and folders of stems."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from polyres.audio.files import probe
from polyres.audio.track_files import stem_paths, track_folder
from polyres.core.errors import ConfigError, InputError
from polyres.core.yaml_files import read_yaml
from polyres.datasets.layouts import guess_layout
from polyres.datasets.stems import TracksConfig, TracksDataset
from polyres.datasets.tracks import load_track
from polyres.separation.load import LoadedSeparator
from polyres.separation.model import Separator
from polyres.separation.options import SeparateOptions
from polyres.separation.weights import read_card
from polyres.weights.places import weights_file


@dataclass(frozen=True)
class Origin:
    """Where estimates come from, as far as is known; see `ScoreRow`."""

    weights_id: str | None = None
    fingerprint: str | None = None
    commit: str | None = None
    seed: int | None = None


MAX_LENGTH_DIFFERENCE_SAMPLES = 4096
"""What lossy codecs add or take at the ends of a file."""


class Subject(Protocol):
    """Something that gives estimates of the stems of a track."""

    @property
    def name(self) -> str:
        """Name of the model or folder."""

    @property
    def part(self) -> str:
        """Which resolutions listen: "all", "only 4096", "without 4096"."""

    @property
    def origin(self) -> Origin:
        """Where the weights come from."""

    def estimate(self, track: str, mixture: Tensor, sources: Sequence[str], sample_rate_hz: int) -> Tensor:
        """Return estimates `[S, C, T]` for a mixture `[C, T]`."""


@dataclass(frozen=True)
class ModelSubject:
    """A separator, or some of its resolutions.

    Args:
        separator: loaded model.
        origin: where its weights come from.
        options: how to separate.
        part: which resolutions listen.
    """

    separator: LoadedSeparator
    origin: Origin
    options: SeparateOptions
    part: str = "all"

    @property
    def name(self) -> str:
        """Name of the model."""
        return self.separator.name

    def estimate(self, track: str, mixture: Tensor, sources: Sequence[str], sample_rate_hz: int) -> Tensor:
        """Separate the mixture.

        Raises:
            ConfigError: if the model lacks one of the sources.
        """
        missing = [source for source in sources if source not in self.separator.sources]
        if missing:
            raise ConfigError(
                f"{self.name} has no stem {missing[0]!r}; it has {', '.join(self.separator.sources)}: "
                "name the stems to score with --stems"
            )
        stems = self.separator.separate(mixture, sample_rate_hz, self.options)
        return torch.stack([stems[source] for source in sources])


@dataclass(frozen=True)
class FolderSubject:
    """Stems that are files already, one folder per track: TRACK/vocals.wav and so on, as museval has them.

    Args:
        folder: holds a folder per track.
        name: what the estimates are called in results.
    """

    folder: Path
    name: str
    part: str = "all"
    origin: Origin = Origin()

    def estimate(self, track: str, mixture: Tensor, sources: Sequence[str], sample_rate_hz: int) -> Tensor:
        """Read the stems of the track.

        Raises:
            InputError: if a stem is missing or at another rate, or its length differs from the mixture's by more than
                a codec's edges.
        """
        folder = track_folder(self.folder, track)
        found = stem_paths(folder, sources)
        missing = [source for source in sources if source not in found]
        if missing:
            raise InputError(f"no estimate of {missing[0]!r} in '{folder}'; it needs {missing[0]}.wav, .flac or alike")
        for path in found.values():
            rate_hz = probe(path).sample_rate_hz
            if rate_hz != sample_rate_hz:
                raise InputError(
                    f"'{path}' is at {rate_hz} Hz, the tracks are scored at {sample_rate_hz} Hz; "
                    "resample the estimates, or choose another --sample-rate"
                )
        length = mixture.shape[-1]
        # One by one, as stems that are read together are padded to the longest.
        stems = {source: load_track(folder, (source,), sample_rate_hz, mixture.shape[0])[0] for source in sources}
        for source, stem in stems.items():
            if abs(stem.shape[-1] - length) > MAX_LENGTH_DIFFERENCE_SAMPLES:
                raise InputError(
                    f"'{found[source]}' has {stem.shape[-1]} samples, the track has {length}; "
                    "give estimates of the whole track"
                )
        fitting = [torch.nn.functional.pad(stem, (0, max(0, length - stem.shape[-1]))) for stem in stems.values()]
        return torch.stack([stem[..., :length] for stem in fitting])


@dataclass(frozen=True)
class GuessSubject:
    """A baseline that gives every stem the same part of the mixture.

    Args:
        name: a key of `GUESSES`.
    """

    name: str
    part: str = "all"
    origin: Origin = Origin()

    def estimate(self, track: str, mixture: Tensor, sources: Sequence[str], sample_rate_hz: int) -> Tensor:
        """Return the same part of the mixture for every stem."""
        return (mixture * GUESSES[self.name](len(sources))).expand(len(sources), *mixture.shape)


GUESSES: dict[str, Callable[[int], float]] = {
    "silence": lambda stems: 0.0,
    "mixture": lambda stems: 1.0,
    "share": lambda stems: 1.0 / stems,
}
"""Names and the factor on the mixture, given the number of stems."""


def origin_of(name_or_path: str, separator: LoadedSeparator) -> Origin:
    """Return where a model comes from: its weights, and the run that its card names.

    Args:
        name_or_path: as given to `load_separator`.
        separator: what that returned.
    """
    path = weights_file(name_or_path)
    card = read_card(path) if path.suffix == ".safetensors" and path.is_file() else {}
    return Origin(separator.weights_id, card.get("fingerprint"), card.get("commit"), card.get("seed"))


def resolutions_of(whole: ModelSubject) -> Separator:
    """Return the model of a subject if it has several resolutions."""
    model = whole.separator.model
    if not isinstance(model, Separator) or len(model.config.n_fft) < 2:
        raise ConfigError(f"{whole.name} has no resolutions to take apart; leave out --parts and --shapley")
    return model


def parts_of(whole: ModelSubject) -> list[ModelSubject]:
    """Return a model's resolutions one by one, and the model without each of them.

    Raises:
        ConfigError: for a bag, or a model of one resolution.
    """
    sizes = resolutions_of(whole).config.n_fft
    chosen = [(f"only {size}", [size]) for size in sizes]
    if len(sizes) > 2:
        chosen += [(f"without {size}", [other for other in sizes if other != size]) for size in sizes]
    return [ModelSubject(whole.separator.listening(n_fft), whole.origin, whole.options, part) for part, n_fft in chosen]


YAML_SUFFIXES = (".yaml", ".yml")
SHARED_KEYS = ("roots", "layout", "split")
"""What the `valid` section of a recipe has in common with a set of songs."""


@dataclass(frozen=True)
class SongChoices:
    """Which songs, and how they are read; None leaves it to the file, or to what is found.

    Args:
        sources: stems to score.
        layout: how a folder lies on disk; None finds out.
        split: all, train, valid or test; None takes all.
        sample_rate_hz: rate of scoring; None takes that of the first stem found.
        max_length_s: only so much of every song; None takes all.
    """

    sources: tuple[str, ...]
    layout: str | None = None
    split: str | None = None
    sample_rate_hz: int | None = None
    max_length_s: float | None = None


def open_songs(data: Path, choices: SongChoices) -> TracksDataset:
    """Find songs with known stems.

    Args:
        data: a folder, or a YAML file with `roots` (and `layout`, `split` …), or a recipe or `config.yaml` of a run,
            whose validation songs are taken.
        choices: what to read and how; goes before what a file says.

    Returns:
        The songs, at the rate at which they are scored.

    Raises:
        ConfigError: if the file names no songs, or the layout does not have the split.
        InputError: if there is no such folder or no song in it.
    """
    values: dict[str, Any] = {"roots": [str(data)]}
    if data.suffix in YAML_SUFFIXES and data.is_file():
        values = _from_yaml(data)
    chosen = {"layout": choices.layout, "split": choices.split, "max_length_s": choices.max_length_s}
    values |= {key: value for key, value in chosen.items() if value is not None}
    values["sources"] = choices.sources
    if "layout" not in values:
        values["layout"] = guess_layout(values["roots"][0], choices.sources) or "stems"
    rate_hz = choices.sample_rate_hz or values.get("sample_rate_hz")
    tracks = TracksDataset(TracksConfig.from_dict({**values, "sample_rate_hz": rate_hz or 44_100}))
    found_hz = rate_hz or _native_rate_hz(tracks)
    if found_hz != tracks.config.sample_rate_hz:
        tracks = TracksDataset(TracksConfig.from_dict({**values, "sample_rate_hz": found_hz}))
    return tracks


def _from_yaml(path: Path) -> dict[str, Any]:
    values = read_yaml(path)
    if isinstance(values.get("valid"), Mapping):  # a recipe, or the config of a run
        values = {key: values["valid"][key] for key in SHARED_KEYS if key in values["valid"]}
    roots = values.get("roots")
    if not isinstance(roots, list) or not roots or not all(isinstance(root, str) for root in roots):
        raise ConfigError(f"{path} names no folders of songs; give roots: [FOLDER, …], or the folder itself")
    return dict(values)


def _native_rate_hz(tracks: TracksDataset) -> int:
    """Return the rate of the first stem."""
    parts = next((parts for track in tracks.tracks for parts in track.stems.values()), ())
    return probe(parts[0].path).sample_rate_hz if parts else tracks.config.sample_rate_hz
