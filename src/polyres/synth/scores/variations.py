"""Draw seeded variations (takes) of a score."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polyres.core.config import Config
from polyres.synth.instruments.bank import DRUM_BANK, Preset
from polyres.synth.scores.midi import DRUM_CHANNEL, PERCUSSION_PROGRAMS, Control, Note, Score

# Programs that may stand in for one another, by General MIDI family.
FAMILIES: tuple[tuple[int, ...], ...] = (
    (0, 1, 2, 3, 4, 5, 6, 7),  # pianos
    (8, 9, 10, 11, 12, 13, 14, 15, 108),  # mallets and bells
    (16, 17, 18, 19, 20, 21, 22, 23),  # organs
    (24, 25, 26, 27, 28),  # clean guitars
    (29, 30),  # driven guitars
    (32, 33, 34, 35, 36, 37, 38, 39),  # basses
    (40, 41, 42, 110),  # bowed solo
    (44, 48, 49, 50, 51, 89, 90, 92, 95),  # string ensembles and pads
    (45, 46, 104, 105, 106, 107),  # plucked
    (56, 57, 58, 59, 60, 61, 62, 63),  # brass
    (64, 65, 66, 67, 68, 69, 70, 71),  # reeds
    (72, 73, 74, 75, 76, 77, 78, 79),  # flutes
    (80, 81, 82, 83, 84, 85, 86, 87),  # leads
    (88, 91, 93, 94),  # warm pads
)
DRUM_KITS = (0, 8, 16, 24, 25, 32, 40)  # standard, room, power, electronic, TR-808, jazz, brush


class TakeConfig(Config):
    """Ranges of the changes of a take."""

    tempo_range: tuple[float, float] = (0.85, 1.15)
    transpose_semitones: int = 3
    swap_probability: float = 0.6
    kit_swap_probability: float = 0.7
    velocity_jitter: float = 8.0
    part_gain_range: tuple[float, float] = (0.7, 1.2)
    stem_gain_db: float = 3.0
    timing_jitter_ms: float = 4.0
    reverb_probability: float = 0.7
    chorus_probability: float = 0.4
    pan_probability: float = 0.6


@dataclass(frozen=True)
class Take:
    """The random choices of one take, reproducible by seed, piece and number."""

    number: int
    seed: int
    tempo_factor: float
    transpose_semitones: int
    programs: dict[int, int]
    drum_kit: int
    part_gains: dict[str, float]
    pans: dict[str, int]
    stem_gains_db: dict[str, float]
    reverb: dict[str, float] | None
    chorus: dict[str, float] | None
    sends: dict[str, tuple[int, int]]
    velocity_jitter: float
    timing_jitter_s: float


def take_generator(seed: int, piece: str, number: int, purpose: int = 0) -> np.random.Generator:
    """Return the generator of one take of one piece; `purpose` separates independent uses."""
    return np.random.default_rng([seed, zlib.crc32(piece.encode()), number, purpose])


def draw_take(score: Score, presets: Sequence[Preset], seed: int, number: int, config: TakeConfig) -> Take:
    """Draw one take. `number`: take number, 0 upwards."""
    rng = take_generator(seed, score.name, number)
    notes = [note for part in score.stems.values() for note in part]
    channels = sorted({note.channel for note in notes})
    tonal = sorted({note.program for note in notes if note.channel != DRUM_CHANNEL})
    reverb = chorus = None
    if rng.random() < config.reverb_probability:
        reverb = {
            "room-size": rng.uniform(0.1, 0.8),
            "damp": rng.uniform(0.0, 0.5),
            "level": rng.uniform(0.2, 0.9),
            "width": rng.uniform(0.2, 1.0),
        }
    if rng.random() < config.chorus_probability:
        chorus = {"depth": rng.uniform(2.0, 8.0), "level": rng.uniform(0.5, 2.0), "speed": rng.uniform(0.2, 0.8)}
    pans = {}
    for channel in channels:
        if channel != DRUM_CHANNEL and rng.random() < config.pan_probability:
            pans[str(channel)] = int(np.clip(rng.normal(64, 24), 0, 127))
    kits = [kit for kit in DRUM_KITS if any(p.bank == DRUM_BANK and p.program == kit for p in presets)]
    return Take(
        number=number,
        seed=seed,
        tempo_factor=float(rng.uniform(*config.tempo_range)),
        transpose_semitones=int(rng.integers(-config.transpose_semitones, config.transpose_semitones + 1)),
        programs={program: _swap(program, presets, rng, config.swap_probability) for program in tonal},
        drum_kit=int(rng.choice(kits)) if kits and rng.random() < config.kit_swap_probability else 0,
        part_gains={str(channel): float(rng.uniform(*config.part_gain_range)) for channel in channels},
        pans=pans,
        stem_gains_db={stem: float(rng.normal(0.0, config.stem_gain_db)) for stem in score.stems},
        reverb=reverb,
        chorus=chorus,
        sends={str(c): (int(rng.integers(10, 80)), int(rng.integers(0, 60))) for c in channels},
        velocity_jitter=float(rng.uniform(0.2, 1.0) * config.velocity_jitter),
        timing_jitter_s=float(rng.uniform(0.0, 1.0) * config.timing_jitter_ms / 1000.0),
    )


def _swap(program: int, presets: Sequence[Preset], rng: np.random.Generator, probability: float) -> int:
    """Draw another program of the same family that the bank has, or keep the program."""
    family = next((members for members in FAMILIES if program in members), (program,))
    known = {preset.program for preset in presets if preset.bank == 0}
    candidates = [member for member in family if member in known]
    wanted = rng.random() < probability
    drawn = int(rng.choice(candidates)) if candidates else program
    return drawn if wanted else program


def perform(score: Score, stem: str, take: Take, length_s: float) -> tuple[list[Note], list[Control]]:
    """Apply a take to one stem of a score."""
    rng = take_generator(take.seed, score.name, take.number, purpose=1 + sorted(score.stems).index(stem))
    notes = []
    for note in score.stems[stem]:
        shift_s, lift = rng.normal(0.0, take.timing_jitter_s), rng.normal(0.0, take.velocity_jitter)
        start_s = max(0.0, note.start_s / take.tempo_factor + shift_s)
        end_s = max(start_s + 0.01, note.end_s / take.tempo_factor + shift_s)
        if start_s >= length_s:
            continue
        velocity = int(np.clip(round(note.velocity * take.part_gains[str(note.channel)] + lift), 1, 127))
        notes.append(replace(_retuned(note, take), start_s=start_s, end_s=end_s, velocity=velocity))
    channels = sorted({note.channel for note in notes})
    controls = [
        replace(control, time_s=control.time_s / take.tempo_factor)
        for control in score.controls
        if not (control.number == 10 and str(control.channel) in take.pans)
    ]
    opening = []
    for channel in channels:
        reverb_send, chorus_send = take.sends[str(channel)]
        opening += [Control(0.0, channel, 91, reverb_send), Control(0.0, channel, 93, chorus_send)]
        if str(channel) in take.pans:
            opening.append(Control(0.0, channel, 10, take.pans[str(channel)]))
    return notes, opening + controls


def _retuned(note: Note, take: Take) -> Note:
    if note.channel == DRUM_CHANNEL:
        return replace(note, program=take.drum_kit)
    program = take.programs[note.program]
    if program in PERCUSSION_PROGRAMS:
        return replace(note, program=program)
    pitch = note.pitch + take.transpose_semitones
    return replace(note, program=program, pitch=pitch if 0 <= pitch <= 127 else note.pitch)
