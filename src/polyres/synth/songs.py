"""Render folders of tracks from scores, sung notes and loops, with a manifest each."""

from __future__ import annotations

import hashlib
import itertools
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import Field, model_validator

from polyres.core.config import Config
from polyres.core.errors import InputError
from polyres.synth.composed import FORMAT, INSTRUMENTAL, named_folders, open_loops, open_voices
from polyres.synth.effects import MixConfig, active_rms, apply_chain, draw_chain, master, mix_stems
from polyres.synth.instruments.bank import find_bank, read_presets
from polyres.synth.instruments.electronic import render_electronic
from polyres.synth.instruments.recorded import RECORDED_SHARE, render_recorded
from polyres.synth.instruments.render import MAX_LENGTH_S, SAMPLE_RATE_HZ, TAIL_S, render_take
from polyres.synth.jobs import Made, run_jobs
from polyres.synth.loops import loop_track
from polyres.synth.scores.composer import key_of
from polyres.synth.scores.midi import DRUM_CHANNEL, Score, read_score
from polyres.synth.scores.variations import Take, TakeConfig, draw_take, perform, take_generator
from polyres.synth.singer.phrases import sing_track

_PURPOSE_MIX = 20
_PURPOSE_ELECTRONIC = 21
_PURPOSE_RECORDED = 22
LOOPS_S = 60.0

Report = Callable[[str], None]
Tell = Callable[[Made], None]


class SongsConfig(Config):
    """Config of songs from scores: takes or hours, instruments and ranges of the changes.

    With `hours`, takes are added until there is so much audio; otherwise every piece gets `takes`. `instruments` "both"
    draws for every stem whether it is played by the synthesisers or by one of the `banks`. With a folder `recordings`
    of recorded instruments most stems are played by these. Vocals are sung with the recordings in the folder `singer`
    where one is given.
    """

    takes: int = Field(1, ge=1)
    hours: float | None = Field(None, gt=0)
    seed: int = Field(0, ge=0)
    max_length_s: float = Field(MAX_LENGTH_S, gt=0)
    instruments: Literal["electronic", "sampled", "both"] = "sampled"
    banks: tuple[str, ...] = ()
    recordings: str | None = None
    singer: str | None = None
    vocals_db: tuple[float, float] = (-3.0, 3.0)
    effects: bool = True
    mix: MixConfig = MixConfig()
    take: TakeConfig = TakeConfig()

    @model_validator(mode="after")
    def _has_banks(self) -> SongsConfig:
        """Refuse sampled instruments without samples."""
        if self.instruments != "electronic" and not self.banks:
            raise ValueError(f"instruments is {self.instruments!r} but there are no banks; name an .sf2 or .sf3 file")
        return self

    def identity(self) -> str:
        """Return a fingerprint of what a take depends on; folders count by their names."""
        values = named_folders(self.to_dict()) | {"format": FORMAT}
        kept = {key: value for key, value in values.items() if key not in ("takes", "hours")}
        return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]


def sampled_banks(given: Sequence[Path] = ()) -> tuple[str, ...]:
    """Find the banks of sampled instruments. `given`: SF2 or SF3 banks; none looks in the usual places."""
    found = find_bank()
    banks = list(given) or ([] if found is None else [found])
    if not banks:
        raise InputError("no instrument bank found; install a General MIDI SoundFont or pass one with --bank FILE")
    for bank in banks:
        if not read_presets(bank):
            raise InputError(f"the bank '{bank}' has no instruments; give another .sf2 or .sf3 file")
    if shutil.which("fluidsynth") is None:
        raise InputError("the program 'fluidsynth' is not installed; install it, or take --instruments electronic")
    return tuple(str(bank) for bank in banks)


def list_midi(folder: Path) -> list[Path]:
    """List the MIDI files under a folder in alphabetical order."""
    found = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".mid", ".midi"))
    if not found:
        raise InputError(f"no MIDI files in '{folder}'; give a folder with .mid files")
    return found


@dataclass(frozen=True)
class SongJob:
    """One take of one piece."""

    folder: Path
    piece: Path
    number: int
    config: SongsConfig

    @property
    def made_from(self) -> str:
        """Fingerprint of the config, the piece's name and the take's number."""
        return f"{self.config.identity()}-{self.piece.stem}-{self.number}"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return stems and manifest."""
        return make_song(read_score(self.piece), self.number, self.config)


def plan_songs(out: Path, midi_paths: Sequence[Path], config: SongsConfig, report: Report = print) -> list[SongJob]:
    """List the takes to play, take 0 of every piece first."""
    outlines: dict[Path, Score | None] = {}
    jobs: list[SongJob] = []
    planned_s = 0.0
    for number in itertools.count() if config.hours is not None else range(config.takes):
        for path in midi_paths:
            if config.hours is not None and planned_s >= 3600.0 * config.hours:
                return jobs
            if path not in outlines:
                outlines[path] = _outline(path, report)
            outline = outlines[path]
            if outline is not None:
                take = draw_take(outline, (), config.seed, number, config.take)
                planned_s += min(outline.length_s / take.tempo_factor, config.max_length_s) + TAIL_S
                jobs.append(SongJob(out / f"{path.stem}_take{number}", path, number, config))
        if not jobs:
            raise InputError(f"none of the {len(midi_paths)} MIDI files can be read; give a folder with other ones")
    return jobs


def _outline(path: Path, report: Report) -> Score | None:
    """Read a score and keep one note per instrument, which is all that a take is drawn from."""
    try:
        score = read_score(path)
    except InputError as error:
        report(f"left out: {error}")
        return None
    stems = {
        stem: tuple({(note.channel, note.program): note for note in part}.values())
        for stem, part in score.stems.items()
    }
    return Score(score.name, stems, (), score.length_s)


def make_songs(
    out: Path,
    midi_paths: Sequence[Path],
    config: SongsConfig,
    jobs: int = 1,
    tell: Tell | None = None,
    report: Report = print,
) -> list[Made]:
    """Render several takes of many scores; finished tracks are skipped."""
    return run_jobs(plan_songs(out, midi_paths, config, report), jobs, tell)


def make_song(score: Score, number: int, config: SongsConfig) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """Render one take of a score, with vocals if there is a singer: `[2, T]`."""
    rng = take_generator(config.seed, score.name, number, purpose=_PURPOSE_MIX)
    share = {"electronic": 1.0, "both": 0.5, "sampled": 0.0}[config.instruments]
    coins = {stem: bool(rng.random() < share) for stem in INSTRUMENTAL}
    bank_number = int(rng.integers(1 << 30))
    bank = Path(config.banks[bank_number % len(config.banks)]) if config.banks else None
    take = draw_take(score, () if bank is None else read_presets(bank), config.seed, number, config.take)
    electronic = [stem for stem in INSTRUMENTAL if stem in score.stems and coins[stem]]
    waves = _play_recorded(score, take, config)
    recorded = list(waves)
    electronic = [stem for stem in electronic if stem not in recorded]
    if bank is not None:
        sampled = tuple(stem for stem in score.stems if stem not in (*electronic, *recorded))
        waves |= render_take(score, take, bank, config.max_length_s, sampled)
    waves |= _play_electronic(score, take, electronic, config.max_length_s)
    manifest: dict[str, object] = {
        "format": FORMAT,
        "kind": "midi",
        "piece": score.name,
        "bank": None if bank is None else bank.name,
        "electronic": [stem for stem in electronic if stem in waves],
        "take": asdict(take),
    }
    if recorded:
        manifest["recorded"] = recorded
    if config.singer is not None and waves:
        waves["vocals"], manifest["vocals"] = _sing_along(score, take, waves, config, rng)
    effects = {}
    waves = {stem: waves[stem] for stem in (*INSTRUMENTAL, "vocals") if stem in waves}
    for stem in (*INSTRUMENTAL, "vocals"):
        chain = draw_chain(stem, rng, score.beat_s)
        if config.effects and stem in waves:
            waves[stem] = apply_chain(waves[stem], chain, rng)
            effects[stem] = chain.to_dict()
    # Bank and synthesisers know nothing of each other's level; a bank alone has the balance of the score.
    finish = mix_stems if electronic or recorded else master
    return finish(waves, rng, config.mix), {**manifest, "effects": effects}


def _performed(score: Score, stems: Sequence[str], take: Take, length_s: float) -> Score:
    """Return the notes that a take plays."""
    played = {stem: tuple(perform(score, stem, take, length_s - TAIL_S)[0]) for stem in stems}
    return Score(score.name, played, (), length_s)


def _play_electronic(score: Score, take: Take, stems: Sequence[str], max_length_s: float) -> dict[str, np.ndarray]:
    """Play some stems of a take on synthesisers."""
    if not stems:
        return {}
    length_s = min(score.length_s / take.tempo_factor, max_length_s) + TAIL_S
    rng = take_generator(take.seed, score.name, take.number, purpose=_PURPOSE_ELECTRONIC)
    played = _performed(score, stems, take, length_s)
    return render_electronic(played, rng, length_s, 0.1, score.beat_s, stems)


def _play_recorded(score: Score, take: Take, config: SongsConfig) -> dict[str, np.ndarray]:
    """Play the stems that chance leaves to recorded instruments."""
    if config.recordings is None:
        return {}
    rng = take_generator(take.seed, score.name, take.number, purpose=_PURPOSE_RECORDED)
    stems = [stem for stem in INSTRUMENTAL if rng.random() < RECORDED_SHARE and stem in score.stems]
    length_s = min(score.length_s / take.tempo_factor, config.max_length_s) + TAIL_S
    return render_recorded(_performed(score, stems, take, length_s), rng, length_s, config.recordings, stems)


def _sing_along(
    score: Score, take: Take, waves: dict[str, np.ndarray], config: SongsConfig, rng: np.random.Generator
) -> tuple[np.ndarray, dict[str, object]]:
    """Sing in the key of the piece, at the level of its loudest stem."""
    pitches = [
        note.pitch + take.transpose_semitones
        for stem in ("other", "bass")
        for note in score.stems.get(stem, ())
        if note.channel != DRUM_CHANNEL
    ]
    length_s = next(iter(waves.values())).shape[1] / SAMPLE_RATE_HZ
    voices = open_voices(str(config.singer))
    sung, facts = sing_track(voices, int(rng.integers(1 << 31)), length_s, key_of(pitches))
    backing = max(active_rms(wave) for wave in waves.values())
    lift_db = float(rng.uniform(*config.vocals_db))
    return sung * np.float32(10.0 ** (lift_db / 20.0) * backing / max(active_rms(sung), 1e-9)), facts


def _draw_vocals(seed: int, number: int) -> tuple[int, float]:
    """Draw the seed and length of a vocals track."""
    rng = np.random.default_rng([seed, number])
    return int(rng.integers(1 << 31)), float(rng.uniform(60.0, 90.0))


def vocals_for(length_s: float, seed: int) -> int:
    """Return the number of vocals tracks that fill a length in seconds."""
    number = 0
    while length_s > 0.0:
        length_s -= _draw_vocals(seed, number)[1]
        number += 1
    return number


@dataclass(frozen=True)
class VocalsJob:
    """One vocals track of 60 to 90 s without accompaniment."""

    folder: Path
    number: int
    seed: int
    singer: str

    @property
    def made_from(self) -> str:
        """Seed, number and the recordings' folder by name."""
        return f"vocals-{FORMAT}-{self.seed}-{self.number}-{Path(self.singer).name}"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return the vocals and the manifest."""
        seed, length_s = _draw_vocals(self.seed, self.number)
        wave, facts = sing_track(open_voices(self.singer), seed, length_s)
        return {"vocals": wave}, {**facts, "format": FORMAT, "kind": "vocals"}


@dataclass(frozen=True)
class LoopsJob:
    """One track of 60 s from loops and one-shots."""

    folder: Path
    number: int
    seed: int
    loops: str

    @property
    def made_from(self) -> str:
        """Seed, number and the sounds' folder by name."""
        return f"loops-{FORMAT}-{self.seed}-{self.number}-{Path(self.loops).name}"

    def make(self) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        """Return the stems that the bank has sounds for, and the manifest."""
        seed = int(np.random.default_rng([self.seed, self.number]).integers(1 << 31))
        return loop_track(open_loops(self.loops), seed, LOOPS_S), {"format": FORMAT, "kind": "loops"}


def vocals_jobs(out: Path, singer: Path, count: int, seed: int) -> list[VocalsJob]:
    """List solo vocals to sing into folders `singer_000` and so on."""
    return [VocalsJob(out / f"singer_{number:03d}", number, seed, str(singer)) for number in range(count)]


def loops_jobs(out: Path, loops: Path, count: int, seed: int) -> list[LoopsJob]:
    """List loop tracks to lay into folders `loops_000` and so on."""
    return [LoopsJob(out / f"loops_{number:03d}", number, seed, str(loops)) for number in range(count)]
