"""The audio that a study was scored on, as the figures need it: stems of its tracks, and an attack separated anew."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from polyres.audio.track_files import TrackFiles, list_tracks
from polyres.core.errors import AnalysisError
from polyres.core.yaml_files import read_yaml
from polyres.datasets.layouts import find_tracks, stems_track
from polyres.datasets.tracks import load_layout_track
from polyres.report.figures import colour, line, tidy
from polyres.separation.load import load_separator
from polyres.separation.model import SeparatorConfig
from polyres.study.paper.data import Arm, PaperStudy
from polyres.training.run_folder import BEST_FILE, CONFIG_FILE
from polyres.training.task import resolve_roots

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


SOURCE = "drums"


@dataclass(frozen=True)
class StudyAudio:
    """The scored tracks that are available."""

    tracks: list[tuple[str, TrackFiles]]  # name in the rows and files
    model: SeparatorConfig  # says which stems and which rate
    longest_s: float | None  # of every track only so much was scored; None for all

    def stems(self, index: int) -> Tensor:
        """Return the stems `[S, C, T]` of a track."""
        model = self.model
        stems = load_layout_track(self.tracks[index][1], model.sources, model.sample_rate_hz, model.audio_channels)
        return stems if self.longest_s is None else stems[..., : round(self.longest_s * model.sample_rate_hz)]

    def all_stems(self) -> Iterator[Tensor]:
        """Yield the stems of all tracks, one after another."""
        for index in range(len(self.tracks)):
            yield self.stems(index)


def find_audio(study: PaperStudy, data: Path | None = None) -> StudyAudio:
    """Find the tracks that a study was scored on."""
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
    """Cut the sharpest attack of a track's drums (the first with one if None) and separate it with every arm."""
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
    """Return the style of every track, the first part of `electronic/song_3`; empty where all are alike."""
    styles = {track: track.partition("/")[0] for track in study.tracks if "/" in track}
    return styles if len(set(styles.values())) > 1 else {}


N_FFT, HOP = 1024, 64
RANGE_DB = 70.0
HIGHEST_HZ = 12000
BEFORE_S, AFTER_S = 0.15, 0.45
CONTEXT_S = 4.0
"""What models hear on either side of the attack."""
FRAME_S = 0.005
RISE_S = 0.02


def find_attack(drums: Tensor, sample_rate_hz: int) -> int:
    """Return the sample of the steepest rise of energy over 20 ms in `[C, T]`; 0 for silence or under three frames."""
    frame = max(round(FRAME_S * sample_rate_hz), 1)
    count = drums.shape[-1] // frame
    span = max(round(RISE_S / FRAME_S), 1)
    if count < 2 * span + 1:
        return 0
    energy = drums[:, : count * frame].double().square().mean(dim=0).reshape(count, frame).mean(dim=1)
    sums = torch.nn.functional.pad(energy.cumsum(0), (1, 0))
    blocks = sums[span:] - sums[:-span]  # of frames [n, n + span)
    rise = blocks[span:] - blocks[:-span]
    # An attack stands out from what sounded before it: weigh its rise by the ratio as well.
    rise = rise * torch.log10((blocks[span:] + 1e-9) / (blocks[:-span] + 1e-9)).clamp_min(0)
    return (int(rise.argmax()) + span) * frame if float(rise.max()) > 0 else 0


@dataclass(frozen=True)
class Excerpt:
    """An excerpt around an attack, and its estimate by every arm."""

    track: str  # its name
    source: str  # the stem
    start_s: float  # where the excerpt starts in the track
    sample_rate_hz: int  # of the waves
    waves: Mapping[str, Tensor]  # name to `[C, T]`, all of one length: mixture, reference, then the models


def level_spectrogram(wave: Tensor) -> Tensor:
    """Return the power of a waveform's mono mix as levels `[F, N]` in dB."""
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    mono = wave.double().mean(dim=0)
    spectrum = torch.stft(mono, N_FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
    return 10 * torch.log10(spectrum.abs().square() + 1e-12)


def spectrogram_figure(excerpt: Excerpt) -> Figure:
    """Draw the spectrograms on one scale of colours, and below them the levels over time."""
    from matplotlib.figure import Figure

    names = list(excerpt.waves)
    columns = min(len(names), 4)
    rows = math.ceil(len(names) / columns)
    figure = Figure(figsize=(2.75 * columns, 2.2 * (rows + 1)), layout="constrained")
    grid = figure.add_gridspec(rows + 1, columns)
    panels = [figure.add_subplot(grid[place // columns, place % columns]) for place in range(len(names))]
    levels = {name: level_spectrogram(wave) for name, wave in excerpt.waves.items()}
    top = max(float(level.max()) for level in levels.values())
    panel_top_khz = min(HIGHEST_HZ, excerpt.sample_rate_hz // 2) // 1000
    image: Any = None
    for place, (panel, name) in enumerate(zip(panels, names, strict=True)):
        image = _spectrogram(panel, levels[name], excerpt.sample_rate_hz, top)
        panel.set_title(name, fontsize=9.5)
        panel.set_yticks(range(0, panel_top_khz + 1, 4))
        panel.set_ylabel("kHz" if place % columns == 0 else "")
        if place % columns:
            panel.set_yticklabels([])
        panel.set_xlabel("ms")
    figure.colorbar(image, ax=panels, label="dB below the loudest", shrink=0.85, aspect=30)
    wide = figure.add_subplot(grid[rows, :])
    _levels(wide, excerpt)
    handles, labels = wide.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(len(labels), 6), frameon=False, fontsize=9)
    at = f"{excerpt.start_s + BEFORE_S:.2f} s"
    figure.suptitle(f"{excerpt.source} of {excerpt.track} at {at}", fontsize=10.5)
    return figure


def _spectrogram(panel: Axes, level: Tensor, rate_hz: int, top: float) -> Any:
    highest = min(HIGHEST_HZ, rate_hz // 2)
    bins = highest * N_FFT // rate_hz + 1
    first_ms = -1e3 * BEFORE_S
    extent = (first_ms, first_ms + 1e3 * (level.shape[1] - 1) * HOP / rate_hz, 0.0, (bins - 1) * rate_hz / N_FFT / 1e3)
    return panel.imshow(
        (level[:bins] - top).numpy(), origin="lower", aspect="auto", cmap="magma", vmin=-RANGE_DB, vmax=0, extent=extent
    )


def _levels(panel: Axes, excerpt: Excerpt) -> None:
    """Draw the level over time in frames of 5 ms."""
    frame = max(round(FRAME_S * excerpt.sample_rate_hz), 1)
    models = 0
    for name, wave in excerpt.waves.items():
        if name == "mixture":
            continue
        count = wave.shape[-1] // frame
        power = wave[:, : count * frame].double().square().mean(dim=0).reshape(count, frame).mean(dim=1)
        times = [1e3 * ((place + 0.5) * FRAME_S - BEFORE_S) for place in range(count)]
        true = name == "reference"
        style = {"color": "black", "linewidth": 2.2} if true else {"color": colour(models), "linestyle": line(models)}
        panel.plot(times, (10 * torch.log10(power + 1e-9)).numpy(), label=name, **style)
        models += not true
    tidy(panel)
    panel.set_xlim(-1e3 * BEFORE_S, 1e3 * AFTER_S)
    panel.set_xlabel("ms from the attack")
    panel.set_ylabel("level, dBFS")
