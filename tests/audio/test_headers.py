from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.audio import headers
from tests.audio.sound_files import cut, sound, write_media


def written(path: Path, **settings: str) -> Path:
    soundfile.write(path, sound(3001).T, 44100, **settings)
    return path


def head(path: Path) -> bytes:
    return path.read_bytes()[: headers.HEAD_BYTES]


@pytest.mark.parametrize(
    ("name", "settings", "kind"),
    [
        ("a.wav", {}, "wav"),
        ("a.wav", {"format": "RF64"}, "wav"),
        ("a.wav", {"endian": "BIG"}, "wav"),
        ("a.w64", {}, "w64"),
        ("a.aiff", {}, "aiff"),
        ("a.aifc", {"format": "AIFF", "subtype": "FLOAT"}, "aiff"),
        ("a.flac", {}, "flac"),
        ("a.ogg", {}, "vorbis"),
        ("a.au", {}, "au"),
        ("a.caf", {}, "caf"),
        ("a.opus", {"format": "OGG", "subtype": "OPUS"}, ""),
    ],
)
def test_kind_is_told_by_the_bytes_and_not_the_name(tmp_path: Path, name: str, settings: dict[str, str], kind: str):
    if name == "a.opus":
        path = write_media(tmp_path / name, "libopus", [sound(3000)], 48000)
    else:
        path = written(tmp_path / name, **settings).rename(tmp_path / "other.mp3")
    assert headers.sniff(head(path)) == kind
    assert headers.sniff(b"") == headers.sniff(b"OggS") == headers.sniff(b"words and words") == ""


@pytest.mark.parametrize("channels", [1, 2, 5])
def test_vorbis_channels(tmp_path: Path, channels: int):
    path = tmp_path / "a.ogg"
    soundfile.write(path, sound(100, channels).T, 44100)
    assert headers.vorbis_channels(head(path)) == channels


@pytest.mark.parametrize("kept", [1.0, 0.5])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("a.wav", {}),
        ("a.wav", {"subtype": "PCM_24"}),
        ("a.wav", {"subtype": "FLOAT"}),
        ("a.wav", {"subtype": "ULAW"}),
        ("a.wav", {"format": "WAVEX"}),
        ("a.wav", {"format": "RF64"}),
        ("a.wav", {"endian": "BIG"}),
        ("a.w64", {}),
        ("a.w64", {"subtype": "DOUBLE"}),
        ("a.aiff", {}),
        ("a.aiff", {"subtype": "FLOAT"}),
    ],
)
def test_stated_length_does_not_depend_on_the_end(tmp_path: Path, name: str, settings: dict[str, str], kept: float):
    path = cut(written(tmp_path / name, **settings), kept)
    assert headers.stated_length(path, headers.sniff(head(path))) == 3001


def test_packed_codings_and_other_kinds_state_nothing(tmp_path: Path):
    path = written(tmp_path / "a.wav", subtype="IMA_ADPCM")
    assert headers.stated_length(path, "wav") is None
    assert headers.stated_length(written(tmp_path / "a.flac"), "flac") is None
    assert headers.stated_length(tmp_path / "gone.wav", "wav") is None
    for kind in ("wav", "w64", "aiff"):
        for size in (5, 20, 38, 43):
            assert headers.stated_length(cut(path, size), kind) is None


def test_unfinished_wav(tmp_path: Path):
    path = written(tmp_path / "a.wav")
    assert not headers.wav_is_unfinished(path)
    content = bytearray(path.read_bytes())
    content[4:8] = content[40:44] = bytes(4)
    path.write_bytes(content)
    assert headers.wav_is_unfinished(path)
    assert headers.stated_length(path, "wav") is None


@pytest.mark.parametrize("name", ["a.ogg", "a.opus"])
def test_ogg_end_mark(tmp_path: Path, name: str):
    path = tmp_path / name
    if name == "a.ogg":
        soundfile.write(path, sound(200_000).T, 44100)
    else:
        write_media(path, "libopus", [sound(200_000)], 48000)
    assert headers.ogg_is_complete(path)
    size = path.stat().st_size
    for keep in (size - 1, size - 200, size // 2, 60, 27, 5):
        assert not headers.ogg_is_complete(cut(path, keep))
    longer = path.with_name("longer")
    longer.write_bytes(path.read_bytes() + b"TAG behind the end, OggS in it" + bytes(90))
    assert headers.ogg_is_complete(longer)


def test_mp3_length_frame(tmp_path: Path):
    wave = np.zeros((2, 5000), np.float32)
    with_tags = {"title": "x" * 9000}
    stated = write_media(tmp_path / "a.mp3", "libmp3lame", [wave], tags=with_tags)
    plain = write_media(tmp_path / "b.mp3", "libmp3lame", [wave], options={"write_xing": "0"}, tags=with_tags)
    assert headers.mp3_states_length(stated)
    assert not headers.mp3_states_length(plain)
