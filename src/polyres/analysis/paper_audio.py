"""The audio that a study was scored on, as the figures need it: stems of its tracks, and an attack separated anew."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from polyres.analysis.errors import AnalysisError
from polyres.analysis.paper_data import Arm, PaperStudy
from polyres.analysis.spectrogram_figure import AFTER_S, BEFORE_S, CONTEXT_S, Excerpt, find_attack
from polyres.core.yaml_files import read_yaml
from polyres.data.datasets import find_tracks
from polyres.data.layouts import stems_track
from polyres.data.track_files import TrackFiles, list_tracks
from polyres.data.tracks import load_layout_track
from polyres.inference.load import load_separator
from polyres.models.separator import SeparatorConfig
from polyres.training.run_folder import BEST_FILE, CONFIG_FILE
from polyres.training.separation import resolve_roots

SOURCE = "drums"


@dataclass(frozen=True)
class StudyAudio:
    """The tracks that were scored, as far as they are there.

    Attributes:
        tracks: name in the rows and files.
        model: says which stems and which rate.
        longest_s: of every track only so much was scored; None for all.
    """

    tracks: list[tuple[str, TrackFiles]]
    model: SeparatorConfig
    longest_s: float | None

    def stems(self, index: int) -> Tensor:
        """Return the stems `[S, C, T]` of a track.

        Raises:
            InputError: if they cannot be read.
        """
        model = self.model
        stems = load_layout_track(self.tracks[index][1], model.sources, model.sample_rate_hz, model.audio_channels)
        return stems if self.longest_s is None else stems[..., : round(self.longest_s * model.sample_rate_hz)]

    def all_stems(self) -> Iterator[Tensor]:
        """Yield the stems of all tracks, one after another."""
        for index in range(len(self.tracks)):
            yield self.stems(index)


def find_audio(study: PaperStudy, data: Path | None = None) -> StudyAudio:
    """Find the tracks that a study was scored on.

    Args:
        study: names them in its rows.
        data: folder to look for them in; else where the study and its recipe say.

    Raises:
        AnalysisError: if none of them is there, or no run says which stems it has.
        InputError: if a folder cannot be read.
        TrainingError: if a folder of the study is not there.
    """
    arm = next((arm for arm in study.arms if arm.model is not None), None)
    if arm is None or arm.model is None:
        raise AnalysisError(f"no run of {study.name} has a config.yaml, so nothing is known of its stems")
    about = study.about.data
    if data is not None:
        folders = list_tracks(data, arm.model.sources)
        names = {name: stems_track(one, arm.model.sources) for one in folders for name in (one.name, _labelled(one))}
    else:
        names = dict(_tracks(about, _data_dir(arm), arm.model.sources))
    short = {name.rpartition("/")[2]: track for name, track in names.items()}
    tracks = [(name, names.get(name, short.get(name.rpartition("/")[2]))) for name in study.tracks]
    there = [(name, track) for name, track in tracks if track is not None]
    if not there:
        raise AnalysisError(f"none of the tracks of {study.name} is there; name their folder with --data")
    longest_s = about.get("max_length_s")
    return StudyAudio(there, arm.model, float(longest_s) if longest_s else None)


def _labelled(folder: Path) -> str:
    """Return the name of a track with that of the folder around it, as studies of several roots have it."""
    return f"{folder.parent.name}/{folder.name}"


def _data_dir(arm: Arm) -> str | None:
    config = next((run.folder / CONFIG_FILE for run in arm.runs if (run.folder / CONFIG_FILE).is_file()), None)
    given = None if config is None else read_yaml(config).get("data_dir")
    return None if given is None else str(given)


def _tracks(about: Any, data_dir: str | None, sources: Sequence[str]) -> Iterator[tuple[str, TrackFiles]]:
    roots = about.get("roots") or {}
    folders = resolve_roots(tuple(str(root) for root in roots.values()), data_dir)
    for label, folder in zip(roots, folders, strict=True):
        for track in find_tracks(folder, about.get("layout", "stems"), about.get("split", "all"), sources):
            yield (f"{label}/{track.name}" if label else track.name), track


def attack_excerpt(study: PaperStudy, audio: StudyAudio, track: str | None = None, device: str = "cpu") -> Excerpt:
    """Cut the sharpest attack of the drums of a track, and separate it with every arm's first run.

    Args:
        study: whose runs.
        audio: its tracks.
        track: name; the first with an attack in its drums if None.
        device: for the models.

    Raises:
        AnalysisError: if there are no drums, or no attack in them.
        InputError: if stems cannot be read.
        WeightsError: if weights cannot be read.
    """
    if SOURCE not in audio.model.sources:
        raise AnalysisError(f"the models of {study.name} have no stem {SOURCE!r}")
    names = [name for name, _ in audio.tracks]
    rate_hz, place = audio.model.sample_rate_hz, audio.model.sources.index(SOURCE)
    for index in [names.index(track)] if track is not None else range(len(names)):
        stems = audio.stems(index)
        before, after = round(BEFORE_S * rate_hz), round(AFTER_S * rate_hz)
        inside = stems[place, :, before : max(stems.shape[-1] - after, before)]
        attack = find_attack(inside, rate_hz)
        if attack:
            waves = _separated(study, stems, place, attack, rate_hz, device)
            return Excerpt(names[index], SOURCE, attack / rate_hz, rate_hz, waves)
    raise AnalysisError(f"no track of {study.name} has an attack in its {SOURCE}")


def _separated(
    study: PaperStudy, stems: Tensor, place: int, start: int, rate_hz: int, device: str
) -> dict[str, Tensor]:
    """Return what everybody makes of the excerpt that starts at a sample; models hear some seconds around it."""
    length = round((BEFORE_S + AFTER_S) * rate_hz)
    first = max(start - round(CONTEXT_S * rate_hz), 0)
    wide = stems[..., first : start + length + round(CONTEXT_S * rate_hz)]
    inner = slice(start - first, start - first + length)
    waves = {"mixture": wide.sum(dim=0)[:, inner], "reference": wide[place][:, inner]}
    for arm in study.arms:
        run = next((run for run in arm.runs if (run.folder / BEST_FILE).is_file()), None)
        if run is not None:
            with torch.inference_mode():
                separator = load_separator(str(run.folder), device, "fp32")
                waves[arm.name] = separator.separate(wide.sum(dim=0), rate_hz)[SOURCE][:, inner]
    return waves


def styles_of(study: PaperStudy) -> dict[str, str]:
    """Return the style of every track, which is the first part of its name; nothing where all are alike.

    Args:
        study: names its tracks, such as `electronic/song_3`.
    """
    styles = {track: track.partition("/")[0] for track in study.tracks if "/" in track}
    return styles if len(set(styles.values())) > 1 else {}
