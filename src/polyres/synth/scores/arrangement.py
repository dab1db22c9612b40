"""Write one bar of bass, chords, lead or vocals."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from polyres.synth.scores.midi import Note

BASS_CHANNEL = 0
_LOWEST_BASS = 28
_VOCAL_RANGE = (55, 74)


@dataclass(frozen=True)
class Bar:
    """Position and harmony of a bar; `degree` counts scale steps above the root."""

    start_s: float
    tempo_bpm: float
    swing: float
    root: int
    scale: tuple[int, ...]
    degree: int

    def time_of(self, step: float) -> float:
        """Return the time in seconds of a sixteenth; off-beat eighths come late by the swing."""
        late = self.swing if step % 4 in (2.0, 3.0) else 0.0
        return self.start_s + (step + 2.0 * late) * 15.0 / self.tempo_bpm

    def pitch(self, degree: int, octave: int) -> int:
        """Return the MIDI pitch of a scale degree."""
        turns, index = divmod(degree, len(self.scale))
        return self.root + self.scale[index] + 12 * (octave + turns)

    def chord(self, octave: int, size: int = 3) -> list[int]:
        """Return stacked thirds on the bar's degree."""
        return [self.pitch(self.degree + 2 * third, octave) for third in range(size)]


def _note(
    rng: np.random.Generator, bar: Bar, step: float, steps: float, channel: int, program: int, pitch: int, level: float
) -> Note:
    start_s = bar.time_of(step)
    end_s = max(start_s + 0.04, start_s + steps * 15.0 / bar.tempo_bpm)
    return Note(
        start_s, end_s, channel, program, int(np.clip(pitch, 0, 127)), int(np.clip(rng.normal(level, 6), 20, 127))
    )


def _rhythm(rng: np.random.Generator, chance: float) -> list[int]:
    """Draw the steps of a syncopated bar; the first one mostly belongs to it."""
    return [
        step for step in range(16) if rng.random() < (0.9 if step == 0 else chance * (1.3 if step % 2 == 0 else 0.6))
    ]


def play_bass(rng: np.random.Generator, bar: Bar, way: str, kicks: Sequence[int], program: int) -> list[Note]:
    """Play one bar of bass."""
    low = bar.pitch(bar.degree, 2)
    low = _LOWEST_BASS + (low - _LOWEST_BASS) % 12
    fifth = low + (bar.pitch(bar.degree + 4, 2) - bar.pitch(bar.degree, 2))

    def play(step: float, steps: float, pitch: int, level: float = 98.0) -> Note:
        return _note(rng, bar, step, steps, BASS_CHANNEL, program, pitch, level)

    if way == "eighths":
        return [play(step, 1.8, low if rng.random() < 0.93 else fifth) for step in range(0, 16, 2)]
    if way == "offbeat":
        return [play(step, 1.7, low if rng.random() < 0.9 else low + 12) for step in range(2, 16, 4)]
    if way == "rolling":
        return [play(step, 0.9, low, 90.0) for step in range(16) if step % 4]
    if way == "octaves":
        return [play(step, 1.6, low + (12 if step % 4 else 0)) for step in range(0, 16, 2)]
    if way == "walking":
        steps = [bar.pitch(bar.degree + move, 2) for move in (0, 2, 4, int(rng.choice([1, 3, 5, 6])))]
        return [play(4 * beat, 3.7, low + (pitch - bar.pitch(bar.degree, 2))) for beat, pitch in enumerate(steps)]
    if way in ("long", "glide", "wobble"):
        cut = int(rng.choice([8, 12, 16]))
        notes = [play(0, cut - 0.3, low)]
        return notes + ([play(cut, 15.7 - cut, fifth if rng.random() < 0.5 else low)] if cut < 16 else [])
    if way == "kick":
        return [play(step, float(rng.uniform(1.5, 4.0)), low) for step in kicks or [0]]
    rhythm = _rhythm(rng, 0.35)
    gaps = np.diff([*rhythm, 16])
    moves = (0, 0, 0, 4, 7, 2)
    pitches = [low + bar.pitch(bar.degree + int(rng.choice(moves)), 2) - bar.pitch(bar.degree, 2) for _ in rhythm]
    return [play(s, 0.85 * min(g, 4), p) for s, g, p in zip(rhythm, gaps, pitches, strict=True)]


def play_chords(rng: np.random.Generator, bar: Bar, way: str, channel: int, program: int) -> list[Note]:
    """Play one bar of chords."""
    octave = int(rng.choice([4, 5], p=[0.6, 0.4]))
    chord = bar.chord(octave, int(rng.choice([3, 4], p=[0.7, 0.3])))

    def play(step: float, steps: float, pitch: int, level: float = 84.0) -> Note:
        return _note(rng, bar, step, steps, channel, program, pitch, level)

    if way == "pad":
        return [play(0, 15.8, pitch, 76.0) for pitch in chord]
    if way == "power":
        low = bar.pitch(bar.degree, 3)
        steps = range(0, 16, 2) if rng.random() < 0.6 else (0, 6, 8, 14)
        return [play(step, 1.8, low + up, 96.0) for step in steps for up in (0, 7, 12)]
    if way == "arpeggio":
        ladder = [*chord, chord[0] + 12, *chord[::-1]]
        stride = int(rng.choice([1, 2]))
        return [play(s, 0.9 * stride, ladder[i % len(ladder)]) for i, s in enumerate(range(0, 16, stride))]
    if way == "gated":
        return [play(step, 0.7, pitch) for step in range(16) if step % 4 != 3 for pitch in chord]
    if way == "strum":
        marks = [step for step in range(0, 16, 2) if rng.random() < 0.75] or [0]
        return [play(s + 0.06 * i, 1.8, pitch) for s in marks for i, pitch in enumerate([chord[0] - 12, *chord])]
    if way == "keys":
        hits = [(0, 6.0), (8, 6.0)] if rng.random() < 0.5 else [(0, 3.5), (6, 2.0), (10, 4.0)]
        return [play(step, steps, pitch) for step, steps in hits for pitch in [chord[0] - 12, *chord]]
    return [play(step, 1.2, pitch, 90.0) for step in _rhythm(rng, 0.22) for pitch in chord]


def play_lead(rng: np.random.Generator, bar: Bar, way: str, channel: int, program: int) -> list[Note]:
    """Play one bar of melody on an instrument."""
    chance = {"riff": 0.4, "sparse": 0.15}.get(way, 0.0)
    rhythm = _rhythm(rng, chance) if chance else sorted({0, int(rng.choice([8, 10, 12]))})
    if way == "sparse" and rng.random() < 0.35:
        return []
    return _melody(rng, bar, rhythm, channel, program, 5, (60, 96))


def play_vocals(rng: np.random.Generator, bar: Bar, channel: int) -> list[Note]:
    """Write one bar of melody for a singer, within a comfortable range and with room to breathe."""
    if rng.random() < 0.15:
        return []
    rhythm = [step for step in _rhythm(rng, 0.3) if step < 14]
    kept = rhythm[:1] + [b for a, b in itertools.pairwise(rhythm) if b - a > 1]
    return _melody(rng, bar, kept, channel, 53, 4, _VOCAL_RANGE)


def _melody(
    rng: np.random.Generator,
    bar: Bar,
    rhythm: Sequence[int],
    channel: int,
    program: int,
    octave: int,
    limits: tuple[int, int],
) -> list[Note]:
    """Walk along the scale; strong beats prefer notes of the chord."""
    degree = bar.degree + int(rng.choice([0, 2, 4, 7]))
    notes = []
    for step, gap in zip(rhythm, np.diff([*rhythm, 16]), strict=True):
        degree += int(rng.choice([-2, -1, -1, 0, 1, 1, 2]))
        if step % 8 == 0:
            degree = bar.degree + 2 * round((degree - bar.degree) / 2)
        pitch = bar.pitch(degree, octave)
        while pitch > limits[1]:
            pitch -= 12
        while pitch < limits[0]:
            pitch += 12
        note = _note(rng, bar, step, 0.92 * min(int(gap), 8), channel, program, pitch, 92.0)
        notes.append(replace(note, end_s=min(note.end_s, bar.time_of(step + int(gap)))))
    return notes
