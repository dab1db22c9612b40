"""Damaged MP3 files: silence where frames were lost, all others in their places, nothing decoded that is no sound."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.audio.files import AudioReader, probe
from polyres.audio.headers import mp3_delay
from polyres.audio.mp3_frames import Mp3Frames, find_mp3_frames
from tests.audio.sound_files import lag, sound

RATE_HZ = 44_100
LENGTH = 8 * RATE_HZ
DELAY = 1105  # LAME's 576, and the 529 of every decoder


@dataclass(frozen=True)
class Whole:
    """A file with a header that states its length, and what is known of it."""

    content: bytes
    wave: np.ndarray
    frames: Mp3Frames

    @property
    def bare(self) -> bytes:
        """The same frames without a header."""
        return self.content[self.frames.starts[0] :]


def heard(path: Path) -> tuple[np.ndarray, list[str]]:
    reader = AudioReader(path)
    wave = np.concatenate(list(reader.blocks(1 << 14)), axis=1)
    assert reader.info.length_samples == wave.shape[1]
    return wave, [line.removeprefix(str(path)) for line in (*reader.info.notes, *reader.warnings)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    path = tmp_path_factory.mktemp("mp3") / "a.mp3"
    soundfile.write(path, sound(LENGTH).T, RATE_HZ, format="MP3")
    frames = find_mp3_frames(path)
    assert frames is not None
    return Whole(path.read_bytes(), heard(path)[0], frames)


def noise(count: int) -> bytes:
    return np.random.default_rng(0).bytes(count)


@pytest.mark.parametrize(
    ("rate_hz", "channels", "length"),
    [(44_100, 2, 50_000), (48_000, 1, 1_000), (32_000, 1, 30_001), (22_050, 2, 20_000), (8_000, 1, 9_000)],
)
def test_frames_are_found_one_behind_the_other(tmp_path: Path, rate_hz: int, channels: int, length: int) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, sound(length, channels, rate_hz).T, rate_hz, format="MP3")
    found = find_mp3_frames(path)
    assert found is not None
    assert found.is_regular
    assert len(found.starts) == found.stated_frames
    assert list(found.starts[1:]) == [a + b for a, b in zip(found.starts, found.sizes, strict=True)][:-1]
    assert found.starts[-1] + found.sizes[-1] == path.stat().st_size
    per_frame = 1152 if rate_hz >= 32_000 else 576
    assert found.samples(rate_hz) == per_frame * len(found.starts)
    path.write_bytes(path.read_bytes()[found.starts[0] :])
    assert heard(path)[0].shape[1] == found.samples(rate_hz)


@pytest.mark.parametrize("kind", ["cut", "U", "noise", "zeros"])
def test_what_was_lost_in_the_middle_is_silent_and_the_rest_in_its_place(
    tmp_path: Path, whole: Whole, kind: str
) -> None:
    frame = whole.frames.starts[150]
    first, last = frame + 77, frame + 77 + 20_000
    filling = {"cut": b"", "U": b"U" * 20_000, "noise": noise(20_000), "zeros": bytes(20_000)}[kind]
    path = tmp_path / "a.mp3"
    path.write_bytes(whole.content[:first] + filling + whole.content[last:])
    got, (line,) = heard(path)
    # Where bytes are cut out, what is left of the first frame swallows some of those behind.
    end_bytes = last + (whole.frames.sizes[150] - 77) * (kind == "cut")
    lost = sum(first <= start < end_bytes for start in whole.frames.starts)
    begin, end = 151 * 1152 - DELAY, (151 + lost) * 1152 - DELAY
    wanted = f"{lost * 1152 / RATE_HZ:.2f} s from {begin / RATE_HZ:.2f} s on"
    assert line == f" has gaps, which are silent in the result: {wanted}"
    assert got.shape[1] == LENGTH
    assert not got[:, begin + 1152 : end].any()
    np.testing.assert_array_equal(got[:, : begin - 2 * 1152], whole.wave[:, : begin - 2 * 1152])
    # The bit reservoir holds up to 511 bytes, which are two or three frames, and one more overlaps.
    np.testing.assert_array_equal(got[:, end + 6 * 1152 :], whole.wave[:, end + 6 * 1152 :])
    assert np.abs(got).max() <= 1.1 * np.abs(whole.wave).max()


def test_whole_frames_that_are_cut_out_are_missed_where_the_data_of_the_next_is(tmp_path: Path, whole: Whole) -> None:
    starts = whole.frames.starts
    path = tmp_path / "a.mp3"
    path.write_bytes(whole.content[: starts[100]] + whole.content[starts[140] :])
    got, (line,) = heard(path)
    assert "1.04 s from 2.5" in line
    np.testing.assert_array_equal(got[:, 150 * 1152 :], whole.wave[:, 150 * 1152 :])


def test_gaps_share_what_is_missing_and_a_missing_end_stays_one(tmp_path: Path, whole: Whole) -> None:
    starts, content = whole.frames.starts, whole.content
    filling = noise(starts[130] - starts[120])
    path = tmp_path / "a.mp3"
    path.write_bytes(content[: starts[50]] + filling[:900] + content[starts[50] + 900 : starts[250] + 50])
    said = heard_but_early(path)
    assert len(said) == 2
    assert "has gaps, which are silent in the result: 0.0" in said[0]
    assert " ends early: 6." in said[1]
    path.write_bytes(
        content[: starts[50]] + filling + content[starts[60] : starts[120]] + filling + content[starts[130] :]
    )
    got, (line,) = heard(path)
    assert line.count(" s from ") == 2
    np.testing.assert_array_equal(got[:, 140 * 1152 :], whole.wave[:, 140 * 1152 :])


def heard_but_early(path: Path) -> list[str]:
    reader = AudioReader(path)
    assert sum(block.shape[1] for block in reader.blocks(1 << 14)) < LENGTH
    return [*reader.info.notes, *reader.warnings]


@pytest.mark.parametrize("has_header", [True, False], ids=["Info", "bare"])
def test_junk_between_frames_costs_nothing(tmp_path: Path, whole: Whole, has_header: bool) -> None:
    content = whole.content if has_header else whole.bare
    skipped = 0 if has_header else whole.frames.starts[0]
    path, junked = tmp_path / "a.mp3", tmp_path / "b.mp3"
    path.write_bytes(content)
    at = whole.frames.starts[150] - skipped
    junked.write_bytes(content[:at] + noise(5000) + content[at:])
    got, said = heard(junked)
    at_s = (150 * 1152 - DELAY * has_header) / RATE_HZ
    assert said == [f": what is no sound is left out: 5000 bytes at {at_s:.2f} s"]
    np.testing.assert_array_equal(got, heard(path)[0])


@pytest.mark.parametrize("has_header", [True, False], ids=["Info", "bare"])
def test_noise_behind_the_sound_is_neither_damage_nor_length(tmp_path: Path, whole: Whole, has_header: bool) -> None:
    content = whole.content if has_header else whole.bare
    path, followed = tmp_path / "a.mp3", tmp_path / "b.mp3"
    path.write_bytes(content)
    followed.write_bytes(content + noise(200_000))
    got, (line,) = heard(followed)
    end_s = (len(whole.frames.starts) * 1152 - DELAY * has_header) / RATE_HZ
    assert line == f": what is no sound is left out: 200000 bytes at {end_s:.2f} s"
    np.testing.assert_array_equal(got, heard(path)[0])


APE = b"Cover".ljust(90_000, b"C")
APE += b"APETAGEX" + struct.pack("<4I", 2000, len(APE) + 32, 1, 0) + bytes(8)
LYRICS = b"LYRICSBEGIN" + b"la " * 50 + b"000161LYRICS200"


@pytest.mark.parametrize("tag", [APE, LYRICS, b"TAG" + bytes(125), bytes(3000)], ids=["APE", "Lyrics3", "ID3v1", "0"])
def test_the_length_of_a_file_without_header_does_not_count_tags(tmp_path: Path, whole: Whole, tag: bytes) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(whole.bare + tag)
    assert probe(path).length_samples == len(whole.frames.starts) * 1152
    assert heard(path)[1] == []


ID3 = b"ID3\x03\x00\x00" + bytes([0, 1, 0, 0]) + noise(1 << 14)


@pytest.mark.parametrize(
    ("join", "is_told"),
    [
        (lambda one: one.content + one.content, True),
        (lambda one: one.content + one.bare, True),
        (lambda one: one.bare + one.bare, False),
        (lambda one: ID3 + one.content + b"TAG" + bytes(125) + ID3 + one.content, True),
        (lambda one: one.bare + APE + ID3 + one.content, False),
    ],
    ids=["Info", "Info and bare", "bare", "tags", "bare and tags"],
)
def test_files_put_behind_each_other_are_all_heard(
    tmp_path: Path, whole: Whole, join: Callable[[Whole], bytes], is_told: bool
) -> None:
    path = tmp_path / "a.mp3"
    path.write_bytes(join(whole))
    got, said = heard(path)
    found = find_mp3_frames(path)
    assert found is not None
    assert found.stated_frames is None or mp3_delay(path) == DELAY
    assert got.shape[1] == pytest.approx(2 * LENGTH, abs=5 * 1152)
    told = f"it goes on behind the 8.00 s that its header states; all {got.shape[1] / RATE_HZ:.2f} s are taken"
    assert said == [f": {told}"] * is_told
    tail = whole.wave[:, -RATE_HZ:]
    late = lag(tail, got[:, -2 * RATE_HZ :])
    at = got.shape[1] - 2 * RATE_HZ + late
    assert np.abs(got[:, at : at + RATE_HZ - 1152] - tail[:, :-1152]).max() < 0.01
