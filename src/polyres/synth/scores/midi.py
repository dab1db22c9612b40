"""Read MIDI files into notes per stem, and write notes back to MIDI files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from polyres.core.errors import InputError

if TYPE_CHECKING:
    import mido

DRUM_CHANNEL = 9
BASS_PROGRAMS = frozenset(range(32, 40))
VOICE_PROGRAMS = frozenset((52, 53, 54))
PERCUSSION_PROGRAMS = frozenset(range(115, 119))
STEMS = ("drums", "bass", "other", "vocals")

_TICKS_PER_S = 10_000
_SKIPPED_CONTROLS = frozenset((0, 32, 91, 93, 120, 121, 123))  # bank, effect sends, resets: set by the take instead


@dataclass(frozen=True)
class Note:
    """One sounding note; times in seconds, `pitch` and `velocity` as in MIDI (0 to 127), `channel` 0 to 15."""

    start_s: float
    end_s: float
    channel: int
    program: int
    pitch: int
    velocity: int


@dataclass(frozen=True)
class Control:
    """One controller move; `number` is the MIDI controller, or -1 for the pitch wheel (-8192 to 8191)."""

    time_s: float
    channel: int
    number: int
    value: int


@dataclass(frozen=True)
class Score:
    """The notes of one piece by stem, with the controller moves of every channel and the length of a beat."""

    name: str
    stems: dict[str, tuple[Note, ...]]
    controls: tuple[Control, ...]
    length_s: float
    beat_s: float = 0.5


def _mido() -> Any:
    """Import the MIDI library where it is needed; composed songs do without."""
    try:
        import mido
    except ImportError as error:
        raise InputError("MIDI needs the package 'mido'; install it with: pip install 'polyres[synth]'") from error
    return mido


def stem_of(channel: int, program: int) -> str | None:
    """Return the stem of a General MIDI program, 0 to 127, on a channel, 0 to 15; None for choirs and voices."""
    if channel == DRUM_CHANNEL or program in PERCUSSION_PROGRAMS:
        return "drums"
    if program in BASS_PROGRAMS:
        return "bass"
    if program in VOICE_PROGRAMS:
        return None
    return "other"


def read_score(path: str | Path) -> Score:
    """Read a MIDI file into notes per stem."""
    path, library = Path(path), _mido()
    try:
        midi_file = library.MidiFile(str(path), clip=True)
        timed = _timed_messages(midi_file)
    except (OSError, EOFError, ValueError, KeyError, IndexError, TypeError) as error:
        raise InputError(f"cannot read '{path}' as MIDI ({error}); give a standard .mid file") from error
    notes, controls = _pair_notes(timed)
    stems: dict[str, list[Note]] = {}
    for note in notes:
        stem = stem_of(note.channel, note.program)
        if stem is not None:
            stems.setdefault(stem, []).append(note)
    if not stems:
        raise InputError(f"'{path}' holds no note to play; give a MIDI file with notes")
    ordered = {stem: tuple(stems[stem]) for stem in STEMS if stem in stems}
    length_s = max(note.end_s for part in ordered.values() for note in part)
    return Score(path.stem, ordered, tuple(controls), length_s)


def _timed_messages(midi_file: mido.MidiFile) -> list[tuple[float, mido.Message]]:
    now_s = 0.0
    timed = []
    for message in midi_file:
        now_s += message.time
        if not message.is_meta:
            timed.append((now_s, message))
    return timed


def _pair_notes(timed: Iterable[tuple[float, mido.Message]]) -> tuple[list[Note], list[Control]]:
    """Match note-ons with note-offs; a note that is never ended stops with the last message."""
    programs = [0] * 16
    sounding: dict[tuple[int, int], tuple[float, int, int]] = {}
    notes: list[Note] = []
    controls: list[Control] = []
    now_s = 0.0

    def close(key: tuple[int, int], end_s: float) -> None:
        start_s, program, velocity = sounding.pop(key)
        notes.append(Note(start_s, max(end_s, start_s + 0.01), key[0], program, key[1], velocity))

    for now_s, message in timed:
        kind = message.type
        if kind == "program_change":
            programs[message.channel] = message.program
        elif kind == "control_change":
            if message.control not in _SKIPPED_CONTROLS:
                controls.append(Control(now_s, message.channel, message.control, message.value))
        elif kind == "pitchwheel":
            controls.append(Control(now_s, message.channel, -1, message.pitch))
        elif kind in ("note_on", "note_off"):
            key = (message.channel, message.note)
            if key in sounding:
                close(key, now_s)
            if kind == "note_on" and message.velocity > 0:
                sounding[key] = (now_s, programs[message.channel], message.velocity)
    for key in list(sounding):
        close(key, now_s)
    notes.sort(key=lambda note: (note.start_s, note.channel, note.pitch))
    return notes, controls


def write_score(notes: Sequence[Note], controls: Sequence[Control], length_s: float, path: str | Path) -> None:
    """Write the notes and controller moves of one stem as a MIDI file."""
    library = _mido()
    channels = {note.channel for note in notes}
    events: list[tuple[float, int, mido.Message]] = []
    for control in controls:
        if control.channel in channels and control.time_s < length_s:
            events.append((control.time_s, 0, _control_message(control)))
    programs: dict[int, int] = {}
    for note, end_s in _without_overlaps(notes):
        if note.start_s >= length_s:
            continue
        if programs.get(note.channel) != note.program:
            programs[note.channel] = note.program
            change = library.Message("program_change", channel=note.channel, program=note.program)
            events.append((note.start_s, 2, change))
        on = library.Message("note_on", channel=note.channel, note=note.pitch, velocity=note.velocity)
        off = library.Message("note_off", channel=note.channel, note=note.pitch, velocity=0)
        events.append((note.start_s, 3, on))
        events.append((min(end_s, length_s), 1, off))
    events.sort(key=lambda event: (round(event[0] * _TICKS_PER_S), event[1]))
    track = library.MidiTrack([library.MetaMessage("set_tempo", tempo=1_000_000, time=0)])
    last_tick = 0
    for time_s, _, message in events:
        tick = round(time_s * _TICKS_PER_S)
        track.append(message.copy(time=tick - last_tick))
        last_tick = tick
    # An undefined controller at the end keeps the player running through the tail.
    end_tick = max(round(length_s * _TICKS_PER_S), last_tick)
    channel = min(channels, default=0)
    track.append(library.Message("control_change", channel=channel, control=3, value=0, time=end_tick - last_tick))
    midi_file = library.MidiFile(type=0, ticks_per_beat=_TICKS_PER_S)
    midi_file.tracks.append(track)
    midi_file.save(str(path))


def _control_message(control: Control) -> mido.Message:
    library = _mido()
    if control.number == -1:
        return library.Message("pitchwheel", channel=control.channel, pitch=control.value)
    return library.Message("control_change", channel=control.channel, control=control.number, value=control.value)


def _without_overlaps(notes: Sequence[Note]) -> list[tuple[Note, float]]:
    """Pair each note, in time order, with an end that does not reach into the next note of its pitch and channel."""
    ordered = sorted(notes, key=lambda note: (note.start_s, note.channel, note.pitch))
    next_start_s: dict[tuple[int, int], float] = {}
    paired = []
    for note in reversed(ordered):
        key = (note.channel, note.pitch)
        paired.append((note, min(note.end_s, next_start_s.get(key, note.end_s))))
        next_start_s[key] = note.start_s
    return paired[::-1]
