"""Lengths that are promised, gaps that are filled, streams that are chosen."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.audio.files import AudioReader, probe, read_audio
from polyres.audio.headers import mp3_length, sound_end
from tests.audio.sound_files import snr_db, sound, write_media

RATE_HZ = 44_100


def heard(path: Path, stream_index: int | None = None) -> tuple[np.ndarray, list[str]]:
    reader = AudioReader(path, stream_index)
    return np.concatenate(list(reader.blocks(1 << 14)), axis=1), [*reader.info.notes, *reader.warnings]


def mp3(path: Path, length: int = 60_000) -> Path:
    soundfile.write(path, sound(length).T, RATE_HZ, format="MP3")
    return path


def piped_flac(content: bytes) -> bytes:
    """A FLAC file as a program leaves it that cannot go back to fill in the length."""
    head = bytearray(content)
    head[21] &= 0xF0
    head[22:26] = bytes(4)
    return bytes(head)


def piped_w64(wave: np.ndarray) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, wave.T, RATE_HZ, format="W64", subtype="PCM_16")
    content = bytearray(file.getvalue())
    at = content.index(b"data\xf3\xac\xd3\x11")
    content[at + 16 : at + 24] = struct.pack("<Q", (1 << 63) - 1)
    content[16:24] = struct.pack("<Q", (1 << 63) - 1)
    return bytes(content)


def test_a_length_that_a_pipe_left_open_is_no_promise(tmp_path: Path) -> None:
    wave = sound(30_000)
    flac, w64 = tmp_path / "a.flac", tmp_path / "a.w64"
    soundfile.write(flac, wave.T, RATE_HZ, subtype="PCM_16")
    flac.write_bytes(piped_flac(flac.read_bytes()))
    w64.write_bytes(piped_w64(wave))
    for path in (flac, w64):
        got, said = heard(path)
        assert said == []
        assert np.abs(got - wave).max() < 1e-4
    assert probe(flac).length_samples is None


def test_a_flac_file_of_unknown_length_that_is_cut_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(path, sound(200_000).T, RATE_HZ, subtype="PCM_16")
    path.write_bytes(piped_flac(path.read_bytes())[:-1000])
    got, _ = heard(path)
    assert got.shape[1] < 200_000  # nothing in such a file says what is missing


APE = b"Cover".ljust(300_000, b"C")
TAG = b"TAG" + bytes(125)
APE += b"APETAGEX" + struct.pack("<4I", 2000, len(APE) + 32, 1, 0) + bytes(8)


@pytest.mark.parametrize(
    "behind",
    [b"", bytes(5), bytes(100_000), TAG, APE, APE + TAG, TAG + bytes(999)],
    ids=["nothing", "few zeros", "zeros", "ID3v1", "APEv2", "APEv2 and ID3v1", "ID3v1 and zeros"],
)  # fmt: skip
def test_what_follows_the_sound_of_an_mp3_file_neither_counts_nor_warns(tmp_path: Path, behind: bytes) -> None:
    path = mp3(tmp_path / "a.mp3")
    plain, _ = heard(path)
    content = path.read_bytes()
    path.write_bytes(content + behind)
    assert len(content.rstrip(b"\0")) <= sound_end(path) <= len(content) + len(b"TAG")
    got, said = heard(path)
    assert said == []
    assert mp3_length(path) == probe(path).length_samples == got.shape[1] == 60_000
    np.testing.assert_array_equal(got, plain)


def test_an_mp3_file_that_is_cut_still_ends_early(tmp_path: Path) -> None:
    path = mp3(tmp_path / "a.mp3", 200_000)
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    assert "ends early" in heard(path)[1][-1]


def test_the_rest_of_an_mp3_file_that_is_damaged_keeps_its_place(tmp_path: Path) -> None:
    path = mp3(tmp_path / "a.mp3", 300_000)
    plain, _ = heard(path)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 6000] = b"U" * 6000
    path.write_bytes(content)
    got, said = heard(path)
    (line,) = said
    assert "has gaps, which are silent in the result: " in line
    tail = plain[0, 250_000:290_000]
    lags = range(-2304, 2305)
    matches = [float(tail @ got[0, 250_000 + lag : 290_000 + lag]) for lag in lags]
    assert abs(lags[int(np.argmax(matches))]) <= 1152  # within a frame: what was lost is known in bytes alone


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "flac"), ("a.mka", "flac"), ("a.ts", "ac3"), ("a.mp4", "aac")])
def test_a_gap_in_the_time_stamps_is_silent_and_told(tmp_path: Path, name: str, codec: str) -> None:
    wave, missing = sound(90_000), 22_050
    path = write_media(tmp_path / name, codec, [wave], gap=(45_000, missing))
    got, said = heard(path)
    assert len(said) == 1
    assert "0.50 s from 1.0" in said[0]
    assert got.shape[1] == pytest.approx(wave.shape[1] + missing, abs=2400)
    if codec == "flac":
        assert not got[:, 46_100 + 1152 : 66_000].any()
        assert snr_db(wave[:, 60_000:], got[:, -30_000:]) > 80


def test_a_step_of_days_is_no_silence(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", "flac", [sound(90_000)], gap=(45_000, 3 * 86_400 * RATE_HZ))
    assert heard(path)[0].shape[1] == 90_000


@pytest.mark.parametrize(("name", "codec"), [("a.mkv", "flac"), ("a.mp4", "aac"), ("a.mov", "pcm_s16le")])
def test_sound_that_starts_late_in_a_film_keeps_its_place(tmp_path: Path, name: str, codec: str) -> None:
    wave, late = sound(44_100), 33_075
    path = write_media(tmp_path / name, codec, [wave], with_video=True, late_samples=late)
    got, said = heard(path)
    assert len(said) == 1
    assert "its sound starts 0.7" in said[0]
    assert "silence in front keeps it in its place" in said[0]
    loud = np.flatnonzero(np.abs(got[0]) > 0.05)
    assert loud[0] == pytest.approx(late + np.flatnonzero(np.abs(wave[0]) > 0.05)[0], abs=1100)
    part, _ = read_audio(path, 40_000, 1000)
    np.testing.assert_array_equal(part, got[:, 40_000:41_000])


def test_the_stream_that_a_film_marks_is_taken_and_told(tmp_path: Path) -> None:
    waves = [sound(20_000, seed=1), sound(20_000, seed=2)]
    path = write_media(tmp_path / "a.mkv", "flac", waves, default_stream=1)
    got, said = heard(path)
    assert snr_db(waves[1], got) > 60
    assert said == [f"{path}: audio stream 2 of 1 (flac, 2 ch), 2 (flac, 2 ch) is taken; --stream chooses another"]
    first, said = heard(path, 0)
    assert snr_db(waves[0], first) > 60
    assert said == []
