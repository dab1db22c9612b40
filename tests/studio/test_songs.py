"""What is remembered of songs, and how they are taken in."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.audio.files import probe
from polyres.core.errors import InputError
from polyres.studio.engines import Choice
from polyres.studio.songs import StudioOptions, Work, decode_upload, ending_of
from tests.studio.studios import song


@pytest.mark.parametrize(
    ("name", "ending"),
    [
        ("a.wav", ".wav"),
        ("a.tar.MP3", ".MP3"),
        ("a", ""),
        ("a.", ""),
        (".wav", ""),
        ("a.w v", ""),
        ("a.wäv", ""),
        ("a.sevenso", ""),
        ("a.'\"", ""),
        ("../a.w/v", ""),
    ],
)
def test_only_plain_endings_are_kept(name: str, ending: str) -> None:
    assert ending_of(name) == ending


def test_a_job_is_active_until_it_is_over(tmp_path: Path) -> None:
    work = Work("x", Choice("separate:a", "separate", "a"), tmp_path)
    assert work.active
    for state, active in {"working": True, "done": False, "failed": False, "cancelled": False}.items():
        work.state = state  # type: ignore[assignment]
        assert work.active == active


def test_what_was_sent_is_decoded_and_removed_and_its_faults_are_told_by_its_name(tmp_path: Path) -> None:
    received = tmp_path / "upload"
    received.write_bytes(song(tmp_path / "a.wav", 0.3).read_bytes()[:-20_000])
    (tmp_path / "a.wav").unlink()
    path, warnings = decode_upload(received, "my song.wav", StudioOptions(), lambda _: None)
    assert probe(path).length_samples == 13_230 - 5_000
    assert [one.name for one in tmp_path.iterdir()] == ["song.wav"]
    assert warnings == ["my song.wav ends early: 0.19 s of 0.30 s could be read"]


def test_a_song_that_is_none_is_refused_by_its_name(tmp_path: Path) -> None:
    received = tmp_path / "upload"
    received.write_bytes(song(tmp_path / "a.wav", 0.3).read_bytes())
    with pytest.raises(InputError, match=r"^b\.wav is longer than 0\.001 minutes, the most that is taken; cut it$"):
        decode_upload(received, "b.wav", StudioOptions(max_minutes=0.001), lambda _: None)
