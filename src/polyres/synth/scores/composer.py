"""A seeded composer: sections, chords, drum patterns with fills, bass lines, comping and melodies."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np

from polyres.synth.scores.arrangement import Bar, play_bass, play_chords, play_lead, play_vocals
from polyres.synth.scores.midi import DRUM_CHANNEL, STEMS, Note, Score
from polyres.synth.scores.styles import CLOSED, CRASH, HIGH_TOM, KICK, LOW_TOM, MIDDLE_TOM, SNARE, STYLES, Style

STEPS = 16
_MAJOR = (0, 2, 4, 5, 7, 9, 11)
_MINOR = (0, 2, 3, 5, 7, 8, 10)
_PROGRESSIONS = {
    "major": ((0, 4, 5, 3), (0, 5, 3, 4), (5, 3, 0, 4), (0, 3, 4, 3), (0, 2, 3, 4), (1, 4, 0, 5), (0, 3, 0, 4)),
    "minor": ((0, 5, 2, 6), (0, 3, 5, 4), (0, 6, 5, 6), (0, 0, 5, 6), (5, 6, 0, 0), (0, 3, 6, 2), (0, 5, 3, 4)),
}
_CHANCES = {"x": 0.98, "o": 0.7, ".": 0.12, "-": 0.0}
_FILLS = (SNARE, HIGH_TOM, MIDDLE_TOM, LOW_TOM)
_BASS_PROGRAMS = (32, 33, 34, 35, 36, 37, 38, 39)
_COMPING_PROGRAMS = {
    "stabs": (4, 16, 18, 61, 62, 63, 81, 90),
    "pad": (48, 49, 50, 51, 88, 89, 90, 91, 92, 94, 95),
    "arpeggio": (6, 8, 11, 12, 24, 46, 80, 81, 84, 98),
    "gated": (50, 81, 90, 93),
    "keys": (0, 1, 2, 4, 5, 6, 7, 17, 19),
    "strum": (24, 25, 26, 27, 28),
    "power": (29, 30),
}
_LEAD_PROGRAMS = (11, 22, 26, 40, 56, 65, 66, 71, 73, 80, 81, 82, 84, 85, 87, 98, 104)


@dataclass
class _Plan:
    """Random choices made once per song."""

    style: Style
    name: str
    tempo_bpm: float
    swing: float
    root: int
    scale: tuple[int, ...]
    progressions: list[tuple[int, ...]]
    grids: list[dict[int, str]]
    programs: dict[str, int]
    ways: dict[str, str]
    stems: dict[str, list[Note]] = field(default_factory=dict)


def compose(rng: np.random.Generator, length_s: float, style: str | None = None, always: Collection[str] = ()) -> Score:
    """Compose a piece. `style`: name of a style; None draws one."""
    name = style or str(rng.choice(STYLES.names()))
    plan = _draw_plan(rng, name)
    bar_s = 4.0 * 60.0 / plan.tempo_bpm
    bars = max(1, int(length_s / bar_s + 1e-9))
    number = 0
    while number < bars:
        section_bars = min(int(rng.choice([4, 8])), bars - number)
        layers = _draw_layers(rng, number == 0) | set(always)
        which = int(rng.integers(2))
        for position in range(section_bars):
            _write_bar(rng, plan, layers, which, number, position, section_bars)
            number += 1
    stems = {
        stem: tuple(sorted(plan.stems[stem], key=lambda note: (note.start_s, note.channel, note.pitch)))
        for stem in STEMS
        if plan.stems.get(stem)
    }
    return Score(f"composed_{name}", stems, (), bars * bar_s, 60.0 / plan.tempo_bpm)


def _draw_plan(rng: np.random.Generator, name: str) -> _Plan:
    style = STYLES.build(name)
    minor = rng.random() < style.minor
    progressions = _PROGRESSIONS["minor" if minor else "major"]
    ways = {
        "bass": str(rng.choice(style.bass)),
        "comping": str(rng.choice(style.comping)),
        "second": str(rng.choice(style.comping)),
        "lead": str(rng.choice(style.lead)),
    }
    return _Plan(
        style=style,
        name=name,
        tempo_bpm=float(rng.uniform(*style.tempo_bpm)),
        swing=float(rng.uniform(*style.swing)),
        root=int(rng.integers(12)),
        scale=_MINOR if minor else _MAJOR,
        progressions=[progressions[int(rng.integers(len(progressions)))] for _ in range(2)],
        grids=[{drum: str(rng.choice(bars)) for drum, bars in style.grids.items()} for _ in range(2)],
        programs={
            "bass": int(rng.choice(_BASS_PROGRAMS)),
            "comping": int(rng.choice(_COMPING_PROGRAMS[ways["comping"]])),
            "second": int(rng.choice(_COMPING_PROGRAMS[ways["second"]])),
            "lead": int(rng.choice(_LEAD_PROGRAMS)),
        },
        ways=ways,
    )


def _draw_layers(rng: np.random.Generator, first: bool) -> set[str]:
    """Draw the active layers of a section; never none, mostly with drums and bass."""
    chances = {"drums": 0.9, "bass": 0.9, "comping": 0.85, "second": 0.4, "lead": 0.5, "vocals": 0.65}
    layers = {name for name, chance in chances.items() if rng.random() < (chance if not first else 0.85 * chance)}
    return layers or {"comping", "drums"}


def _write_bar(
    rng: np.random.Generator, plan: _Plan, layers: set[str], which: int, number: int, position: int, section_bars: int
) -> None:
    """Let every layer play one bar."""
    degree = plan.progressions[which][position % len(plan.progressions[which])]
    bar = Bar(number * 240.0 / plan.tempo_bpm, plan.tempo_bpm, plan.swing, plan.root, plan.scale, degree)
    kicks = [step for step, mark in enumerate(plan.grids[which].get(KICK, "")) if mark == "x"]
    if "drums" in layers:
        fill = position == section_bars - 1 and rng.random() < 0.6
        plan.stems.setdefault("drums", []).extend(_play_grid(rng, bar, plan.grids[which], position == 0, fill))
    if "bass" in layers:
        notes = play_bass(rng, bar, plan.ways["bass"], kicks, plan.programs["bass"])
        plan.stems.setdefault("bass", []).extend(notes)
    other = plan.stems.setdefault("other", [])
    for channel, layer in ((1, "comping"), (2, "second")):
        if layer in layers:
            other.extend(play_chords(rng, bar, plan.ways[layer], channel, plan.programs[layer]))
    if "lead" in layers:
        other.extend(play_lead(rng, bar, plan.ways["lead"], 3, plan.programs["lead"]))
    if "vocals" in layers:
        plan.stems.setdefault("vocals", []).extend(play_vocals(rng, bar, 4))


def _play_grid(rng: np.random.Generator, bar: Bar, grid: dict[int, str], crash: bool, fill: bool) -> list[Note]:
    """Play one bar of drums; a fill takes its last beat or two."""
    fill_from = int(rng.choice([8, 12])) if fill else STEPS
    notes = []

    def strike(step: int, pitch: int, velocity: float) -> None:
        start_s = bar.time_of(step)
        level = int(np.clip(rng.normal(velocity, 7.0), 15, 127))
        notes.append(Note(start_s, start_s + 0.1, DRUM_CHANNEL, 0, pitch, level))

    for pitch, marks in grid.items():
        for step, mark in enumerate(marks):
            if step < fill_from and rng.random() < _CHANCES[mark]:
                accent = 8.0 if step % 4 == 0 else 0.0
                quiet = pitch == CLOSED or mark == "."
                strike(step, pitch, (78.0 if quiet else 104.0) + accent - (25.0 if mark == "." else 0.0))
    for step in range(fill_from, STEPS):
        if rng.random() < 0.75:
            strike(step, int(rng.choice(_FILLS)), 85.0 + 2.5 * (step - fill_from))
    if crash and rng.random() < 0.7:
        strike(0, CRASH, 100.0)
    return notes


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
    """Find the major or minor key whose scale holds most of the given MIDI pitches."""
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
    """Walk through a scale in phrases with rests between them; phrases often come back."""
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
