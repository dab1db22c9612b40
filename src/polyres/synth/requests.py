"""Requests for songs, turned into jobs."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import count
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field

from polyres.audio.track_files import require_folder
from polyres.core.config import Config
from polyres.core.errors import ConfigError, InputError
from polyres.core.whole_files import write_whole
from polyres.synth.composed import FORMAT, ComposedConfig, composed_jobs, open_loops, open_voices
from polyres.synth.instruments.bank import find_bank
from polyres.synth.instruments.recorded import open_recordings
from polyres.synth.jobs import Job, Made
from polyres.synth.modules.tracks import MAX_LENGTH_S, SAMPLE_RATE_HZ, draw_variation, judge_folder, render
from polyres.synth.songs import (
    LOOPS_S,
    Report,
    SongsConfig,
    list_midi,
    loops_jobs,
    plan_songs,
    sampled_banks,
    vocals_for,
    vocals_jobs,
)

SUMMARY_FILE = "songs.json"
Instruments = Literal["electronic", "sampled", "both"]


class Order(Config):
    """A request for songs.

    Without any folder songs are composed; `midi` plays scores, `modules` tracker modules, `loops` lays loop tracks, and
    `singer` sings the vocals of composed songs and scores, or solo where there are neither. `compose` asks for composed
    songs beside the others. `hours` are shared out evenly between the kinds; without them there are `tracks` of each,
    and `takes` per score and module.
    A folder `recordings` of recorded instruments plays most stems of composed songs and scores.
    `instruments` None means sampled ones for scores, and for composed songs both where a bank is installed.
    """

    seed: int = Field(0, ge=0)
    hours: float | None = Field(None, gt=0)
    tracks: int = Field(16, ge=1)
    takes: int = Field(1, ge=1)
    length_s: float = Field(60.0, ge=5.0)
    compose: bool = False
    midi: str | None = None
    singer: str | None = None
    loops: str | None = None
    modules: str | None = None
    recordings: str | None = None
    instruments: Instruments | None = None
    banks: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of songs: composed, midi, modules, vocals, loops."""
        composed = self.compose or all(one is None for one in (self.midi, self.singer, self.loops, self.modules))
        solo = self.singer is not None and self.midi is None and not composed
        wanted = {
            "midi": self.midi is not None,
            "modules": self.modules is not None,
            "composed": composed,
            "vocals": solo,
            "loops": self.loops is not None,
        }
        return tuple(kind for kind, asked in wanted.items() if asked)


def plan_order(order: Order, out: Path, report: Report = print) -> list[Job]:
    """List the jobs of a request; reads folders and scores, writes nothing.

    Args:
        report: receives a line per score that is left out.

    Raises:
        InputError: if a folder, bank or program that the order needs is missing or unusable.
        ConfigError: if styles are asked for where nothing is composed.
    """
    if order.styles and "composed" not in order.kinds:
        raise ConfigError("styles are for composed songs; add --compose, or leave --style out")
    if order.recordings is not None:
        if not {"midi", "composed"} & set(order.kinds):
            raise ConfigError("recordings play scores and composed songs; add --midi FOLDER or --compose")
        open_recordings(order.recordings)
    if order.singer is not None:
        open_voices(order.singer)
    if order.loops is not None:
        open_loops(order.loops)
    share_s = None if order.hours is None else 3600.0 * order.hours / len(order.kinds)
    jobs: list[Job] = []
    for kind in order.kinds:
        jobs += _plan_kind(kind, order, out, share_s, report)
    return jobs


def _plan_kind(kind: str, order: Order, out: Path, share_s: float | None, report: Report) -> Sequence[Job]:
    if kind == "composed":
        count = order.tracks if share_s is None else math.ceil(share_s / order.length_s)
        return composed_jobs(out, count, composed_config(order))
    if kind == "midi":
        paths = list_midi(Path(str(order.midi)))
        instruments = order.instruments or "sampled"
        config = SongsConfig(
            takes=order.takes,
            hours=None if share_s is None else share_s / 3600.0,
            seed=order.seed,
            instruments=instruments,
            banks=_banks(order) if instruments != "electronic" else (),
            recordings=order.recordings,
            singer=order.singer,
        )
        return plan_songs(out, paths, config, report)
    if kind == "modules":
        return module_jobs(out, Path(str(order.modules)), order.takes, share_s, order.seed)
    if kind == "vocals":
        count = order.tracks if share_s is None else vocals_for(share_s, order.seed)
        return vocals_jobs(out, Path(str(order.singer)), count, order.seed)
    count = order.tracks if share_s is None else math.ceil(share_s / LOOPS_S)
    return loops_jobs(out, Path(str(order.loops)), count, order.seed)


def _banks(order: Order) -> tuple[str, ...]:
    return sampled_banks([Path(bank) for bank in order.banks])


def composed_config(order: Order) -> ComposedConfig:
    """Return the config of the composed songs of a request."""
    instruments = order.instruments
    if instruments is None:
        able = bool(order.banks) or (find_bank() is not None and shutil.which("fluidsynth") is not None)
        instruments = "both" if able else "electronic"
    return ComposedConfig(
        seed=order.seed,
        length_s=order.length_s,
        styles=order.styles,
        instruments=instruments,
        banks=_banks(order) if instruments != "electronic" else (),
        recordings=order.recordings,
        singer=order.singer,
    )


def write_summary(out: Path, order: Config, tracks: Sequence[Made]) -> None:
    """Write `songs.json` into the folder of all tracks: the request and the songs.

    Args:
        order: what was wanted; folders count by their names.
        tracks: all tracks, made now or before.

    Raises:
        OutputError: if it cannot be written.
    """
    wanted = order.to_dict()
    for key in ("midi", "singer", "loops", "modules", "recordings"):
        if wanted.get(key) is not None:
            wanted[key] = Path(wanted[key]).name
    if "banks" in wanted:
        wanted["banks"] = [Path(bank).name for bank in wanted["banks"]]
    songs = [{"name": one.name, "length_s": one.length_s, "stems": list(one.stems)} for one in tracks]
    text = json.dumps({"format": FORMAT, "order": wanted, "tracks": songs}, indent=1) + "\n"
    write_whole(out / SUMMARY_FILE, text)


@dataclass(frozen=True)
class ModuleJob:
    """One take of one module; `stems` are the instruments of each stem."""

    folder: Path
    path: Path
    number: int
    seed: int
    length_s: float
    stems: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def made_from(self) -> str:
        """Seed, take, the module's name and the stems of its instruments."""
        return f"module-{FORMAT}-{self.seed}-{self.number}-{self.path.name}-{dict(self.stems)}"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return stems and manifest."""
        name = np.frombuffer(self.path.name.encode(), np.uint8)
        variation = draw_variation(np.random.default_rng([self.seed, self.number, *map(int, name)]))
        length_samples = round(min(self.length_s, MAX_LENGTH_S) / variation.tempo * SAMPLE_RATE_HZ)
        waves = {stem: render(self.path, numbers, length_samples, variation=variation) for stem, numbers in self.stems}
        peak = max(float(np.abs(sum(waves.values())).max()), *(float(np.abs(wave).max()) for wave in waves.values()))
        gain = np.float32(min(1.0, 0.98 / max(peak, 1e-9)))
        waves = {stem: gain * wave for stem, wave in waves.items()}
        facts: dict[str, object] = {"format": FORMAT, "kind": "module", "module": self.path.name}
        return waves, {**facts, "variation": asdict(variation), "instruments": dict(self.stems)}


def module_jobs(out: Path, folder: Path, takes: int, length_s: float | None, seed: int) -> Sequence[ModuleJob]:
    """List takes of the usable modules of a folder, take 0 of every module first."""
    usable = [module for module in judge_folder(require_folder(folder)) if module.is_usable]
    if not usable:
        raise InputError(
            f"no tracker module in '{folder}' whose instruments are clear; give a folder of .mod .s3m .xm .it files"
        )
    jobs: list[ModuleJob] = []
    planned_s = 0.0
    for number in range(takes) if length_s is None else count():
        for module in usable:
            if length_s is not None and planned_s >= length_s:
                return jobs
            stems = tuple(module.stems.items())
            name = f"{module.path.name.replace('.', '_')}_take{number}"
            jobs.append(ModuleJob(out / name, module.path, number, seed, module.length_s, stems))
            planned_s += min(module.length_s, MAX_LENGTH_S)
    return jobs
