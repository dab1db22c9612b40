from __future__ import annotations

import struct
from pathlib import Path

import pytest

from polyres.core.errors import InputError
from polyres.synth.instruments import bank
from polyres.synth.instruments.bank import Preset, find_bank, read_presets


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)


def soundfont(presets: list[tuple[str, int, int]]) -> bytes:
    """A bank without samples: INFO of odd size, an empty sdta and the preset headers with their end mark."""
    records = b"".join(
        struct.pack("<20sHHHIII", name.encode(), program, number, 0, 0, 0, 0)
        for name, number, program in [*presets, ("EOP", 0, 0)]
    )
    lists = [chunk(b"LIST", b"INFO" + chunk(b"INAM", b"odd")), chunk(b"LIST", b"sdta")]
    lists.append(chunk(b"LIST", b"pdta" + chunk(b"phdr", records)))
    return chunk(b"RIFF", b"sfbk" + b"".join(lists))


def test_presets_are_listed_in_order_without_the_end_mark(tmp_path: Path) -> None:
    path = tmp_path / "a.sf2"
    path.write_bytes(soundfont([("Standard", 128, 0), ("Bass", 0, 33), ("Piano", 0, 0)]))
    assert read_presets(path) == [Preset(0, 0, "Piano"), Preset(0, 33, "Bass"), Preset(128, 0, "Standard")]


def test_a_writer_may_leave_out_the_padding(tmp_path: Path) -> None:
    path = tmp_path / "a.sf3"
    bank_bytes = soundfont([("Piano", 0, 0)])
    odd = b"INFO" + b"x" * 8 + b"y"
    at = bank_bytes.index(b"LIST", 16 + 8)
    unpadded = bank_bytes[:12] + b"LIST" + struct.pack("<I", len(odd)) + odd + bank_bytes[at:]
    path.write_bytes(unpadded)
    assert read_presets(path) == [Preset(0, 0, "Piano")]


def test_unusable_banks_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.sf2"
    with pytest.raises(InputError, match=r"cannot open the bank '.*a\.sf2' .*; give an \.sf2 or \.sf3 file"):
        read_presets(path)
    path.write_bytes(b"text")
    with pytest.raises(InputError, match=r"'.*a\.sf2' is not a SoundFont; give an \.sf2 or \.sf3 bank"):
        read_presets(path)
    path.write_bytes(soundfont([])[:30])
    with pytest.raises(InputError, match=r"the bank '.*a\.sf2' is cut short; give a whole"):
        read_presets(path)


def test_the_first_known_place_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    places = [tmp_path / name for name in ("none.sf2", "b.sf2", "c.sf2")]
    monkeypatch.setattr(bank, "_KNOWN_PLACES", tuple(str(place) for place in places))
    assert find_bank() is None
    for place in places[1:]:
        place.touch()
    assert find_bank() == places[1]
