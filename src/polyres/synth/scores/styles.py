"""Styles for the composer: tempo, drum grids, and how bass, chords and melodies move."""

from __future__ import annotations

from dataclasses import dataclass

from polyres.core.catalogue import Catalogue

KICK, SNARE, CLAP, CLOSED, OPEN, RIDE, CRASH, RIM = 36, 38, 39, 42, 46, 51, 49, 37
LOW_TOM, MIDDLE_TOM, HIGH_TOM, SHAKER, CONGA = 45, 47, 50, 70, 63


@dataclass(frozen=True)
class Style:
    """A musical style."""

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


_add("house", "four on the floor, open hats off the beat", Style(
    (116.0, 134.0), {
        KICK: ("x---x---x---x---", "x---x---x---x-.-"),
        CLAP: ("----x-------x---", "----x-------x-.-"),
        OPEN: ("--x---x---x---x-",),
        CLOSED: ("oooooooooooooooo", "o-o.o-o.o-o.o-o."),
        CONGA: ("---.--.---.--.-.", "----------------"),
    }, ("offbeat", "octaves", "syncopated"), ("stabs", "pad", "arpeggio"),
    ("riff", "sparse"), minor=0.7, kick_ducks=0.7,
))  # fmt: skip
_add("trance", "fast, rolling bass, wide saws", Style(
    (132.0, 146.0), {
        KICK: ("x---x---x---x---",),
        CLAP: ("----x-------x---",),
        OPEN: ("--x---x---x---x-",),
        CLOSED: ("o.o.o.o.o.o.o.o.",),
        RIDE: ("--x---x---x---x-", "----------------"),
    }, ("rolling", "offbeat"), ("pad", "arpeggio", "gated"), ("riff", "long"), minor=0.85, kick_ducks=0.8,
))  # fmt: skip
_add("breaks", "broken beats and busy snares", Style(
    (96.0, 140.0), {
        KICK: ("x-----.---x--.--", "x--x----.-x-----", "x-x-------xo----"),
        SNARE: ("----x--.-.--x--.", "----x--o-o--x--."),
        CLOSED: ("x-x-x-x-x-x-x-x-", "xoxoxoxoxoxoxoxo"),
        OPEN: ("--------------o-", "------o---------"),
    }, ("syncopated", "walking", "long"), ("stabs", "pad", "keys"),
    ("sparse", "riff"), swing=(0.0, 0.2), kick_ducks=0.2,
))  # fmt: skip
_add("drum_and_bass", "fast breaks over half-time bass", Style(
    (164.0, 178.0), {
        KICK: ("x---------x-----", "x--.------x--.--"),
        SNARE: ("----x-------x---", "----x--.-.--x---"),
        CLOSED: ("x-x-x-x-x-x-x-x-", "xoxoxoxoxoxoxoxo"),
        RIDE: ("x-x-x-x-x-x-x-x-", "----------------"),
    }, ("long", "syncopated", "wobble"), ("pad", "stabs"), ("sparse", "long"), minor=0.85, kick_ducks=0.3,
))  # fmt: skip
_add("half_time", "slow, deep kicks, fast hats", Style(
    (64.0, 80.0), {
        KICK: ("x------.--o-----", "x--o------x-----", "x-----o---.x----"),
        CLAP: ("--------x-------",),
        CLOSED: ("xoxoxoxoxoxoxoxo", "x-x-x-xxx-x-xox-"),
        OPEN: ("--------------.-",),
    }, ("long", "glide", "kick"), ("keys", "pad", "arpeggio"), ("riff", "sparse"), minor=0.85,
))  # fmt: skip
_add("synth_pop", "straight eighths, big snares, melodies", Style(
    (98.0, 128.0), {
        KICK: ("x-------x-------", "x---x---x---x---", "x-----x-x-------"),
        SNARE: ("----x-------x---",),
        CLOSED: ("x-x-x-x-x-x-x-x-", "x.x.x.x.x.x.x.x."),
        HIGH_TOM: ("----------------", "-------------o-o"),
    }, ("eighths", "octaves", "rolling"), ("pad", "arpeggio", "stabs"), ("riff", "long"), minor=0.5, kick_ducks=0.2,
))  # fmt: skip
_add("rock", "backbeat, driven eighths", Style(
    (88.0, 152.0), {
        KICK: ("x-----x-x-------", "x-x-----x-x-----", "x-------x-o-----"),
        SNARE: ("----x-------x---", "----x-------x--."),
        CLOSED: ("x-x-x-x-x-x-x-x-", "x---x---x---x---"),
        RIDE: ("----------------", "x-x-x-x-x-x-x-x-"),
    }, ("eighths", "kick", "walking"), ("strum", "power", "keys"), ("sparse", "long"), minor=0.4,
))  # fmt: skip
_add("funk", "sixteenths with ghost notes and a busy bass", Style(
    (92.0, 118.0), {
        KICK: ("x--o--x---o-----", "x-x---.--o-x----"),
        SNARE: ("----x--.-.--x--.", "----x--o.o--x..o"),
        CLOSED: ("xoxoxoxoxoxoxoxo", "x-xxx-xxx-xxx-xx"),
        OPEN: ("------------.---", "--------------o-"),
    }, ("syncopated", "octaves"), ("stabs", "keys", "strum"), ("sparse", "riff"), swing=(0.0, 0.2),
))  # fmt: skip
_add("ballad", "slow and sparse", Style(
    (58.0, 84.0), {
        KICK: ("x-------x-.-----", "x------.x-------"),
        RIM: ("----x-------x---", "----------------"),
        SNARE: ("----------------", "----x-------x---"),
        CLOSED: ("x-x-x-x-x-x-x-x-", "x---x---x---x---"),
        SHAKER: ("xoxoxoxoxoxoxoxo", "----------------"),
    }, ("long", "kick"), ("keys", "strum", "pad"), ("long", "sparse"), minor=0.4,
))  # fmt: skip
_add("swing", "ride cymbal, walking bass", Style(
    (100.0, 190.0), {
        RIDE: ("x---x-.xx---x-.x", "x---x--xx---x--x"),
        CLOSED: ("----x-------x---",),
        KICK: ("x-------.-------", "o-----.---.-----"),
        SNARE: (".--.--.--.--.--.", "-------.------.-"),
    }, ("walking",), ("keys", "stabs"), ("riff", "sparse"), swing=(0.25, 0.34), minor=0.4,
))  # fmt: skip
