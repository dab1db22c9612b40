"""Instrument banks: finding one and listing the presets of an SF2 or SF3 file."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

from polyres.core.errors import InputError

DRUM_BANK = 128
_KNOWN_PLACES = (
    "/usr/share/sounds/sf2/FluidR3_GM.sf2",
    "/usr/share/sounds/sf3/FluidR3Mono_GM.sf3",
    "/usr/share/sounds/sf2/default-GM.sf2",
    "/usr/share/sounds/sf3/default-GM.sf3",
    "/usr/share/soundfonts/default.sf2",
)
_PRESET_BYTES = 38


@dataclass(frozen=True)
class Preset:
    """One instrument of a bank; drum kits live in bank 128."""

    bank: int
    program: int
    name: str


def find_bank() -> Path | None:
    """Return the first General MIDI bank found in the usual places, or None."""
    for place in _KNOWN_PLACES:
        if Path(place).is_file():
            return Path(place)
    return None


def read_presets(path: str | Path) -> list[Preset]:
    """List the presets of an SF2 or SF3 bank without loading its samples: presets sorted by bank and program.

    Source: SoundFont 2.04 specification, sections 4 and 7.2 (the `phdr` chunk).
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            header = file.read(12)
            if len(header) < 12 or header[:4] != b"RIFF" or header[8:] != b"sfbk":
                raise InputError(f"'{path}' is not a SoundFont; give an .sf2 or .sf3 bank")
            records = _preset_records(file)
    except OSError as error:
        raise InputError(f"cannot open the bank '{path}' ({error.strerror}); give an .sf2 or .sf3 file") from error
    except struct.error as error:
        raise InputError(f"the bank '{path}' is cut short; give a whole .sf2 or .sf3 file") from error
    presets = []
    for start in range(0, len(records) - _PRESET_BYTES, _PRESET_BYTES):  # the last record only ends the list
        name, program, bank = struct.unpack_from("<20sHH", records, start)
        presets.append(Preset(bank, program, name.split(b"\0")[0].decode("latin-1")))
    return sorted(presets, key=lambda preset: (preset.bank, preset.program))


def _preset_records(file: BufferedReader) -> bytes:
    """Walk the top-level lists to `pdta` and return its `phdr` chunk."""
    while True:
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind == b"LIST" and file.read(4) == b"pdta":
            break
        file.seek(size - 4 * (kind == b"LIST"), 1)
        _skip_padding(file, size)
    while True:
        kind, size = struct.unpack("<4sI", file.read(8))
        if kind == b"phdr":
            return file.read(size)
        file.seek(size, 1)
        _skip_padding(file, size)


def _skip_padding(file: BufferedReader, size: int) -> None:
    """Skip the byte behind a chunk of odd size, which some writers of SF3 leave out."""
    if size % 2 and not file.peek(1)[:1].isalpha():
        file.seek(1, 1)
