"""Songs to score on: a folder of any layout, or a YAML file that names one or several."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from polyres.core.errors import ConfigError
from polyres.core.yaml_files import read_yaml
from polyres.data.audio import probe
from polyres.data.datasets import TracksConfig, TracksDataset
from polyres.data.layouts import guess_layout

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
