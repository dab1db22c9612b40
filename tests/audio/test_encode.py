from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from mutagen.ogg import OggPage

from polyres.audio.encode import MAX_RIFF_BYTES, GuardedFile, WavSink, quantize, set_ogg_serial
from tests.audio.sound_files import sound


def test_guarded_file_keeps_the_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    guard = GuardedFile(tmp_path / "a")
    assert guard.write(b"abc") == 3
    assert (guard.seek(1), guard.tell(), guard.read(1)) == (1, 1, b"b")
    guard.check()

    class Full:
        calls = 0

        def write(self, _: bytes) -> int:
            self.calls += 1
            raise OSError(28, "No space left on device") if self.calls == 1 else OSError(5, "later")

        def close(self) -> None:
            raise OSError(5, "later")

    guard.file.close()
    guard.file = Full()
    assert guard.write(b"abc") == 3
    assert guard.write(b"abc") == 3
    assert (guard.seek(0), guard.tell()) == (0, 0)
    with pytest.raises(OSError, match="No space left"):
        guard.check()
    with pytest.raises(OSError, match="No space left"):
        guard.end()
    guard.drop()


def test_ogg_serial_is_set_in_every_page_and_the_sound_stays(tmp_path: Path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, sound(100_000).T, 44100)
    before = soundfile.read(path)[0]
    set_ogg_serial(path, 77)
    pages = []
    with path.open("rb") as file:
        while True:
            try:
                pages.append(OggPage(file))
            except EOFError:
                break
    assert len(pages) > 10
    assert {page.serial for page in pages} == {77}
    assert np.array_equal(soundfile.read(path)[0], before)


def written(path: Path, wave: np.ndarray, bit_depth: int | str, max_riff: int = MAX_RIFF_BYTES, tags: bytes = b""):
    with path.open("w+b") as file:
        sink = WavSink(file, 44100, len(wave), bit_depth, max_riff)
        for at in range(0, wave.shape[1], 7):
            sink.write(wave[:, at : at + 7])
        sink.finish(tags)
    return path


def test_rounding_is_half_to_even_and_held_in_range():
    steps = np.array([[0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49, 32766.5, 40000, -32768, -40000]], np.float32) / 32768
    assert quantize(steps, 16).tolist() == [[0, 2, 2, 0, -2, -2, 0, 32766, 32767, -32768, -32768]]
    assert quantize(np.array([[1.0, -1.0, 3e38]], np.float32), 24).tolist() == [[8388607, -8388608, 8388607]]


@given(st.lists(st.integers(-(2**15), 2**15 - 1), min_size=1, max_size=50))
def test_integers_survive(values: list[int]):
    wave = np.array([values], np.float32) / 32768
    assert quantize(wave, 16).tolist() == [values]
    assert quantize(wave, 24).tolist() == [[value * 256 for value in values]]


@pytest.mark.parametrize("bit_depth", [16, 24, "float"])
@pytest.mark.parametrize("channels", [1, 2, 3, 6, 8, 11])
@pytest.mark.parametrize("length", [1, 100])
@pytest.mark.parametrize("max_riff", [MAX_RIFF_BYTES, 60])
def test_libsndfile_reads_the_same_samples(
    tmp_path: Path, bit_depth: int | str, channels: int, length: int, max_riff: int
):
    wave = np.random.default_rng(0).uniform(-1.2, 1.2, (channels, length)).astype(np.float32)
    path = written(tmp_path / "a.wav", wave, bit_depth, max_riff, tags=b"junk\x02\0\0\0xy")
    with soundfile.SoundFile(path) as file:
        assert file.format in ({"RF64"} if max_riff == 60 else {"WAV", "WAVEX"})
        assert file.subtype == {16: "PCM_16", 24: "PCM_24", "float": "FLOAT"}[bit_depth]
        assert (file.channels, file.samplerate, file.frames) == (channels, 44100, length)
        back = file.read(dtype="float32", always_2d=True).T
    wanted = wave if bit_depth == "float" else quantize(wave, bit_depth) / np.float32(2 ** (bit_depth - 1))
    assert np.array_equal(back, wanted)


def test_sizes_add_up_to_the_file(tmp_path: Path):
    path = written(tmp_path / "a.wav", np.zeros((1, 3), np.float32), 24, tags=b"abcd\x02\0\0\0xy")
    content = path.read_bytes()
    assert content[:4] == b"RIFF"
    assert struct.unpack("<I", content[4:8])[0] == len(content) - 8
    at, names = 12, []
    while at < len(content):
        name, size = struct.unpack("<4sI", content[at : at + 8])
        names.append(name)
        at += 8 + size + size % 2
    assert at == len(content)
    assert names == [b"JUNK", b"fmt ", b"data", b"abcd"]


class Counting(io.RawIOBase):
    """Keeps the head of what is written and only counts the rest."""

    def __init__(self) -> None:
        self.head, self.at, self.size = bytearray(200), 0, 0

    def write(self, content: bytes) -> int:
        for offset, byte in enumerate(content[: max(200 - self.at, 0)]):
            self.head[self.at + offset] = byte
        self.at += len(content)
        self.size = max(self.size, self.at)
        return len(content)

    def seek(self, at: int, whence: int = 0) -> int:
        self.at = at
        return at

    def tell(self) -> int:
        return self.at


def test_a_file_of_more_than_4_gib_states_long_sizes():
    file = Counting()
    sink = WavSink(file, 48000, 2, 16)
    block = np.zeros((2, 1 << 22), np.float32)
    # The samples need not be converted again and again to be counted.
    sink.write(block)
    repeats = 260
    sink._length += block.shape[1] * (repeats - 1)
    file.at += 4 * block.shape[1] * (repeats - 1)
    sink.finish()
    frames = repeats << 22
    assert 4 * frames > 0xFFFFFFFF
    assert file.head[:8] == b"RF64\xff\xff\xff\xff"
    riff_bytes, data_bytes, samples, table = struct.unpack("<QQQI", file.head[20:48])
    assert (data_bytes, samples, table) == (4 * frames, frames, 0)
    assert riff_bytes == 4 * frames + 80 - 8
    assert file.head[72:80] == b"data\xff\xff\xff\xff"
