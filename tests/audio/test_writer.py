from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from polyres.audio import writer as fit
from polyres.audio import writer as writer_module
from polyres.audio.files import AudioReader, probe, read_audio
from polyres.audio.resample import resample
from polyres.audio.writer import FORMATS, AudioWriter, WriteSpec, partial_path
from polyres.core.errors import ConfigError, OutputError
from tests.audio.sound_files import lag, snr_db, sound
from tests.full_disk import at_most

KINDS = [
    ("wav", 16),
    ("wav", 24),
    ("wav", "float"),
    ("flac", 16),
    ("flac", 24),
    ("mp3", 16),
    ("m4a", 16),
    ("ogg", 16),
    ("opus", 16),
]
LEAST_DB = {"mp3": 25, "m4a": 20, "ogg": 20, "opus": 18}


def write(path: Path, wave: np.ndarray, spec: WriteSpec, block: int = 7000) -> Path:
    with AudioWriter(path, spec) as writer:
        for at in range(0, wave.shape[1], block):
            writer.write(wave[:, at : at + block])
    return path


def spec_for(audio_format: str, bit_depth: int | str = 16, channels: int = 2, rate_hz: int = 44100) -> WriteSpec:
    return WriteSpec(rate_hz, channels, audio_format, bit_depth)


@pytest.mark.parametrize(("audio_format", "bit_depth"), KINDS)
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("length", [100, 1152, 50_001])
def test_what_is_written_is_read_in_place_and_length(
    tmp_path: Path, audio_format: str, bit_depth: int | str, channels: int, length: int
):
    wave = sound(length, channels)
    path = write(tmp_path / f"a.{audio_format}", wave, spec_for(audio_format, bit_depth, channels))
    with AudioReader(path) as reader:
        got = np.concatenate(list(reader.blocks(4096)), axis=1)
        assert reader.warnings == []
        assert reader.info.length_samples == got.shape[1]
    wanted = resample(wave, 44100, 48000) if audio_format == "opus" else wave
    assert got.shape == wanted.shape
    if bit_depth == "float":
        assert np.array_equal(got, wave)
    elif audio_format in ("wav", "flac"):
        assert np.abs(got - wave).max() <= 0.5 / 2 ** (bit_depth - 1)
    elif length > 10_000:
        assert lag(wanted, got) == 0
        assert snr_db(wanted, got) > LEAST_DB[audio_format]


@settings(max_examples=6, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(48, 6000))
@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("rate_hz", [8000, 22050, 48000])
def test_length_is_exact_for_any_length(tmp_path: Path, audio_format: str, rate_hz: int, length: int):
    path = write(tmp_path / f"a.{audio_format}", sound(length, 1, rate_hz), spec_for(audio_format, 16, 1, rate_hz))
    wanted = -(-length * 48000 // rate_hz) if audio_format == "opus" else length
    assert read_audio(path)[0].shape == (1, wanted)


@pytest.mark.parametrize("audio_format", FORMATS)
def test_one_sample(tmp_path: Path, audio_format: str):
    path = write(tmp_path / f"a.{audio_format}", np.full((2, 1), 0.5, np.float32), spec_for(audio_format, 16, 2, 48000))
    assert read_audio(path)[0].shape == (2, 1)


@pytest.mark.parametrize("rate_hz", [16000, 44100])
def test_mp3_states_its_padding_for_every_length(tmp_path: Path, rate_hz: int):
    for length in (*range(47, 60), *range(1150, 1160), 1199, 1200):
        path = write(tmp_path / "a.mp3", sound(length, 1, rate_hz), spec_for("mp3", 16, 1, rate_hz))
        assert read_audio(path)[0].shape == (1, length)


@pytest.mark.parametrize(("audio_format", "bit_depth"), KINDS)
def test_equal_samples_give_equal_bytes(tmp_path: Path, audio_format: str, bit_depth: int | str):
    wave = sound(20_000)
    spec = replace(spec_for(audio_format, bit_depth), tags={"title": "Lied", "date": "1999"})
    one = write(tmp_path / f"one.{audio_format}", wave, spec).read_bytes()
    time.sleep(0.01)
    other = write(tmp_path / f"other.{audio_format}", wave, spec, block=999).read_bytes()
    assert one == other
    assert b"Lavc" not in one  # nor does the encoder's version change them
    assert b"Lavf" not in one


@pytest.mark.parametrize(("audio_format", "bit_depth"), [("wav", 16), ("wav", 24), ("flac", 16), ("flac", 24)])
def test_integers_come_back_unchanged_and_loud_ones_are_held(tmp_path: Path, audio_format: str, bit_depth: int):
    full = 2 ** (bit_depth - 1)
    steps = np.array([[-full, -full + 1, -1, 0, 1, 5, full - 2, full - 1]])
    spec = spec_for(audio_format, bit_depth, 1)
    path = write(tmp_path / f"a.{audio_format}", (steps / full).astype(np.float32), spec)
    assert (read_audio(path)[0] * full).astype(int).tolist() == steps.tolist()
    loud = np.array([[1.0, 1.5, -1.5, 100, 0.5 / full, 1.5 / full]], np.float32)
    path = write(tmp_path / f"b.{audio_format}", loud, spec)
    assert (read_audio(path)[0] * full).astype(int).tolist() == [[full - 1, full - 1, -full, full - 1, 0, 2]]


@pytest.mark.parametrize("channels", [3, 6, 8])
@pytest.mark.parametrize("audio_format", ["wav", "flac"])
def test_many_channels_keep_their_order(tmp_path: Path, audio_format: str, channels: int):
    wave = sound(1000, channels)
    path = write(tmp_path / f"a.{audio_format}", wave, spec_for(audio_format, 24, channels))
    assert np.abs(read_audio(path)[0] - wave).max() < 1e-6


def test_a_long_wav_becomes_rf64(tmp_path: Path):
    wave = sound(1000)
    tags = {"title": "lang"}
    for most, container in ((4100, "WAV"), (4000, "RF64")):
        path = tmp_path / f"{container}.wav"
        with AudioWriter(path, WriteSpec(44100, 2, "wav", 16, {}), max_riff_bytes=most) as writer:
            writer.write(wave)
        assert soundfile.info(path).format == container
        assert np.abs(read_audio(path)[0] - wave).max() < 2e-5
    with AudioWriter(path, WriteSpec(44100, 2, "wav", 16, tags), max_riff_bytes=4000) as writer:
        writer.write(wave)
    assert soundfile.info(path).format == "RF64"
    assert probe(path).tags == tags


def test_the_file_appears_only_when_it_is_whole(tmp_path: Path):
    path = tmp_path / "new" / "folders" / "ä.wav"
    writer = AudioWriter(path, spec_for("wav"))
    writer.write(sound(100))
    assert os.listdir(path.parent) == [f".ä.wav.partial-{os.getpid()}"]
    writer.close()
    writer.close()
    assert os.listdir(path.parent) == ["ä.wav"]
    assert writer.written_samples == 100
    with pytest.raises(ValueError, match=r"ä\.wav has been closed"):
        writer.write(sound(1))


@pytest.mark.parametrize("audio_format", FORMATS)
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_nothing_behind(tmp_path: Path, audio_format: str, error: type[BaseException]):
    path = tmp_path / f"a.{audio_format}"
    path.write_text("before")

    def interrupted() -> None:
        with AudioWriter(path, spec_for(audio_format)) as writer:
            writer.write(sound(30_000))
            raise error

    with pytest.raises(error):
        interrupted()
    assert os.listdir(tmp_path) == [path.name]
    assert path.read_text() == "before"


@pytest.mark.parametrize("audio_format", FORMATS)
def test_nothing_written_is_no_file(tmp_path: Path, audio_format: str):
    writer = AudioWriter(tmp_path / f"a.{audio_format}", spec_for(audio_format))
    writer.write(np.zeros((2, 0), np.float32))
    with pytest.raises(OutputError, match="would hold no samples; write at least one"):
        writer.close()
    assert os.listdir(tmp_path) == []
    writer.abort()


@pytest.mark.parametrize("size", [0, 3000, 40_000])
@pytest.mark.parametrize("audio_format", FORMATS)
def test_a_full_disk_is_one_clear_line(tmp_path: Path, audio_format: str, size: int, capfd: pytest.CaptureFixture[str]):
    wave = sound(200_000)
    with (
        at_most(size),
        pytest.raises(
            OutputError, match=rf"a\.{audio_format} cannot be written \(File too large\); choose another"
        ) as e,
    ):
        write(tmp_path / f"a.{audio_format}", wave, spec_for(audio_format))
    assert "\n" not in str(e.value)
    assert os.listdir(tmp_path) == []
    assert capfd.readouterr() == ("", "")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("audio_format", FORMATS)
def test_no_space_left(tmp_path: Path, audio_format: str, monkeypatch: pytest.MonkeyPatch):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    monkeypatch.setattr(writer_module, "partial_path", lambda _: full)
    with pytest.raises(OutputError, match=r"cannot be written \(No space left on device\); free some space"):
        write(tmp_path / f"a.{audio_format}", sound(200_000), spec_for(audio_format))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("audio_format", ["flac", "mp3", "m4a", "ogg", "opus"])
def test_a_disk_that_fills_up_while_tags_are_written(tmp_path: Path, audio_format: str):
    wave = sound(20_000)
    size = write(tmp_path / "try", wave, spec_for(audio_format)).stat().st_size
    (tmp_path / "try").unlink()
    spec = replace(spec_for(audio_format), tags={"comment": "long " * 9000})
    with at_most(size + 500), pytest.raises(OutputError, match=r"cannot be written \(File too large\)"):
        write(tmp_path / f"a.{audio_format}", wave, spec)
    assert os.listdir(tmp_path) == []


def test_folders_that_cannot_be_used(tmp_path: Path):
    (tmp_path / "file").write_text("x")
    (tmp_path / "folder.wav").mkdir()
    before = sorted(os.listdir(tmp_path))
    for path, message in (
        (tmp_path / "file" / "a.wav", "a file stands where a folder is needed"),
        (tmp_path / "file" / "deeper" / "a.wav", "a file stands where a folder is needed"),
        (tmp_path / "folder.wav", "a folder has this name"),
        (tmp_path / ("n" * 300 + ".wav"), "choose a shorter name"),
    ):
        with pytest.raises(OutputError, match=message):
            AudioWriter(path, spec_for("wav"))
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    with pytest.raises(OutputError, match=r"a\.wav cannot be written \(Permission denied\); choose a folder you may"):
        AudioWriter(tmp_path / "a.wav", spec_for("wav"))


def test_the_longest_name_has_a_temporary_name_too(tmp_path: Path):
    path = tmp_path / ("ß" * 125 + ".flac")
    write(path, sound(100), spec_for("flac"))
    assert os.listdir(tmp_path) == [path.name]
    assert len(os.fsencode(partial_path(path).name)) <= 255


def test_nan_is_refused(tmp_path: Path):
    with (
        pytest.raises(OutputError, match="would hold NaN or infinite samples"),
        AudioWriter(tmp_path / "a.wav", spec_for("wav")) as writer,
    ):
        writer.write(np.full((2, 5), np.nan, np.float32))
    assert os.listdir(tmp_path) == []


def test_blocks_of_a_wrong_shape(tmp_path: Path):
    with (
        pytest.raises(ValueError, match=r"block has shape \(3, 5\); it must be \[2, n\]"),
        AudioWriter(tmp_path / "a.wav", spec_for("wav")) as writer,
    ):
        writer.write(np.zeros((3, 5), np.float32))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"format": "flak"}, ConfigError, r"unknown audio format 'flak'; choose one of wav, .* did you mean 'flac'\?"),
        ({"bit_depth": 20}, ConfigError, r"bit depth 20 is unknown; choose 16, 24 or 'float'"),
        ({"bit_depth": "16"}, ConfigError, r"bit depth '16' is unknown"),
        ({"bit_depth": "float", "format": "flac"}, ConfigError, "flac has no float samples; choose bit depth 16 or 24"),
        ({"bit_depth": "float", "format": "mp3"}, ConfigError, "mp3 has no float samples"),
        ({"channels": 0}, OutputError, "no format holds 0 channels; give 1 to 65535"),
        ({"channels": 65536, "format": "mp3"}, OutputError, "no format holds 65536 channels"),
        ({"sample_rate_hz": 0}, OutputError, r"no format holds 0 Hz; give 1 to 4294967295 Hz"),
    ],
)
def test_what_a_format_cannot_hold(settings: dict, error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        WriteSpec(**{"sample_rate_hz": 44100, "channels": 2, **settings})


@pytest.mark.parametrize("audio_format", ["mp3", "m4a"])
def test_every_rate_that_is_offered_can_be_written(tmp_path: Path, audio_format: str):
    for rate_hz in fit._RATES_HZ[audio_format]:
        for channels in (1, 2):
            wave = sound(3000, channels, rate_hz)
            path = write(tmp_path / f"a.{audio_format}", wave, spec_for(audio_format, 16, channels, rate_hz))
            got, got_hz = read_audio(path)
            assert (got_hz, got.shape) == (rate_hz, wave.shape)


@pytest.mark.parametrize(
    ("audio_format", "rate_hz", "channels", "held_hz", "held_channels"),
    [
        ("mp3", 192_000, 6, 48_000, 2),
        ("mp3", 37_800, 1, 44_100, 1),
        ("mp3", 1000, 3, 8000, 2),
        ("m4a", 176_400, 2, 96_000, 2),
        ("m4a", 40_000, 8, 44_100, 2),
        ("ogg", 384_000, 5, 192_000, 2),
        ("flac", 768_000, 2, 384_000, 2),
        ("flac", 48_000, 9, 48_000, 2),
        ("flac", 48_000, 8, 48_000, 8),
        ("opus", 96_000, 4, 48_000, 2),
    ],
)
def test_what_a_format_cannot_hold_is_resampled_and_mixed_down(
    tmp_path: Path, audio_format: str, rate_hz: int, channels: int, held_hz: int, held_channels: int
):
    tone = (0.4 * np.sin(2 * np.pi * 300 * np.arange(rate_hz // 4) / rate_hz)).astype(np.float32)
    path = tmp_path / f"a.{audio_format}"
    spec = spec_for(audio_format, 16, channels, rate_hz)
    write(path, np.tile(tone, (channels, 1)), spec)
    got, got_hz = read_audio(path)
    assert (got_hz, got.shape[0]) == (held_hz, held_channels)
    assert got.shape[1] == pytest.approx(held_hz / 4, abs=2)
    wanted = 0.4 * np.sin(2 * np.pi * 300 * np.arange(got.shape[1]) / got_hz)
    inner = slice(got.shape[1] // 4, -got.shape[1] // 4)
    assert np.abs(got - wanted)[:, inner].max() < 0.05
    assert spec.note == fit.fit_note(audio_format, rate_hz, channels)


@pytest.mark.parametrize(
    ("audio_format", "rate_hz"), [("ogg", 200_000), ("flac", 655_350), ("opus", 192_000), ("wav", 1000)]
)
def test_rates_at_the_limit(tmp_path: Path, audio_format: str, rate_hz: int):
    path = write(tmp_path / f"a.{audio_format}", sound(5000, 2, 44100), spec_for(audio_format, 16, 2, rate_hz))
    assert probe(path).sample_rate_hz == (48000 if audio_format == "opus" else rate_hz)
