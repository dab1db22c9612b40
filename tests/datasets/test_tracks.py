from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.audio.track_files import SOURCES, list_tracks, stem_paths
from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import InputError
from polyres.datasets.check import check_track
from polyres.datasets.layouts import find_tracks
from polyres.datasets.tracks import index_tracks, load_track, read_part, read_stem
from tests.audio.sound_files import sound, unsized_flac

RATE_HZ = 8000


def write(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.T, rate_hz, subtype="FLOAT" if path.suffix == ".wav" else None)
    return path


def ramp(length: int, channels: int = 2) -> np.ndarray:
    return (np.arange(channels * length).reshape(channels, length) / (2 * channels * length)).astype(np.float32)


def sine(length: int, frequency_hz: float, rate_hz: int) -> np.ndarray:
    return np.tile(0.5 * np.sin(2 * np.pi * frequency_hz * np.arange(length) / rate_hz), (2, 1)).astype(np.float32)


def test_tracks_are_found_at_any_depth(tmp_path: Path) -> None:
    for name in ("b/deep", "a", ".hidden"):
        write(tmp_path / name / "vocals.wav", ramp(10))
    write(tmp_path / "c" / "noise.wav", ramp(10))
    assert [folder.relative_to(tmp_path).as_posix() for folder in list_tracks(tmp_path)] == ["a", "b/deep"]
    assert list_tracks(tmp_path / "a") == [tmp_path / "a"]
    assert list_tracks(tmp_path, ("noise",)) == [tmp_path / "c"]


def test_wav_comes_before_flac(tmp_path: Path) -> None:
    for suffix in (".flac", ".wav"):
        write(tmp_path / f"bass{suffix}", ramp(10))
    assert stem_paths(tmp_path) == {"bass": tmp_path / "bass.wav"}


def test_missing_roots_and_empty_roots_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no folder '.*nowhere'; give a folder of tracks"):
        list_tracks(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"no tracks in .* each track is a folder with some of drums\.wav, bass\.wav"):
        index_tracks(tmp_path)


def test_index_tracks_knows_the_stems_and_the_longest(tmp_path: Path) -> None:
    write(tmp_path / "a" / "drums.wav", ramp(RATE_HZ))
    write(tmp_path / "a" / "vocals.flac", ramp(3 * RATE_HZ))
    (track,) = index_tracks(tmp_path)
    assert set(track.stems) == {"drums", "vocals"}
    assert track.length_s == 3.0


@given(start=st.integers(0, 300), length=st.integers(1, 300), channels=st.integers(1, 3))
def test_parts_are_exact_and_padded(
    tmp_path_factory: pytest.TempPathFactory, start: int, length: int, channels: int
) -> None:
    wave = ramp(250, channels)
    path = write(tmp_path_factory.mktemp("part") / "a.wav", wave)
    part = read_part(path, start / RATE_HZ, length, RATE_HZ)
    padded = np.pad(wave, ((0, 0), (0, 700)))[:, start : start + length]
    expected = padded[[0, min(1, channels - 1)]]
    assert part.dtype == np.float32
    assert np.array_equal(part, expected)


@pytest.mark.parametrize("file_rate_hz", [8000, 11_025, 16_000])
@pytest.mark.parametrize("speed", [1.0, 0.9, 1.1])
def test_rate_and_speed_change_the_frequency_as_they_should(tmp_path: Path, file_rate_hz: int, speed: float) -> None:
    path = write(tmp_path / "a.wav", sine(3 * file_rate_hz, 500.0, file_rate_hz), file_rate_hz)
    part = read_part(path, 0.5, RATE_HZ, RATE_HZ, speed=speed)
    spectrum = np.abs(np.fft.rfft(part[0] * np.hanning(RATE_HZ)))
    assert np.argmax(spectrum) == pytest.approx(500.0 * speed, abs=1.0)
    middle = part[0, 500:-500]
    assert np.sqrt(2 * np.mean(middle**2)) == pytest.approx(0.5, rel=0.01)


@pytest.mark.parametrize("speed", [1.0, 1.25])
@pytest.mark.parametrize("file_rate_hz", [8000, 16_000])
def test_parts_begin_where_asked_at_any_rate(tmp_path: Path, file_rate_hz: int, speed: float) -> None:
    wave = np.zeros((2, 4 * file_rate_hz), np.float32)
    wave[:, 3 * file_rate_hz] = 0.9
    part = read_part(write(tmp_path / "a.wav", wave, file_rate_hz), 2.5, RATE_HZ, RATE_HZ, speed=speed)
    assert np.argmax(part[0]) == pytest.approx(0.5 * RATE_HZ / speed, abs=1)


def test_load_track_resamples_doubles_mono_and_fills_missing_stems(tmp_path: Path) -> None:
    write(tmp_path / "drums.wav", ramp(800))
    write(tmp_path / "vocals.flac", sine(1600, 200.0, 16_000)[:1], 16_000)
    stems = load_track(tmp_path, SOURCES, RATE_HZ)
    assert stems.shape == (4, 2, 800)
    assert stems.dtype == torch.float32
    assert torch.equal(stems[0], torch.from_numpy(ramp(800)))
    assert stems[1].abs().max() == stems[2].abs().max() == 0.0
    assert torch.equal(stems[3, 0], stems[3, 1])
    assert torch.allclose(stems[3, 0, 50:-50], torch.from_numpy(sine(800, 200.0, RATE_HZ)[0, 50:-50]), atol=1e-3)


@pytest.mark.parametrize("suffix", [".flac", ".mp3", ".m4a"])
def test_other_formats_are_found_measured_and_read_in_parts(tmp_path: Path, suffix: str) -> None:
    wave = sine(2 * 44_100, 1000.0, 44_100) * np.linspace(0.1, 1.0, 2 * 44_100, dtype=np.float32)
    path = tmp_path / "a" / f"vocals{suffix}"
    path.parent.mkdir()
    with AudioWriter(path, WriteSpec(sample_rate_hz=44_100, channels=2, format=suffix[1:])) as writer:
        writer.write(wave)
    (track,) = index_tracks(tmp_path)
    assert track.stems["vocals"].levels_db[:2] == pytest.approx([-18.1, -11.1], abs=0.2)
    part = read_part(path, 0.75, 22_050, 44_100)
    assert np.abs(part - wave[:, 33_075:55_125]).max() < 0.02
    assert torch.equal(load_track(path.parent)[3, :, 33_075:55_125], torch.from_numpy(part))


def test_a_stem_written_to_a_pipe_is_measured_and_read_to_its_end(tmp_path: Path) -> None:
    wave = sound(20_001)
    for folder, write in (("piped", unsized_flac), ("plain", lambda path, wave: soundfile.write(path, wave.T, 44_100))):
        (tmp_path / folder / "a").mkdir(parents=True)
        write(tmp_path / folder / "a" / "drums.flac", wave)
    piped, plain = (index_tracks(tmp_path / folder)[0].stems["drums"] for folder in ("piped", "plain"))
    assert piped.length_samples == plain.length_samples == 20_001
    for start_s in (0.0, 0.2, 0.4, 0.45):
        assert np.array_equal(read_stem(piped, start_s, 3000, 44_100), read_stem(plain, start_s, 3000, 44_100))
    assert not check_track(find_tracks(tmp_path / "piped", "stems")[0]).problems


def test_the_longest_stem_sets_the_length(tmp_path: Path) -> None:
    write(tmp_path / "drums.wav", ramp(100))
    write(tmp_path / "bass.wav", ramp(130))
    stems = load_track(tmp_path, ("bass", "drums"), RATE_HZ)
    assert stems.shape == (2, 2, 130)
    assert stems[1, :, 100:].abs().max() == 0.0


def test_unusable_tracks_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no stems in '.*'; it needs files such as drums\.wav"):
        load_track(tmp_path)
    (tmp_path / "drums.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"drums\.wav cannot be read as audio"):
        load_track(tmp_path)
    with pytest.raises(InputError, match=r"drums\.wav cannot be read as audio"):
        read_part(tmp_path / "drums.wav", 0.0, 10, RATE_HZ)


@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_reading_behind_the_end_of_a_stem_gives_silence(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"drums{suffix}"
    with AudioWriter(path, WriteSpec(sample_rate_hz=44_100, channels=2, format=suffix[1:])) as writer:
        writer.write(sine(44_100, 440.0, 44_100))
    stem = index_tracks(tmp_path)[0].stems["drums"]
    assert np.abs(read_stem(stem, 1.5, 1000, 44_100)).max() == 0.0
    late = read_stem(stem, 0.99, 2000, 44_100)
    assert np.abs(late[:, :300]).max() > 0.1
    assert np.abs(late[:, -1000:]).max() == 0.0


@pytest.mark.parametrize("speed", [1.0, 1.1])
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 2 * RATE_HZ])
def test_a_stem_of_one_file_is_read_as_the_file(tmp_path: Path, speed: float, rate_hz: int) -> None:
    path = write(tmp_path / "drums.wav", sine(3 * RATE_HZ, 300.0, RATE_HZ))
    stem = index_tracks(tmp_path)[0].stems["drums"]
    expected = read_part(path, 1.23, 4000, rate_hz, speed)
    assert np.array_equal(read_stem(stem, 1.23, 4000, rate_hz, speed), expected)


def test_unequal_stems_give_one_warning_that_names_them(tmp_path: Path) -> None:
    for source, length in (("drums", 2 * RATE_HZ), ("bass", RATE_HZ), ("vocals", 2 * RATE_HZ - 1)):
        write(tmp_path / "My song" / f"{source}.wav", ramp(length))
    (track,) = index_tracks(tmp_path)
    line = "track 'My song': shorter than its longest stem, padded with silence: bass.wav (bass) by 1.000 s"
    assert track.warnings == (line,)
    lines: list[str] = []
    load_track(tmp_path / "My song", sample_rate_hz=RATE_HZ, report=lines.append)
    assert lines == [line]


def test_equal_stems_give_no_warning_at_any_rate(tmp_path: Path) -> None:
    write(tmp_path / "drums.wav", ramp(3 * 8000 + 1), 8000)
    write(tmp_path / "bass.wav", ramp(3 * 44_100), 44_100)
    lines: list[str] = []
    load_track(tmp_path, sample_rate_hz=8000, report=lines.append)
    assert (index_tracks(tmp_path)[0].warnings, lines) == ((), [])


def test_files_that_have_shrunk_or_gone_since_they_were_measured_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "drums.wav", ramp(3 * RATE_HZ))
    stem = index_tracks(tmp_path)[0].stems["drums"]
    assert read_stem(stem, 2.5, RATE_HZ, RATE_HZ).shape == (2, RATE_HZ)
    write(path, ramp(2 * RATE_HZ))
    with pytest.raises(
        InputError, match=r"drums\.wav is shorter than when it was measured; restore it, or start again"
    ):
        read_stem(stem, 1.5, RATE_HZ, RATE_HZ)
    path.unlink()
    with pytest.raises(InputError, match=r"drums\.wav does not exist; check the path"):
        read_stem(stem, 1.5, RATE_HZ, RATE_HZ)


def test_a_cut_stem_is_refused_when_a_track_is_loaded(tmp_path: Path) -> None:
    path = write(tmp_path / "drums.wav", ramp(RATE_HZ))
    path.write_bytes(path.read_bytes()[:-8000])
    with pytest.raises(
        InputError, match=r"drums\.wav ends early: 0\.88 s of 1\.00 s could be read; copy the file again"
    ):
        load_track(tmp_path)
