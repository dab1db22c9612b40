"""Composed songs: composition, instruments, vocals, effects and mix from a seed; miniatures of a few seconds."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from polyres.core.config import Config
from polyres.core.errors import ConfigError
from polyres.synth.effects import MixConfig, apply_chain, draw_chain, mix_stems
from polyres.synth.instruments.bank import read_presets
from polyres.synth.instruments.electronic import render_electronic
from polyres.synth.instruments.recorded import RECORDED_SHARE, render_recorded
from polyres.synth.instruments.render import SAMPLE_RATE_HZ, render_stem
from polyres.synth.jobs import Made, run_jobs, seeds
from polyres.synth.loops import LoopBank
from polyres.synth.scores.composer import compose
from polyres.synth.scores.midi import STEMS, Score
from polyres.synth.scores.styles import STYLES
from polyres.synth.scores.variations import TakeConfig, draw_take
from polyres.synth.singer.phrases import draw_style, sing_notes
from polyres.synth.singer.recordings import VoiceBank
from polyres.synth.singer.voice import sing_formants

FORMAT = 3
INSTRUMENTAL = ("drums", "bass", "other")
_PURPOSES = {
    "score": 101,
    "instruments": 102,
    "electronic": 103,
    "voice": 104,
    "effects": 105,
    "mix": 106,
    "recorded": 107,
}
_SILENCE = 1e-4
_AS_WRITTEN = TakeConfig(tempo_range=(1.0, 1.0), transpose_semitones=0, stem_gain_db=0.0)


def named_folders(values: dict[str, Any]) -> dict[str, Any]:
    """Let folders and banks of a config count by their names; one without recordings is as before there were any."""
    for key in ("singer", "recordings"):
        values[key] = None if values[key] is None else Path(values[key]).name
    if values["recordings"] is None:
        del values["recordings"]
    return values | {"banks": [Path(bank).name for bank in values["banks"]]}


class ComposedConfig(Config):
    """Config of composed songs.

    `instruments` "both" draws for every stem whether it is played by the synthesisers or by one of the `banks`. With a
    folder `recordings` of recorded instruments most stems are played by these. Vocals are sung with the recordings in
    the folder `singer`, or by the built-in voice where there is none.
    """

    seed: int = Field(0, ge=0)
    length_s: float = Field(60.0, ge=1.0)
    tail_s: float = Field(2.0, ge=0.0)
    styles: tuple[str, ...] = ()
    always: tuple[str, ...] = ()
    instruments: Literal["electronic", "sampled", "both"] = "electronic"
    banks: tuple[str, ...] = ()
    recordings: str | None = None
    singer: str | None = None
    effects: bool = True
    mix: MixConfig = MixConfig()

    @field_validator("styles")
    @classmethod
    def _known(cls, styles: tuple[str, ...]) -> tuple[str, ...]:
        """Refuse unknown names."""
        for style in styles:
            STYLES.get(style)
        return styles

    @model_validator(mode="after")
    def _has_banks(self) -> ComposedConfig:
        """Refuse sampled instruments without samples."""
        if self.instruments != "electronic" and not self.banks:
            raise ValueError(f"instruments is {self.instruments!r} but there are no banks; name an .sf2 or .sf3 file")
        return self

    def identity(self) -> str:
        """Return a fingerprint of what the songs depend on; folders count by their names."""
        values = named_folders(self.to_dict()) | {"format": FORMAT}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class ComposedJob:
    """One composed song."""

    folder: Path
    number: int
    config: ComposedConfig

    @property
    def made_from(self) -> str:
        """Fingerprint of the config and the song's number."""
        return f"{self.config.identity()}-{self.number}"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return stems and manifest."""
        return make_song(self.config, self.number)


@lru_cache(maxsize=4)
def open_voices(folder: str) -> VoiceBank:
    """Open a folder of sung notes once per process."""
    return VoiceBank.open(folder)


@lru_cache(maxsize=4)
def open_loops(folder: str) -> LoopBank:
    """Open a folder of loops and one-shots once per process."""
    return LoopBank.open(folder)


def make_song(config: ComposedConfig, number: int) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Compose, render and mix one song: `[2, T]`."""
    rngs = seeds(config.seed, number, _PURPOSES)
    styles = config.styles or tuple(STYLES.names())
    style = styles[number % len(styles)]
    written_s = max(0.5, config.length_s - config.tail_s)
    score = compose(rngs["score"], written_s, style, config.always)
    waves, players = _play(score, style, config, number, rngs)
    if "vocals" in score.stems:
        waves["vocals"], players["vocals"] = _sing(score, config, rngs["voice"])
    waves = {stem: _faded(waves[stem], config.tail_s) for stem in STEMS if stem in waves}
    effects = {}
    for stem in STEMS:
        chain = draw_chain(stem, rngs["effects"], score.beat_s)
        if config.effects and stem in waves:
            waves[stem] = apply_chain(waves[stem], chain, rngs["effects"])
            effects[stem] = chain.to_dict()
    audible = {stem: wave for stem, wave in waves.items() if float(np.abs(wave).max(initial=0.0)) > _SILENCE}
    manifest: dict[str, object] = {
        "format": FORMAT,
        "kind": "composed",
        "piece": score.name,
        "number": number,
        "seed": config.seed,
        "tempo_bpm": 60.0 / score.beat_s,
        "players": players,
        "effects": effects,
    }
    return mix_stems(audible, rngs["mix"], config.mix), manifest


def _play(
    score: Score, style: str, config: ComposedConfig, number: int, rngs: dict[str, np.random.Generator]
) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Render all stems but the vocals; return also their instruments."""
    draw = rngs["instruments"]
    share = {"electronic": 0.0, "both": 0.5, "sampled": 1.0}[config.instruments]
    sampled = {stem for stem in INSTRUMENTAL if draw.random() < share}
    bank_number = int(draw.integers(1 << 30))
    electronic = [stem for stem in INSTRUMENTAL if stem not in sampled]
    recorded: dict[str, np.ndarray] = {}
    if config.recordings is not None:
        stems = [stem for stem in INSTRUMENTAL if rngs["recorded"].random() < RECORDED_SHARE]
        recorded = render_recorded(score, rngs["recorded"], config.length_s, config.recordings, stems)
        electronic = [stem for stem in electronic if stem not in recorded]
        sampled -= recorded.keys()
    ducking = STYLES.build(style).kick_ducks
    waves = render_electronic(score, rngs["electronic"], config.length_s, ducking, score.beat_s, electronic)
    players: dict[str, object] = {**dict.fromkeys(waves, "electronic"), **dict.fromkeys(recorded, "recorded")}
    waves |= recorded
    played = [stem for stem in INSTRUMENTAL if stem in sampled and stem in score.stems]
    if played:
        bank = Path(config.banks[bank_number % len(config.banks)])
        take = draw_take(score, read_presets(bank), config.seed, number, _AS_WRITTEN)
        for stem in played:
            waves[stem] = render_stem(score, stem, take, bank, config.length_s)
            players[stem] = bank.name
    return waves, players


def _sing(score: Score, config: ComposedConfig, rng: np.random.Generator) -> tuple[np.ndarray, object]:
    """Sing the vocals."""
    if config.singer is None:
        return sing_formants(score.stems["vocals"], rng, config.length_s), "formant voice"
    style = draw_style(rng)
    style = replace(style, tempo_bpm=60.0 / score.beat_s)
    return sing_notes(open_voices(config.singer), score, config.length_s, style, rng), Path(config.singer).name


def _faded(wave: np.ndarray, tail_s: float) -> np.ndarray:
    """Fade the last half of the tail out."""
    fade = min(round(0.5 * tail_s * SAMPLE_RATE_HZ), wave.shape[1])
    if fade:
        wave = wave.copy()
        wave[:, -fade:] *= np.linspace(1.0, 0.0, fade, dtype=np.float32)
    return wave


def composed_jobs(out: Path, count: int, config: ComposedConfig) -> list[ComposedJob]:
    """List the jobs of composed songs. `out`: gets folders `song_00000` and so on."""
    return [ComposedJob(out / f"song_{number:05d}", number, config) for number in range(count)]


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
