"""Styles for the composer: tempo, drum grids, and how bass, chords and melodies move."""

from __future__ import annotations

from dataclasses import dataclass

from polyres.core.catalogue import Catalogue

KICK, SNARE, CLAP, CLOSED, OPEN, RIDE, CRASH, RIM = 36, 38, 39, 42, 46, 51, 49, 37
LOW_TOM, MIDDLE_TOM, HIGH_TOM, SHAKER, CONGA = 45, 47, 50, 70, 63


@dataclass(frozen=True)
class Style:
    """A musical style.

    `grids` maps drum notes to bars of 16 steps: `x` always, `o` often (70 %), `.` seldom (12 %), `-` never. Several
    bars for one drum are alternatives. `bass`, `comping` and `lead` name ways of playing that the composer knows; one
    of each is drawn. `kick_ducks` is how often the kick pumps the other stems.
    """

    tempo_bpm: tuple[float, float]
    grids: dict[int, tuple[str, ...]]
    bass: tuple[str, ...]
    comping: tuple[str, ...]
    lead: tuple[str, ...]
    swing: tuple[float, float] = (0.0, 0.08)
    minor: float = 0.6
    kick_ducks: float = 0.0


STYLES: Catalogue[Style] = Catalogue("style")


def _add(name: str, summary: str, style: Style) -> None:
    """Put a style into the catalogue."""
    STYLES.register(name, summary)(lambda: style)


_add(
    "house",
    "four on the floor, open hats off the beat",
    Style(
        tempo_bpm=(116.0, 134.0),
        grids={
            KICK: ("x---x---x---x---", "x---x---x---x-.-"),
            CLAP: ("----x-------x---", "----x-------x-.-"),
            OPEN: ("--x---x---x---x-",),
            CLOSED: ("oooooooooooooooo", "o-o.o-o.o-o.o-o."),
            CONGA: ("---.--.---.--.-.", "----------------"),
        },
        bass=("offbeat", "octaves", "syncopated"),
        comping=("stabs", "pad", "arpeggio"),
        lead=("riff", "sparse"),
        minor=0.7,
        kick_ducks=0.7,
    ),
)
_add(
    "trance",
    "fast, rolling bass, wide saws",
    Style(
        tempo_bpm=(132.0, 146.0),
        grids={
            KICK: ("x---x---x---x---",),
            CLAP: ("----x-------x---",),
            OPEN: ("--x---x---x---x-",),
            CLOSED: ("o.o.o.o.o.o.o.o.",),
            RIDE: ("--x---x---x---x-", "----------------"),
        },
        bass=("rolling", "offbeat"),
        comping=("pad", "arpeggio", "gated"),
        lead=("riff", "long"),
        minor=0.85,
        kick_ducks=0.8,
    ),
)
_add(
    "breaks",
    "broken beats and busy snares",
    Style(
        tempo_bpm=(96.0, 140.0),
        grids={
            KICK: ("x-----.---x--.--", "x--x----.-x-----", "x-x-------xo----"),
            SNARE: ("----x--.-.--x--.", "----x--o-o--x--."),
            CLOSED: ("x-x-x-x-x-x-x-x-", "xoxoxoxoxoxoxoxo"),
            OPEN: ("--------------o-", "------o---------"),
        },
        bass=("syncopated", "walking", "long"),
        comping=("stabs", "pad", "keys"),
        lead=("sparse", "riff"),
        swing=(0.0, 0.2),
        kick_ducks=0.2,
    ),
)
_add(
    "drum_and_bass",
    "fast breaks over half-time bass",
    Style(
        tempo_bpm=(164.0, 178.0),
        grids={
            KICK: ("x---------x-----", "x--.------x--.--"),
            SNARE: ("----x-------x---", "----x--.-.--x---"),
            CLOSED: ("x-x-x-x-x-x-x-x-", "xoxoxoxoxoxoxoxo"),
            RIDE: ("x-x-x-x-x-x-x-x-", "----------------"),
        },
        bass=("long", "syncopated", "wobble"),
        comping=("pad", "stabs"),
        lead=("sparse", "long"),
        minor=0.85,
        kick_ducks=0.3,
    ),
)
_add(
    "half_time",
    "slow, deep kicks, fast hats",
    Style(
        tempo_bpm=(64.0, 80.0),
        grids={
            KICK: ("x------.--o-----", "x--o------x-----", "x-----o---.x----"),
            CLAP: ("--------x-------",),
            CLOSED: ("xoxoxoxoxoxoxoxo", "x-x-x-xxx-x-xox-"),
            OPEN: ("--------------.-",),
        },
        bass=("long", "glide", "kick"),
        comping=("keys", "pad", "arpeggio"),
        lead=("riff", "sparse"),
        minor=0.85,
    ),
)
_add(
    "synth_pop",
    "straight eighths, big snares, melodies",
    Style(
        tempo_bpm=(98.0, 128.0),
        grids={
            KICK: ("x-------x-------", "x---x---x---x---", "x-----x-x-------"),
            SNARE: ("----x-------x---",),
            CLOSED: ("x-x-x-x-x-x-x-x-", "x.x.x.x.x.x.x.x."),
            HIGH_TOM: ("----------------", "-------------o-o"),
        },
        bass=("eighths", "octaves", "rolling"),
        comping=("pad", "arpeggio", "stabs"),
        lead=("riff", "long"),
        minor=0.5,
        kick_ducks=0.2,
    ),
)
_add(
    "rock",
    "backbeat, driven eighths",
    Style(
        tempo_bpm=(88.0, 152.0),
        grids={
            KICK: ("x-----x-x-------", "x-x-----x-x-----", "x-------x-o-----"),
            SNARE: ("----x-------x---", "----x-------x--."),
            CLOSED: ("x-x-x-x-x-x-x-x-", "x---x---x---x---"),
            RIDE: ("----------------", "x-x-x-x-x-x-x-x-"),
        },
        bass=("eighths", "kick", "walking"),
        comping=("strum", "power", "keys"),
        lead=("sparse", "long"),
        minor=0.4,
    ),
)
_add(
    "funk",
    "sixteenths with ghost notes and a busy bass",
    Style(
        tempo_bpm=(92.0, 118.0),
        grids={
            KICK: ("x--o--x---o-----", "x-x---.--o-x----"),
            SNARE: ("----x--.-.--x--.", "----x--o.o--x..o"),
            CLOSED: ("xoxoxoxoxoxoxoxo", "x-xxx-xxx-xxx-xx"),
            OPEN: ("------------.---", "--------------o-"),
        },
        bass=("syncopated", "octaves"),
        comping=("stabs", "keys", "strum"),
        lead=("sparse", "riff"),
        swing=(0.0, 0.2),
        minor=0.6,
    ),
)
_add(
    "ballad",
    "slow and sparse",
    Style(
        tempo_bpm=(58.0, 84.0),
        grids={
            KICK: ("x-------x-.-----", "x------.x-------"),
            RIM: ("----x-------x---", "----------------"),
            SNARE: ("----------------", "----x-------x---"),
            CLOSED: ("x-x-x-x-x-x-x-x-", "x---x---x---x---"),
            SHAKER: ("xoxoxoxoxoxoxoxo", "----------------"),
        },
        bass=("long", "kick"),
        comping=("keys", "strum", "pad"),
        lead=("long", "sparse"),
        minor=0.4,
    ),
)
_add(
    "swing",
    "ride cymbal, walking bass",
    Style(
        tempo_bpm=(100.0, 190.0),
        grids={
            RIDE: ("x---x-.xx---x-.x", "x---x--xx---x--x"),
            CLOSED: ("----x-------x---",),
            KICK: ("x-------.-------", "o-----.---.-----"),
            SNARE: (".--.--.--.--.--.", "-------.------.-"),
        },
        bass=("walking",),
        comping=("keys", "stabs"),
        lead=("riff", "sparse"),
        swing=(0.25, 0.34),
        minor=0.4,
    ),
)
