"""What is remembered of songs, and which files are songs."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
import soundfile

from polyres.core.errors import InputError
from polyres.data.audio import probe, read_audio
from polyres.studio.engines import Choice
from polyres.studio.songs import Work, ending_of, facts_of
from tests.studio.studios import song


class Stream:
    """A file that cannot go back, as what a browser records."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, piece: bytes) -> int:
        return self._file.write(piece)


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


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg"])
def test_the_length_is_exact_where_the_head_tells_it(tmp_path: Path, ending: str) -> None:
    wave, rate_hz = soundfile.read(song(tmp_path / "a.wav", 0.3))
    path = tmp_path / f"b{ending}"
    soundfile.write(path, wave, rate_hz)
    info, length = facts_of(path, 1)
    assert (info.channels, info.sample_rate_hz, length) == (2, 44_100, 13_230)


def test_a_recording_that_does_not_tell_its_length_is_read_through(tmp_path: Path) -> None:
    path = tmp_path / "a.webm"
    with path.open("wb") as file, av.open(Stream(file), "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 960), np.int16), format="s16", layout="mono")
            frame.rate = 48_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert probe(path).length_samples is None
    assert facts_of(path, 1)[1] == read_audio(path)[0].shape[1] > 7000
    with pytest.raises(InputError, match=r"longer than 0\.001 minutes"):
        facts_of(path, 0.001)


def test_a_song_as_long_as_allowed_is_taken_and_one_sample_more_is_not(tmp_path: Path) -> None:
    wave = np.zeros(6001, np.float32)
    soundfile.write(tmp_path / "a.wav", wave[:6000], 1000)
    soundfile.write(tmp_path / "b.wav", wave, 1000)
    assert facts_of(tmp_path / "a.wav", 0.1)[1] == 6000
    with pytest.raises(InputError, match=r"b\.wav is longer than 0\.1 minutes, the most this studio takes; cut it"):
        facts_of(tmp_path / "b.wav", 0.1)
