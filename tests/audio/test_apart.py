from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import pytest
import soundfile

from polyres.audio import apart
from polyres.audio.apart import decode, decode_apart
from polyres.audio.files import probe, read_audio
from polyres.core.errors import InputError, OutputError
from tests.audio.sound_files import cut, sound, write_media


class Stream:
    """A file that cannot go back, as what a browser records."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, piece: bytes) -> int:
        return self._file.write(piece)


def recording(path: Path) -> Path:
    with path.open("wb") as file, av.open(Stream(file), "w", format="webm") as container:
        stream = container.add_stream("libopus", rate=48_000, layout="mono")
        for _ in range(8):
            frame = av.AudioFrame.from_ndarray(np.ones((1, 960), np.int16), format="s16", layout="mono")
            frame.rate = 48_000
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.webm"])
def test_the_decoded_file_holds_the_very_samples_and_tags(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.webm":
        assert probe(recording(path)).length_samples is None
    elif name == "a.mp3":
        write_media(path, "libmp3lame", [1.5 * sound(9000)], tags={"title": "Ä"})
    else:
        soundfile.write(path, sound(9000).T, 44100)
    rooms: list[int] = []
    assert decode(path, tmp_path / "a.wav", 1.0, rooms.append) == []
    wanted, rate_hz = read_audio(path)
    got, got_hz = read_audio(tmp_path / "a.wav")
    assert np.array_equal(got, wanted)
    assert got_hz == rate_hz
    assert probe(tmp_path / "a.wav").tags == probe(path).tags
    assert rooms == [4 * 48_000 * 60 if name == "a.webm" else wanted.nbytes]


@pytest.mark.parametrize("name", ["a.wav", "a.webm"])
def test_as_long_as_allowed_is_taken_and_one_sample_more_is_not(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if name == "a.wav":
        soundfile.write(path, np.zeros(6001, np.float32), 1000)
    else:
        recording(path)
    facts = probe(path)
    minutes = read_audio(path)[0].shape[1] / facts.sample_rate_hz / 60
    decode(path, tmp_path / "b.wav", minutes + 1e-6, lambda _: None)
    with pytest.raises(InputError, match=rf"{name} is longer than 0\.\d+ minutes, the most that is taken; cut it"):
        decode(path, tmp_path / "c.wav", minutes - 0.9 / facts.sample_rate_hz / 60, lambda _: None)
    assert sorted(one.name for one in tmp_path.iterdir()) == sorted([name, "b.wav"])


def test_the_process_gives_the_same_file_and_warnings(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "whole.wav", sound(9000).T, 44100)
    path = cut(tmp_path / "whole.wav", 20_000)
    rooms: list[int] = []
    here = decode(path, tmp_path / "a.wav", 1.0, rooms.append)
    assert decode_apart(path, tmp_path / "b.wav", 1.0, rooms.append) == here != []
    assert (tmp_path / "b.wav").read_bytes() == (tmp_path / "a.wav").read_bytes()
    assert rooms[0] == rooms[1]


def test_the_process_answers_in_words_what_it_refuses(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("#EXTM3U\n")
    with pytest.raises(InputError, match=r"a\.wav is an M3U or HLS playlist"):
        decode_apart(tmp_path / "a.wav", tmp_path / "b.wav", 1.0, lambda _: None)


def test_where_there_is_no_room_nothing_is_written(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", sound(9000).T, 44100)

    def room(more_bytes: int) -> None:
        raise OutputError("full")

    with pytest.raises(OutputError, match="full"):
        decode_apart(tmp_path / "a.wav", tmp_path / "b.wav", 1.0, room)
    assert [one.name for one in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import time; time.sleep(60)", r"took longer than 0\.5 s"),
        ("while True: pass", r"took longer than 0\.5 s"),
        ("print('{\"bytes\": 1}', flush=True); import time; time.sleep(60)", r"took longer than 0\.5 s"),
        ("import os; os.abort()", "its decoder broke down"),
        ("print('no json')", "its decoder broke down"),
        ("print('[[]]')", "its decoder broke down"),
        ("print('x' * 300000)", "its decoder broke down"),
    ],
)
def test_a_decoder_that_hangs_or_breaks_down_is_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, why: str
) -> None:
    monkeypatch.setattr(apart, "_COMMAND", [sys.executable, "-S", "-c", code])
    began_s = time.monotonic()
    with pytest.raises(InputError, match=rf"a\.wav cannot be read as audio \({why}\); convert it to wav or flac"):
        decode_apart(tmp_path / "a.wav", tmp_path / "b.wav", 1.0, lambda _: None, 0.5 if "longer" in why else 30.0)
    assert time.monotonic() - began_s < 10.0


@pytest.mark.skipif(os.name == "nt", reason="no such limits")
def test_the_process_is_bound_in_memory_and_time_and_loads_no_torch() -> None:
    code = (
        "import resource, signal, sys; from polyres.audio import apart; assert 'torch' not in sys.modules; "
        "apart._limit(7.5); "
        "print(*(resource.getrlimit(kind)[0] for kind in (resource.RLIMIT_AS, resource.RLIMIT_CPU)), signal.alarm(0))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True)
    assert done.stdout.split() == [str(apart.MAX_MEMORY_BYTES), "9", "9"]


def test_systems_without_limits_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("signal.alarm", raising=False)
    monkeypatch.setitem(sys.modules, "resource", None)
    apart._limit(1.0)
