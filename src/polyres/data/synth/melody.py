"""Melodies: seeded phrases that walk through a scale."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

SCALES: dict[str, tuple[int, ...]] = {
    "major": (0, 2, 4, 5, 7, 9, 11),
    "minor": (0, 2, 3, 5, 7, 8, 10),
    "dorian": (0, 2, 3, 5, 7, 9, 10),
    "pentatonic": (0, 2, 4, 7, 9),
    "minor_pentatonic": (0, 3, 5, 7, 10),
}
_STEPS = (-3, -2, -1, -1, 0, 0, 1, 1, 2, 3)
_DURATIONS_BEATS = (0.5, 0.5, 1.0, 1.0, 1.0, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class MelodyNote:
    """One sung note: times in seconds, `pitch` in MIDI semitones, `degree` its step in the scale."""

    start_s: float
    duration_s: float
    pitch: int
    degree: int


@dataclass(frozen=True)
class Key:
    """A tonic pitch class (0 is C) and the name of a scale."""

    tonic: int
    scale: str

    def pitch(self, degree: int, centre: int) -> int:
        """Return the MIDI pitch of a scale step, counted from the tonic at or below `centre`."""
        steps = SCALES[self.scale]
        octave, step = divmod(degree, len(steps))
        base = centre - (centre - self.tonic) % 12
        return base + 12 * octave + steps[step]


def draw_key(rng: np.random.Generator) -> Key:
    """Draw a tonic and a scale."""
    return Key(int(rng.integers(12)), str(rng.choice(sorted(SCALES))))


def key_of(pitches: Iterable[int]) -> Key:
    """Find the major or minor key whose scale holds most of the given MIDI pitches.

    Args:
        pitches: MIDI pitches, repeated as often as they sound.

    Returns:
        The best key; ties go to the tonic that sounds most often, then to the lowest one.
    """
    counts = np.bincount([pitch % 12 for pitch in pitches], minlength=12).astype(float)
    best, best_score = Key(0, "major"), -1.0
    for scale in ("major", "minor"):
        for tonic in range(12):
            inside = sum(counts[(tonic + step) % 12] for step in SCALES[scale])
            score = float(inside + 0.5 * counts[tonic] + 0.25 * counts[(tonic + 7) % 12])
            if score > best_score:
                best, best_score = Key(tonic, scale), score
    return best


def draw_melody(
    rng: np.random.Generator, key: Key, length_s: float, centre: int, tempo_bpm: float, span: int = 7
) -> list[MelodyNote]:
    """Walk through a scale in phrases with rests between them; phrases often come back.

    Args:
        rng: source of randomness.
        key: tonic and scale.
        length_s: length to fill in seconds.
        centre: MIDI pitch around which the melody moves.
        tempo_bpm: beats per minute.
        span: how many semitones the melody may leave the centre.

    Returns:
        Notes in time order, none ending after `length_s`.
    """
    beat_s = 60.0 / tempo_bpm
    phrases = [_draw_phrase(rng, key, centre, span) for _ in range(4)]
    notes: list[MelodyNote] = []
    now_s = float(rng.uniform(0.0, 4.0)) * beat_s
    while now_s < length_s:
        for degree, beats in phrases[int(rng.integers(len(phrases)))]:
            duration_s = beats * beat_s
            if now_s + duration_s > length_s:
                return notes
            notes.append(MelodyNote(now_s, duration_s, key.pitch(degree, centre), degree))
            now_s += duration_s
        rest_beats = float(rng.choice([0.5, 1.0, 2.0, 2.0, 4.0, 8.0], p=[0.2, 0.25, 0.25, 0.15, 0.1, 0.05]))
        now_s += rest_beats * beat_s
    return notes


def _draw_phrase(rng: np.random.Generator, key: Key, centre: int, span: int) -> list[tuple[int, float]]:
    degree = int(rng.integers(-1, 4))
    phrase = []
    for _ in range(int(rng.integers(4, 12))):
        phrase.append((degree, float(rng.choice(_DURATIONS_BEATS))))
        step = int(rng.choice(_STEPS))
        if abs(key.pitch(degree + step, centre) - centre) > span:
            step = -step
        if abs(key.pitch(degree + step, centre) - centre) <= span:
            degree += step
    return phrase
