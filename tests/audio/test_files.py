from __future__ import annotations

import os
import struct
import tracemalloc
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from polyres.audio.files import AudioReader, probe, read_audio
from polyres.core.errors import InputError
from tests.audio.sound_files import cut, lag, snr_db, sound, unsized_flac, write_media

PCM = [
    ("wav", "WAV", "PCM_16"),
    ("wav", "WAV", "PCM_24"),
    ("wav", "WAV", "PCM_32"),
    ("wav", "WAV", "PCM_U8"),
    ("wav", "WAV", "DOUBLE"),
    ("wav", "RF64", "PCM_16"),
    ("w64", "W64", "PCM_24"),
    ("flac", "FLAC", "PCM_16"),
    ("flac", "FLAC", "PCM_24"),
    ("aiff", "AIFF", "PCM_16"),
    ("aif", "AIFF", "FLOAT"),
    ("caf", "CAF", "PCM_16"),
    ("au", "AU", "PCM_16"),
]
SECOND = 44100


def read_all(path: Path, block: int = 5000) -> tuple[np.ndarray, list[str]]:
    with AudioReader(path) as reader:
        return np.concatenate(list(reader.blocks(block)), axis=1), reader.warnings


@pytest.mark.parametrize(("ending", "container", "subtype"), PCM)
@pytest.mark.parametrize("channels", [1, 2, 6])
def test_pcm_is_read_exactly(tmp_path: Path, ending: str, container: str, subtype: str, channels: int):
    path = tmp_path / f"a.{ending}"
    wave = sound(9000, channels)
    soundfile.write(path, wave.T, SECOND, subtype=subtype, format=container)
    expected = soundfile.read(path, dtype="float32", always_2d=True)[0].T
    info = probe(path)
    assert (info.sample_rate_hz, info.channels, info.length_samples) == (SECOND, channels, 9000)
    got, complaints = read_all(path)
    assert np.array_equal(got, expected)
    assert complaints == []
    assert snr_db(wave, got) > (30 if subtype == "PCM_U8" else 70)


MEDIA = [
    # name, codec, rate, least SNR in dB, exact length
    ("a.mp3", "libmp3lame", 44100, 18, True),
    ("a.mp3", "libmp3lame", 22050, 18, True),
    ("a.opus", "libopus", 48000, 20, True),
    ("a.webm", "libopus", 48000, 20, True),
    ("a.m4a", "aac", 44100, 18, False),
    ("a.mkv", "aac", 44100, 18, False),
    ("a.mkv", "flac", 44100, 80, True),
    ("a.mov", "pcm_s16le", 44100, 80, True),
    ("a.avi", "libmp3lame", 44100, None, False),
    ("a.wma", "wmav2", 44100, None, False),
]


@pytest.mark.parametrize(("name", "codec", "rate_hz", "least_db", "is_exact"), MEDIA)
def test_media_are_read_in_place_and_length(
    tmp_path: Path, name: str, codec: str, rate_hz: int, least_db: int | None, is_exact: bool
):
    wave = sound(60_001, 2, rate_hz)
    path = write_media(tmp_path / name, codec, [wave], rate_hz)
    info = probe(path)
    assert (info.sample_rate_hz, info.channels) == (rate_hz, 2)
    assert info.length_samples is not None
    assert abs(info.length_samples - 60_001) < 0.15 * rate_hz
    got, complaints = read_all(path, 4096)
    assert complaints == []
    assert abs(got.shape[1] - 60_001) < (1 if is_exact else 4096)
    if least_db is not None:
        short = min(got.shape[1], 60_001)
        assert lag(wave, got) == 0
        assert snr_db(wave[:, :short], got[:, :short]) > least_db


def test_aac_padding_is_cut_off_where_the_container_states_it(tmp_path: Path):
    path = write_media(tmp_path / "a.m4a", "aac", [sound(50_001)], options={"movie_timescale": "44100"})
    assert probe(path).length_samples == 50_001
    assert read_all(path)[0].shape == (2, 50_001)


@pytest.mark.parametrize("channels", [7, 8, 10, 24])
def test_many_channels_of_any_layout(tmp_path: Path, channels: int):
    wave = np.round(sound(3000, channels) * 32767) / 32767
    path = write_media(tmp_path / "a.mkv", "pcm_s16le", [wave.astype(np.float32)])
    got, _ = read_all(path)
    assert got.shape == (channels, 3000)
    assert np.abs(got - wave).max() < 1e-4


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_sound_of_a_video(tmp_path: Path, name: str):
    wave = sound(40_000)
    path = write_media(tmp_path / name, "aac", [wave], with_video=True)
    got, complaints = read_all(path)
    assert complaints == []
    assert lag(wave, got) == 0
    short = min(got.shape[1], 40_000)
    assert snr_db(wave[:, :short], got[:, :short]) > 18


def test_stem_file_gives_the_mixture_first(tmp_path: Path):
    stems = [sound(30_000, seed=1), 0.5 * sound(30_000, rate_hz=22050), np.zeros((2, 30_000), np.float32)]
    path = write_media(tmp_path / "song.stem.mp4", "aac", stems, options={"movie_timescale": "44100"})
    assert probe(path).streams == 3
    for index, wave in enumerate(stems):
        got, _ = read_audio(path, stream_index=index)
        assert got.shape == wave.shape
        assert snr_db(wave, got) > 15 if wave.any() else np.abs(got).max() < 1e-4
    assert np.array_equal(read_audio(path)[0], read_audio(path, stream_index=0)[0])
    with pytest.raises(InputError, match=r"song\.stem\.mp4 has no audio stream 4; it has 1 \(aac, 2 ch"):
        AudioReader(path, stream_index=3)


@given(st.integers(1, 300), st.integers(1, 130))
def test_blocks_are_all_full_but_the_last(tmp_path_factory: pytest.TempPathFactory, length: int, block: int):
    path = tmp_path_factory.mktemp("blocks") / "a.wav"
    wave = sound(length, 1)
    soundfile.write(path, wave.T, 8000, subtype="FLOAT")
    with AudioReader(path) as reader:
        parts = list(reader.blocks(block))
    assert [part.shape for part in parts[:-1]] == [(1, block)] * (-(-length // block) - 1)
    assert all(part.dtype == np.float32 for part in parts)
    assert np.array_equal(np.concatenate(parts, axis=1), wave)


def test_every_pass_starts_anew_and_ends_the_one_before(tmp_path: Path):
    path = tmp_path / "a.flac"
    soundfile.write(path, sound(5000).T, SECOND)
    reader = AudioReader(path)
    first = reader.blocks(100)
    start = next(first)
    again = list(reader.blocks(100))
    assert np.array_equal(start, again[0])
    assert list(first) == []
    assert len(again) == 50
    reader.close()
    with pytest.raises(ValueError, match="block_samples is 0; it must be 1 or more"):
        reader.blocks(0)


@pytest.mark.parametrize(("start", "length"), [(0, 1), (1, None), (17_000, 20_000), (29_999, None), (100, 90_000)])
@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.ogg", "a.aiff", "a.mp3", "a.m4a"])
def test_parts_equal_the_whole(tmp_path: Path, name: str, start: int, length: int | None):
    path = tmp_path / name
    if name in ("a.mp3", "a.m4a"):
        codec, options = ("aac", {"movie_timescale": "44100"}) if name == "a.m4a" else ("libmp3lame", {})
        write_media(path, codec, [sound(30_000)], options=options)
    else:
        soundfile.write(path, sound(30_000).T, SECOND)
    whole, rate_hz = read_audio(path)
    assert rate_hz == SECOND
    assert np.array_equal(whole, read_all(path)[0])
    part, _ = read_audio(path, start, length)
    wanted = whole[:, start:] if length is None else whole[:, start : start + length]
    assert part.shape == wanted.shape
    # A Vorbis decoder that starts in the middle adds up its windows in another order.
    assert np.abs(part - wanted).max() <= (1e-6 if name == "a.ogg" else 0)


def test_parts_beyond_the_end(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, sound(100).T, SECOND)
    for start in (100, 5000):
        with pytest.raises(InputError, match=f"ends before sample {start}; start earlier"):
            read_audio(path, start)
    with pytest.raises(ValueError, match="cannot read 0 samples from 3 on"):
        read_audio(path, 3, 0)


@pytest.mark.parametrize("name", ["Müller – Frühling 日本語 🎵.flac", "a:b.wav", "-x %20 'q'.ogg", "new\nline.wav"])
def test_unusual_names(tmp_path: Path, name: str):
    path = tmp_path / name
    soundfile.write(path, sound(2000).T, SECOND)
    assert read_all(path)[0].shape == (2, 2000)
    mp3 = write_media(tmp_path / "x.mp3", "libmp3lame", [sound(2000)]).rename(path.with_suffix(".mp3"))
    assert read_all(mp3)[0].shape == (2, 2000)


def test_one_sample_silence_and_odd_rates(tmp_path: Path):
    for rate_hz in (8000, 192_000, 11_111):
        path = tmp_path / "a.wav"
        soundfile.write(path, np.zeros((1, 1)), rate_hz)
        assert probe(path).sample_rate_hz == rate_hz
        assert np.array_equal(read_all(path)[0], np.zeros((1, 1)))


def cut_file(tmp_path: Path, name: str, length: int = 3 * SECOND) -> tuple[Path, np.ndarray]:
    whole = tmp_path / name
    wave = sound(length)
    codecs = {"mp3": "libmp3lame", "mkv": "aac", "m4a": "aac", "opus": "libopus"}
    ending = name.split(".")[-1]
    if ending in codecs:
        options = {"movflags": "+faststart"} if ending == "m4a" else {}
        write_media(whole, codecs[ending], [wave], 48000 if ending == "opus" else SECOND, options=options)
    else:
        soundfile.write(whole, wave.T, SECOND)
    expected = read_all(whole)[0]
    return cut(whole, 0.6), expected


@pytest.mark.parametrize("ending", ["wav", "aiff", "w64", "flac", "mp3", "m4a", "mkv"])
def test_a_file_cut_in_mid_stream_is_read_up_to_the_cut(tmp_path: Path, ending: str):
    path, whole = cut_file(tmp_path, f"song.{ending}")
    got, complaints = read_all(path)
    assert 0.5 * whole.shape[1] < got.shape[1] < 0.7 * whole.shape[1]
    sure = got.shape[1] - 4096  # the last frame may be concealed
    assert np.array_equal(got[:, :sure], whole[:, :sure])
    (line,) = complaints
    assert line.startswith(str(path))
    got_s = got.shape[1] / SECOND
    assert f"ends early: {got_s:.2f} s of 3.0" in line
    assert line.endswith(" s could be read")


@pytest.mark.parametrize("ending", ["ogg", "opus"])
def test_a_cut_ogg_file_misses_its_end(tmp_path: Path, ending: str):
    path, whole = cut_file(tmp_path, f"song.{ending}")
    got, complaints = read_all(path)
    assert 0.3 * whole.shape[1] < got.shape[1] < 0.7 * whole.shape[1]
    assert np.array_equal(got[:, :-4096], whole[:, : got.shape[1] - 4096])
    assert complaints[0].endswith("s could be read, its end is missing")


def test_warnings_belong_to_one_pass(tmp_path: Path):
    path, _ = cut_file(tmp_path, "song.flac", 20_000)
    with AudioReader(path) as reader:
        for _ in range(2):
            assert sum(block.shape[1] for block in reader.blocks(1000)) > 1000
            assert len(reader.warnings) == 1


def test_a_damaged_middle_is_passed_over(tmp_path: Path):
    path = tmp_path / "a.flac"
    soundfile.write(path, sound(200_000).T, SECOND)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = bytes(3000)
    path.write_bytes(content)
    got, complaints = read_all(path)
    assert got.shape[1] > 150_000
    assert len(complaints) == 1
    assert got.shape[1] == 200_000
    assert "has gaps, which are silent in the result: 0." in complaints[0]
    whole = sound(200_000)
    assert snr_db(whole[:, 150_000:], got[:, 150_000:]) > 80  # what follows is where it was


PIPED = [
    # ending, container, then what stands where sizes belong: the mark behind which, by how many bytes, its form, values
    ("wav", "WAV", b"data", 0, "<I", (0, 0x7FFFFFFF, 0x7FFFF000, 0x80000000, 0xFFFFFFFF)),
    ("wav", "RF64", b"ds64", 12, "<Q", (0, 1 << 60)),
    ("w64", "W64", b"data\xf3\xac\xd3\x11\x8c\xd1\x00\xc0O\x8e\xdb\x8a", 0, "<Q", (0, 0x7FFFFFFFFFFFFFFF, 1 << 62)),
    ("aiff", "AIFF", b"COMM", 6, ">I", (0, 0x7F000000 // 4, 0xFFFFFFFF)),
    ("au", "AU", b".snd", 4, ">I", (0xFFFFFFFF,)),
    ("caf", "CAF", b"data", 0, ">q", (-1,)),
]


@pytest.mark.parametrize(
    ("ending", "container", "mark", "behind", "form", "size"), [(*case[:5], size) for case in PIPED for size in case[5]]
)
def test_a_header_written_to_a_pipe_states_no_length(
    tmp_path: Path, ending: str, container: str, mark: bytes, behind: int, form: str, size: int
):
    path = tmp_path / f"a.{ending}"
    soundfile.write(path, sound(1000).T, SECOND, subtype="PCM_16", format=container)
    expected = soundfile.read(path, dtype="float32")[0].T
    content = bytearray(path.read_bytes())
    struct.pack_into(form, content, content.index(mark) + len(mark) + behind, size)
    if ending == "wav":  # a recorder that stopped without an end leaves 0
        struct.pack_into(form, content, 20 if container == "RF64" else 4, size)
    path.write_bytes(content)
    got, complaints = read_all(path)
    assert np.array_equal(got, expected)
    assert complaints == []
    assert np.array_equal(read_audio(path, 900)[0], expected[:, 900:])


def test_a_flac_written_to_a_pipe_states_no_length(tmp_path: Path):
    path = unsized_flac(tmp_path / "a.flac", sound(20_001))
    soundfile.write(tmp_path / "b.flac", sound(20_001).T, SECOND)
    expected = soundfile.read(tmp_path / "b.flac", dtype="float32")[0].T
    info = probe(path)
    assert (info.length_samples, info.channels, info.sample_rate_hz) == (None, 2, SECOND)
    got, complaints = read_all(path)
    assert np.array_equal(got, expected)
    assert complaints == []
    assert np.array_equal(read_audio(path, 16_000)[0], got[:, 16_000:])


def test_float_samples_in_the_scale_of_integers_are_told(tmp_path: Path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.array([[3.0, -32000.0]]).T, SECOND, subtype="FLOAT")
    got, complaints = read_all(path)
    assert got.tolist() == [[3.0, -32000.0]]
    assert complaints == [
        f"{path} has samples up to 32000 where full scale is 1; if they are 16-bit integers, divide them by 32768"
    ]


def test_frames_that_change_in_mid_stream_are_brought_to_the_first_format(tmp_path: Path):
    # The first part is longer than what FFmpeg looks through to find the format.
    plain = {"write_xing": "0"}
    first = write_media(tmp_path / "1.mp3", "libmp3lame", [sound(10 * SECOND)], options=plain)
    second = write_media(tmp_path / "2.mp3", "libmp3lame", [sound(96_000, 1, 48000)], 48000, options=plain)
    path = tmp_path / "both.mp3"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    got, _ = read_all(path)
    assert got.shape[0] == 2
    assert abs(got.shape[1] - 12 * SECOND) < 5000
    late = got[:, -SECOND:-5000]
    assert np.abs(late[0] - late[1]).max() < 1e-3  # mono, put on both channels
    # The sweep goes on in the same place of the band, so the rate was converted: 0.3 s before its end, 1860 Hz.
    spectrum = np.abs(np.fft.rfft(got[0, -15_000:-11_000] * np.hanning(4000)))
    assert np.argmax(spectrum) * SECOND / 4000 == pytest.approx(300 + 800 * (2 - 13_000 / SECOND), rel=0.05)


BAD = {
    "gone.wav": (None, r"gone\.wav does not exist; check the path"),
    "empty.wav": (b"", r"empty\.wav is empty \(0 bytes\); give a file with audio"),
    "text.wav": (b"These are words, and no sound at all.\n" * 50, r"text\.wav cannot be read as audio"),
    "text.mp3": (b"Ich bin ein Text, und kein Lied.\n" * 50, r"text\.mp3 (cannot be read as audio|has no audio)"),
    "text.txt": (b"1\n00:00:01,000 --> 00:00:02,000\nSubtitles\n", r"text\.txt (cannot be read as audio|has no audio)"),
    "zero.flac": (bytes(5000), r"zero\.flac cannot be read as audio .*convert it to wav or flac"),
    "riff.wav": (b"RIFF\x24\0\0\0WAVE", r"riff\.wav cannot be read as audio"),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("call", [probe, AudioReader, read_audio])
def test_bad_files_are_refused_in_one_line(tmp_path: Path, name: str, call, capfd: pytest.CaptureFixture[str]):
    content, message = BAD[name]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        call(tmp_path / name)
    assert "\n" not in str(caught.value)
    assert str(tmp_path) in str(caught.value)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ending", ["wav", "flac", "ogg", "aiff", "mp3", "m4a", "opus", "mkv", "wma"])
@pytest.mark.parametrize("keep", [3, 11, 20, 40, 60])
def test_a_file_cut_inside_its_header(tmp_path: Path, ending: str, keep: int, capfd: pytest.CaptureFixture[str]):
    path = tmp_path / f"song.{ending}"
    codecs = {"mp3": "libmp3lame", "mkv": "aac", "m4a": "aac", "opus": "libopus", "wma": "wmav2"}
    if ending in codecs:
        write_media(path, codecs[ending], [sound(9000)], 48000 if ending == "opus" else SECOND)
    else:
        soundfile.write(path, sound(9000).T, SECOND)
    short = cut(path, min(keep, 40) if ending in ("wav", "aiff") else keep)
    with pytest.raises(InputError, match=r"cut_song\.\w+ (cannot be read as audio|holds no samples)"):
        read_audio(short)
    assert capfd.readouterr() == ("", "")


def test_a_folder_and_a_pipe_are_no_files(tmp_path: Path):
    with pytest.raises(InputError, match="is a folder; give an audio file in it"):
        probe(tmp_path)
    os.mkfifo(tmp_path / "pipe.wav")
    with pytest.raises(InputError, match="is no ordinary file"):
        probe(tmp_path / "pipe.wav")


def test_a_file_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "secret.wav"
    soundfile.write(path, sound(10).T, SECOND)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(InputError, match=r"secret\.wav cannot be opened \(Permission denied\); check its name"):
        AudioReader(path)


def test_names_that_no_system_takes(tmp_path: Path):
    with pytest.raises(InputError, match=r"cannot be opened \(File name too long\)"):
        probe(tmp_path / ("x" * 300))
    with pytest.raises(InputError, match=r"(cannot be opened|does not exist)"):
        probe("a\0b.wav")


def test_files_without_samples(tmp_path: Path):
    path = tmp_path / "none.wav"
    soundfile.write(path, np.zeros((0, 2)), SECOND)
    for call in (probe, AudioReader, read_audio):
        with pytest.raises(InputError, match=r"none\.wav holds no samples; give a file with sound in it"):
            call(path)


def test_a_video_without_sound(tmp_path: Path):
    path = write_media(tmp_path / "silent film.mp4", "aac", [], with_video=True)
    with pytest.raises(InputError, match=r"silent film\.mp4 has no audio stream; give a file with sound"):
        AudioReader(path)


@pytest.mark.parametrize(("value", "what"), [(np.nan, "a NaN"), (np.inf, "an infinite"), (-np.inf, "an infinite")])
def test_nan_and_infinity_are_refused_with_their_place(tmp_path: Path, value: float, what: str):
    wave = sound(30_000)
    wave[1, 22_050] = value
    wave[0, 25_000] = np.nan
    path = tmp_path / "a.wav"
    soundfile.write(path, wave.T, SECOND, subtype="FLOAT")
    message = rf"a\.wav holds {what} sample at 0\.500 s \(channel 2\); repair the file"
    with pytest.raises(InputError, match=message), AudioReader(path) as reader:
        list(reader.blocks(1024))
    with pytest.raises(InputError, match=message):
        read_audio(path)
    with pytest.raises(InputError, match=message):
        read_audio(path, 20_000, 9000)
    assert read_audio(path, 0, 22_050)[0].shape == (2, 22_050)


def test_samples_beyond_full_scale_are_kept(tmp_path: Path):
    path = tmp_path / "loud.wav"
    soundfile.write(path, np.array([[3.5, -7.0]]).T, SECOND, subtype="FLOAT")
    assert read_all(path)[0].tolist() == [[3.5, -7.0]]


def test_no_noise_from_the_libraries(tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path, _ = cut_file(tmp_path, "song.mp3")
    content = bytearray(path.read_bytes())
    content[20_000:22_000] = bytes(2000)
    path.write_bytes(content)
    read_all(path)
    assert capfd.readouterr() == ("", "")


def test_files_are_closed(tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ResourceWarning)
        for name in ("a.wav", "a.mp3"):
            path = tmp_path / name
            if name == "a.wav":
                soundfile.write(path, sound(50_000).T, SECOND)
            else:
                write_media(path, "libmp3lame", [sound(50_000)])
            before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0
            with AudioReader(path) as reader:
                next(reader.blocks(100))
            if before:
                assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.m4a"])
def test_memory_does_not_grow_with_length(tmp_path: Path, name: str):
    peaks = []
    for seconds in (2, 10):
        path = tmp_path / name
        wave = np.tile(sound(SECOND), seconds)
        if name == "a.m4a":
            write_media(path, "aac", [wave])
        else:
            soundfile.write(path, wave.T, SECOND)
        tracemalloc.start()
        with AudioReader(path) as reader:
            length = sum(block.shape[1] for block in reader.blocks(8192))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert abs(length - seconds * SECOND) < 2000
    assert peaks[1] < 1.1 * peaks[0] + 50_000


def test_floats_in_the_scale_of_integers_are_told(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, 32768 * sound(1000).T, 44_100, subtype="FLOAT")
    _, (complaint,) = read_all(path)
    assert "where full scale is 1; if they are 16-bit integers, divide them by 32768" in complaint
    soundfile.write(path, 4 * sound(1000).T, 44_100, subtype="FLOAT")
    assert read_all(path)[1] == []
