"""A tracker module that tests write themselves: a kick, a bass line, chords of a square wave."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from polyres.core.errors import InputError
from polyres.synth.modules.openmpt import require_openmpt

PERIODS = {"c": 428, "d": 381, "e": 339, "f": 320, "g": 285, "a": 254, "C": 214, "E": 170, "G": 143}
PATTERNS = 2
ROWS = 64
ROW_S = 6 * 2.5 / 125  # six ticks a row at tempo 125
LENGTH_S = PATTERNS * ROWS * ROW_S


def openmpt_is_there() -> bool:
    """Whether modules can be played here."""
    try:
        require_openmpt()
    except InputError:
        return False
    return True


needs_openmpt = pytest.mark.skipif(not openmpt_is_there(), reason="libopenmpt is not installed")


def _samples() -> list[tuple[str, np.ndarray, bool]]:
    """Name, 8-bit sound and whether it is looped."""
    n = np.arange(2400)
    kick = 120 * np.sin(2 * np.pi * 60 * (1 - np.exp(-n / 500)) * 500 / 16574 * 3) * np.exp(-n / 500)
    saw = np.tile(np.linspace(100, -100, 256), 4)
    square = np.tile(np.repeat([70.0, -70.0], 16), 16)
    return [("kick drum", kick, False), ("bass", saw, True), ("organ chords", square, True)]


def write_module(path: Path) -> Path:
    """Write a four-channel ProTracker module of 15 s; instruments 0, 1, 2 are drums, bass, other."""
    cells = np.zeros((ROWS, 4, 4), np.uint8)

    def note(row: int, channel: int, sample: int, key: str, volume: int) -> None:
        period = PERIODS[key]
        cells[row, channel] = (period >> 8, period & 255, sample << 4 | 0xC, volume)

    for row in range(0, ROWS, 4):
        note(row, 0, 1, "c", 64)
        note(row, 1, 2, "cdefgafd"[row // 4 % 8], 48)
        if row % 8 == 0:
            chord = [("C", "E"), ("C", "G"), ("E", "G"), ("a", "E")][row // 8 % 4]
            note(row, 2, 3, chord[0], 32)
            note(row, 3, 3, chord[1], 32)
    header = b"tune".ljust(20, b"\0")
    body = b""
    for name, wave, looped in _samples():
        words = len(wave) // 2
        header += name.encode().ljust(22, b"\0") + struct.pack(">HBBHH", words, 0, 64, 0, words if looped else 1)
        body += np.round(wave).astype(np.int8).tobytes()[: 2 * words]
    header += (b"\0" * 22 + struct.pack(">HBBHH", 0, 0, 0, 0, 1)) * (31 - len(_samples()))
    header += bytes([PATTERNS, 127]) + bytes(128) + b"M.K."
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header + cells.tobytes() + body)
    return path
