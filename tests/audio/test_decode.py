from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from polyres.audio import headers
from polyres.audio.decode import LibavDecoder, SndfileDecoder, frame_to_wave, open_decoder
from polyres.core.errors import InputError
from tests.audio.sound_files import cut, sound, write_media


def whole(decoder: LibavDecoder | SndfileDecoder, start: int = 0) -> np.ndarray:
    return np.concatenate(list(decoder.pieces(start)), axis=1)


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.w64", "a.ogg"])
def test_both_libraries_agree(tmp_path: Path, name: str):
    path = tmp_path / name
    soundfile.write(path, sound(50_000).T, 44100)
    one = SndfileDecoder(path, headers.sniff(path.read_bytes()[:64]))
    other = LibavDecoder(path)
    assert one.facts.length_samples == other.facts.length_samples == 50_000
    tolerance = 2e-6 if name == "a.ogg" else 0
    assert np.abs(whole(one) - whole(other)).max() <= tolerance
    assert np.abs(whole(one, 1234) - whole(other, 1234)).max() <= tolerance


@pytest.mark.parametrize(
    ("sample_format", "dtype", "full", "middle"),
    [
        ("u8", np.uint8, 128, 128),
        ("s16", np.int16, 2**15, 0),
        ("s32", np.int32, 2**31, 0),
        ("flt", np.float32, 1, 0),
        ("dbl", np.float64, 1, 0),
    ],
)
@pytest.mark.parametrize("is_planar", [False, True])
def test_sample_formats_have_full_scale_at_one(
    sample_format: str, dtype: type, full: int, middle: int, is_planar: bool
):
    wave = np.array([[-1, -0.5, 0, 0.25], [0.5, 0.75, -0.25, -1]])
    data = (wave * full + middle).astype(dtype)
    name = sample_format + "p" if is_planar else sample_format
    shaped = data if is_planar else np.ascontiguousarray(data.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(shaped, format=name, layout="stereo")
    got = frame_to_wave(frame)
    assert got.dtype == np.float32
    assert np.array_equal(got, wave)


def test_multichannel_vorbis_comes_in_the_usual_order(tmp_path: Path):
    # libsndfile stores its channels as they come; Vorbis means front left, centre, right, …, low frequencies last.
    levels = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    path = tmp_path / "a.ogg"
    soundfile.write(path, np.sin(np.arange(20_000) / 200)[:, None] * levels, 48000)
    decoder = open_decoder(path, path.read_bytes()[:64])
    assert isinstance(decoder, LibavDecoder)
    got = np.abs(whole(decoder)[:, 5000:15_000]).max(axis=1)
    assert np.argsort(got).tolist() == [0, 2, 1, 4, 5, 3]  # left, right, centre, low frequencies, back pair


def test_a_broken_flac_is_read_on_by_the_other_library(tmp_path: Path):
    path = tmp_path / "a.flac"
    soundfile.write(path, sound(100_000).T, 44100)
    expected = soundfile.read(path, dtype="float32")[0].T
    decoder = SndfileDecoder(cut(path, 0.7), "flac")
    got = whole(decoder)
    assert got.shape[1] > 60_000
    assert np.array_equal(got, expected[:, : got.shape[1]])
    assert decoder.damaged_parts > 0
    later = whole(decoder, 50_000)
    assert np.array_equal(later, got[:, 50_000:])
    assert list(decoder.pieces(99_000)) == []


def test_wav_with_a_coding_that_only_ffmpeg_knows(tmp_path: Path):
    path = write_media(tmp_path / "a.wav", "wmav2", [sound(20_000)], container="wav")
    decoder = open_decoder(path, path.read_bytes()[:64])
    assert isinstance(decoder, LibavDecoder)
    assert decoder.facts.codec == "wmav2"
    assert whole(decoder).shape[1] > 15_000


def test_tells_codec_and_streams(tmp_path: Path):
    path = write_media(tmp_path / "a.mp4", "aac", [sound(5000), sound(5000)], 22050)
    facts = LibavDecoder(path, 1).facts
    assert (facts.codec, facts.streams, facts.sample_rate_hz, facts.channels) == ("aac", 2, 22050, 2)
    with pytest.raises(InputError, match=r"has no audio stream 3; it has 1 \(aac, 2 ch, und\), 2 \(aac, 2 ch, und\)"):
        LibavDecoder(path, 2)
    with pytest.raises(InputError, match=r"has no audio stream 0; it has 1 "):
        LibavDecoder(path, -1)


def test_raw_streams_promise_no_length(tmp_path: Path):
    wave = sound(60_000)
    aac = write_media(tmp_path / "a.aac", "aac", [wave], container="adts")
    mp3 = write_media(tmp_path / "a.mp3", "libmp3lame", [wave], options={"write_xing": "0"})
    for path in (aac, mp3):
        decoder = LibavDecoder(cut(path, 0.5))
        assert decoder.facts.stated_samples is None
        assert 20_000 < whole(decoder).shape[1] < 40_000


@pytest.mark.parametrize("channels", [7, 8, 10])
def test_many_planes(tmp_path: Path, channels: int):
    wave = sound(3000, channels)
    path = write_media(tmp_path / "a.mkv", "wavpack", [wave])
    assert np.abs(whole(LibavDecoder(path)) - wave).max() < 1e-6


@pytest.mark.parametrize(("channels", "length"), [(1, 498), (2, 92)])
def test_short_mp3_is_taken_for_nothing_else(tmp_path: Path, channels: int, length: int):
    # Guessing by the bytes, FFmpeg finds these two to be video.
    path = write_media(tmp_path / "a.mp3", "libmp3lame", [sound(length, channels)])
    assert whole(LibavDecoder(path)).shape == (channels, length)
