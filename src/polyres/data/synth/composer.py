"""A seeded composer: sections, chords, drum patterns with fills, bass lines, comping and melodies."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from polyres.data.synth.midi import DRUM_CHANNEL, STEMS, Note, Score
from polyres.data.synth.parts import Bar, play_bass, play_chords, play_lead, play_vocals
from polyres.data.synth.styles import CLOSED, CRASH, HIGH_TOM, KICK, LOW_TOM, MIDDLE_TOM, SNARE, STYLES, Style

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
    """What is drawn once for a song."""

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
    """Compose a piece.

    Args:
        rng: source of every choice.
        length_s: about how long, in seconds; the last bar ends there or before.
        style: name of a style; None draws one.
        always: layers that play in every section: drums, bass, comping, second, lead or vocals.

    Returns:
        A score with drums, bass, other, and a melody for a singer under `vocals`.

    Raises:
        UnknownNameError: if there is no such style.
    """
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
    """Draw who plays in a section; something always does, and drums and bass mostly."""
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
