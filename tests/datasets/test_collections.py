from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import av
import numpy as np
import pytest

from polyres.audio.track_files import SOURCES, Part
from polyres.core.errors import InputError
from polyres.datasets.collections import STREAMS, VALIDATION_TRACKS, StemStreamReader, source_of
from polyres.datasets.layouts import find_tracks
from polyres.datasets.stem_files import read_whole
from polyres.datasets.tracks import index_tracks, load_layout_track, load_mixture, read_stem
from tests.audio.sound_files import cut, lag, sound
from tests.datasets.stem_folders import (
    RATE_HZ,
    noise,
    write_moises_track,
    write_slakh_track,
    write_stem_mp4,
    write_track,
    write_wave,
)

SLAKH = {"S00": "Piano", "S01": "Drums", "S02": "Bass", "S03": "Guitar", "S04": "Synth Lead"}


@pytest.mark.parametrize("suffix", [".flac", ".wav"])
def test_slakh_instruments_are_summed_to_the_sources(tmp_path: Path, suffix: str) -> None:
    folder = write_slakh_track(tmp_path / "train" / "Track00001", SLAKH, suffix)
    write_wave(folder / f"mix{suffix}", noise(2000, 9), subtype="PCM_16")
    (track,) = index_tracks(tmp_path, layout="slakh2100", split="train")
    assert (track.name, sorted(track.stems)) == ("Track00001", ["bass", "drums", "other"])
    other = read_stem(track.stems["other"], 500 / RATE_HZ, 700, RATE_HZ)
    expected = noise(2000, 0) + noise(2000, 3) + noise(2000, 4)  # the files round to 16 bits
    assert other == pytest.approx(expected[:, 500:1200], abs=1.5e-4)
    (files,) = find_tracks(tmp_path, "slakh2100")
    stems = load_layout_track(files, SOURCES).numpy()
    assert stems[0] == pytest.approx(noise(2000, 1), abs=5e-5)
    assert stems[2] == pytest.approx(expected, abs=1.5e-4)
    assert np.abs(stems[3]).max() == 0.0
    mixture = load_mixture(files)
    assert mixture is not None
    assert mixture.numpy() == pytest.approx(noise(2000, 9), abs=5e-5)


def test_slakh_instruments_can_be_sources_of_their_own(tmp_path: Path) -> None:
    write_slakh_track(tmp_path / "Track00001", SLAKH)
    (track,) = find_tracks(tmp_path, "slakh2100", sources=("drums", "guitar", "piano", "other"))
    found = {source: [part.path.stem for part in parts] for source, parts in track.stems.items()}
    assert found == {"drums": ["S01"], "guitar": ["S03"], "piano": ["S00"], "other": ["S04"]}


def test_slakh_splits_leave_out_omitted_songs(tmp_path: Path) -> None:
    for name in ("train/Track00001", "validation/Track00002", "test/Track00003", "omitted/Track00004"):
        write_slakh_track(tmp_path / name, {"S00": "Piano"})

    def names(split: str) -> list[str]:
        return [track.name[-1] for track in find_tracks(tmp_path, "slakh2100", split)]

    assert {split: names(split) for split in ("train", "valid", "test")} == {
        "train": ["1"],
        "valid": ["2"],
        "test": ["3"],
    }
    assert sorted(names("all")) == ["1", "2", "3"]


def test_slakh_files_that_were_not_rendered_are_not_missed_but_others_are(tmp_path: Path) -> None:
    folder = write_slakh_track(tmp_path / "Track00001", {"S00": "Piano", "S01": "Drums"})
    (folder / "stems" / "S01.flac").unlink()
    with pytest.raises(InputError, match=r"stems/S01\.flac' is missing from the track 'Track00001'; restore it"):
        index_tracks(tmp_path, layout="slakh2100")
    text = (folder / "metadata.yaml").read_text()
    head, tail = text.rsplit("audio_rendered: true", 1)
    (folder / "metadata.yaml").write_text(f"{head}audio_rendered: false{tail}")
    (track,) = index_tracks(tmp_path, layout="slakh2100")
    assert list(track.stems) == ["other"]


@pytest.mark.parametrize(
    ("text", "message"),
    [("stems: [", r"metadata\.yaml' cannot be read as YAML"), ("stems: 3", r"metadata\.yaml' lists no stems")],
)
def test_broken_metadata_is_named(tmp_path: Path, text: str, message: str) -> None:
    folder = write_slakh_track(tmp_path / "Track00001", {"S00": "Piano"})
    (folder / "metadata.yaml").write_text(text)
    with pytest.raises(InputError, match=message):
        index_tracks(tmp_path, layout="slakh2100")


MOISES = {"vocals": ["v"], "bass": ["b"], "drums": ["kick", "snare"], "percussion": ["shaker"], "other_keys": ["organ"]}


def test_moises_files_are_summed_to_the_sources(tmp_path: Path) -> None:
    write_moises_track(tmp_path / "provider" / "song", MOISES)
    (track,) = index_tracks(tmp_path, layout="moisesdb")
    assert track.name == "A - song"
    drums = read_stem(track.stems["drums"], 0.0, 2500, RATE_HZ)
    assert drums[:, :2000] == pytest.approx(noise(2000, 2) + noise(2000, 3) + noise(2000, 4), abs=1e-6)
    assert np.abs(drums[:, 2000:]).max() == 0.0
    (files,) = find_tracks(tmp_path, "moisesdb")
    assert [part.path.stem for part in files.stems["other"]] == ["organ"]
    assert load_layout_track(files, ("drums",))[0].numpy() == pytest.approx(drums[:, :2000], abs=1e-6)
    assert load_mixture(files) is None


def test_files_of_one_stem_may_have_different_lengths(tmp_path: Path) -> None:
    folder = write_moises_track(tmp_path / "song", {"drums": ["kick", "snare"]})
    write_wave(folder / "drums" / "snare.wav", noise(3000, 1))
    (track,) = index_tracks(tmp_path, layout="moisesdb")
    stem = track.stems["drums"]
    assert stem.length_samples == 3000
    expected = noise(3000, 1)
    expected[:, :2000] += noise(2000, 0)
    assert read_stem(stem, 0.0, 3000, RATE_HZ) == pytest.approx(expected, abs=1e-6)
    assert read_stem(stem, 2500 / RATE_HZ, 1000, RATE_HZ)[:, :500] == pytest.approx(expected[:, 2500:], abs=1e-6)
    assert load_layout_track(find_tracks(tmp_path, "moisesdb")[0], ("drums",))[0].numpy() == pytest.approx(expected)


def test_moises_problems_are_named(tmp_path: Path) -> None:
    folder = write_moises_track(tmp_path / "song", MOISES)
    (folder / "drums" / "kick.wav").unlink()
    with pytest.raises(InputError, match=r"drums/kick\.wav' is missing from the track 'A - song'"):
        index_tracks(tmp_path, layout="moisesdb")
    (folder / "data.json").write_text('{"stems": [{"stemName": "bass"}]}')
    with pytest.raises(InputError, match=r"data\.json' lists no stems with tracks; copy it again"):
        index_tracks(tmp_path, layout="moisesdb")
    (folder / "data.json").write_text("{")
    with pytest.raises(InputError, match=r"data\.json' cannot be read as JSON"):
        index_tracks(tmp_path, layout="moisesdb")


@pytest.mark.parametrize(
    ("instrument", "source"),
    [("Drums", "drums"), ("Bass", "bass"), ("vocals", "vocals"), ("Piano", "other"), ("Synth Pad", "other")],
)
def test_instruments_and_their_sources(instrument: str, source: str) -> None:
    assert source_of(instrument, SOURCES) == source


@pytest.mark.parametrize("name", ["../../secret", "/dev", "..", "a/b", "x" * 300])
def test_a_moises_file_names_nothing_outside_its_folder(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "song"
    folder.mkdir()
    stems = [{"stemName": name, "tracks": [{"id": "zero", "extension": "wav"}]}]
    (folder / "data.json").write_text(json.dumps({"song": "S", "stems": stems}))
    (files,) = find_tracks(tmp_path, "moisesdb")
    assert files.stems == {}
    assert ("is missing" if name[0] == "x" else "which is outside its folder") in files.problems[0]


LENGTH = 2 * RATE_HZ + 333


@pytest.fixture(scope="module", params=[True, False], ids=["edit list", "no edit list"])
def stem_file(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five streams; the drums are too loud for 16 bits."""
    waves = [sound(LENGTH, seed=seed) * (3.0 if seed == 1 else 1.0) for seed in range(5)]
    path = tmp_path_factory.mktemp("musdb") / "train" / "A - B.stem.mp4"
    return write_stem_mp4(path, [wave.astype(np.float32) for wave in waves], request.param)


def decoded_by_libav(path: Path, stream: int) -> np.ndarray:
    """The integers that FFmpeg's own conversion to 16 bits makes of all that its decoder gives."""
    resampler = av.AudioResampler(format="s16p")
    with av.open(str(path)) as container:
        frames = [out for frame in container.decode(audio=stream) for out in resampler.resample(frame)]
    frames += resampler.resample(None)
    return np.concatenate([frame.to_ndarray() for frame in frames], axis=1)


def read(path: Path, stream: int) -> np.ndarray:
    return np.concatenate(list(StemStreamReader(path, stream).blocks(10_000)), axis=1)


@pytest.mark.parametrize("stream", range(5))
def test_samples_are_the_integers_of_ffmpeg(stem_file: Path, stream: int) -> None:
    wave = read(stem_file, stream)
    expected = decoded_by_libav(stem_file, stream)
    assert wave.dtype == np.float32
    assert np.array_equal(wave * 32768, expected)
    assert (np.abs(expected).max() >= 32767) == (stream == STREAMS["drums"])


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs the ffmpeg command")
def test_samples_are_those_of_the_ffmpeg_command(stem_file: Path) -> None:
    command = ["ffmpeg", "-v", "error", "-i", str(stem_file), "-map", "0:a:4", "-f", "s16le", "-"]
    raw = subprocess.run(command, capture_output=True, check=True).stdout
    expected = np.frombuffer(raw, "<i2").reshape(-1, 2).T
    wave = read(stem_file, 4) * 32768
    kept = min(wave.shape[1], expected.shape[1])
    assert abs(wave.shape[1] - expected.shape[1]) < 1024  # newer versions cut the last frame to the edit list
    assert np.abs(wave[:, :kept] - expected[:, :kept]).max() <= 1.0


def test_the_priming_is_cut_off_where_the_edit_list_says_so(tmp_path: Path) -> None:
    wave = sound(LENGTH)
    with_list = write_stem_mp4(tmp_path / "a.stem.mp4", [wave] * 5)
    without = write_stem_mp4(tmp_path / "b.stem.mp4", [wave] * 5, with_edit_list=False)
    assert lag(wave, read(with_list, 2)) == 0
    assert lag(wave, read(without, 2)) == 1024


@pytest.mark.parametrize("start", [0, 1, 700, 1024, 8191, 8192, 8193, 40_000, LENGTH - 500, LENGTH + 5000])
def test_parts_equal_the_whole(stem_file: Path, start: int) -> None:
    whole = read(stem_file, 3)
    part = StemStreamReader(stem_file, 3).read(start, 3000)
    assert np.array_equal(part, whole[:, start : start + 3000])


def test_tracks_are_measured_and_read_in_parts(stem_file: Path) -> None:
    (track,) = index_tracks(stem_file.parents[1], layout="musdb18")
    assert (track.name, track.folder, list(track.stems)) == ("A - B", stem_file, list(SOURCES))
    whole = read(stem_file, STREAMS["vocals"])
    vocals = track.stems["vocals"]
    assert vocals.length_samples == whole.shape[1]
    part = read_stem(vocals, 1.0, 5000, RATE_HZ)
    assert np.array_equal(part, whole[:, RATE_HZ : RATE_HZ + 5000])
    tail = read_stem(vocals, vocals.length_s - 100 / RATE_HZ, 5000, RATE_HZ)
    assert np.array_equal(tail[:, :100], whole[:, -100:])
    assert np.abs(tail[:, 100:]).max() == 0.0
    assert read_stem(vocals, 0.5, 1000, RATE_HZ // 2, speed=1.1, channels=1).shape == (1, 1000)


def test_whole_tracks_hold_the_streams_in_the_order_of_the_sources(stem_file: Path) -> None:
    (files,) = find_tracks(stem_file.parents[1], "musdb18", "train")
    stems = load_layout_track(files, ("vocals", "drums"))
    assert np.array_equal(stems[0].numpy(), read(stem_file, 4))
    assert np.array_equal(stems[1].numpy(), read(stem_file, 1))
    mixture = load_mixture(files)
    assert mixture is not None
    assert np.array_equal(mixture.numpy(), read(stem_file, 0))


def test_unusable_stem_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.stem\.mp4 does not exist"):
        StemStreamReader(tmp_path / "gone.stem.mp4", 0)
    (tmp_path / "text.stem.mp4").write_text("no audio" * 100)
    with pytest.raises(InputError, match=r"text\.stem\.mp4 cannot be decoded \(not a stem file, or damaged\)"):
        StemStreamReader(tmp_path / "text.stem.mp4", 0)
    two = write_stem_mp4(tmp_path / "two.stem.mp4", [noise(5000)] * 2)
    with pytest.raises(InputError, match=r"two\.stem\.mp4 has 2 audio streams; a stem file has 5: mixture, drums"):
        StemStreamReader(two, 4)


def test_a_cut_stem_file_is_named(tmp_path: Path) -> None:
    whole = write_stem_mp4(tmp_path / "a.stem.mp4", [sound(LENGTH, seed=seed) for seed in range(5)])
    with pytest.raises(InputError, match=r"cut_a\.stem\.mp4 cannot be decoded"):
        read(cut(whole, 0.6), 1)
    # With the table of contents in front, the file opens and its end is missing.
    in_front = {"movflags": "faststart"}
    with av.open(str(whole)) as source, av.open(str(tmp_path / "b.stem.mp4"), "w", options=in_front) as f:
        streams = {stream.index: f.add_stream_from_template(stream) for stream in source.streams.audio}
        for packet in source.demux():
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                f.mux(packet)
    short = cut(tmp_path / "b.stem.mp4", 0.6)
    with pytest.raises(InputError, match=r"cut_b\.stem\.mp4 (ends early: .* s could be read|cannot be decoded)"):
        read_whole(Part(short, 1))


def musdb_hq(root: Path, train: list[str], test: list[str]) -> Path:
    for name in train:
        write_track(root / "train" / name, SOURCES, with_mixture=True)
    for name in test:
        write_track(root / "test" / name, SOURCES, with_mixture=True)
    return root


def test_there_are_14_validation_tracks() -> None:
    assert len(VALIDATION_TRACKS) == 14


def test_splits_of_the_folders(tmp_path: Path) -> None:
    root = musdb_hq(tmp_path, ["ANiMAL - Rockshow", "B - b", "A - a", ".hidden"], ["Z - z"])

    def names(split: str) -> list[str]:
        return [track.name for track in find_tracks(root, "musdb18hq", split)]

    assert names("all") == ["A - a", "ANiMAL - Rockshow", "B - b", "Z - z"]
    assert names("train") == ["A - a", "B - b"]
    assert names("valid") == ["ANiMAL - Rockshow"]
    assert names("test") == ["Z - z"]
    (track,) = index_tracks(root, ("vocals", "drums"), "musdb18hq", "test")
    assert {source: stem.path.name for source, stem in track.stems.items()} == {
        "vocals": "vocals.wav",
        "drums": "drums.wav",
    }


def test_a_file_that_musdb_must_have_is_named(tmp_path: Path) -> None:
    root = musdb_hq(tmp_path, ["A - a"], [])
    (root / "train" / "A - a" / "bass.wav").unlink()
    message = r"train/A - a/bass\.wav' is missing from the track 'A - a'; restore it or take the track away"
    with pytest.raises(InputError, match=message):
        index_tracks(root, layout="musdb18hq")
    with pytest.raises(InputError, match=message):
        load_layout_track(find_tracks(root, "musdb18hq")[0])
    assert len(index_tracks(root, ("vocals",), "musdb18hq")) == 1


def test_an_empty_split_is_told(tmp_path: Path) -> None:
    root = musdb_hq(tmp_path, ["A - a"], [])
    with pytest.raises(
        InputError, match=r"no tracks of the split 'valid' of layout 'musdb18hq' in .* it wants ROOT/tr"
    ):
        find_tracks(root, "musdb18hq", "valid")
    write_wave(tmp_path / "other" / "x" / "drums.wav", noise(100))
    with pytest.raises(InputError, match=r"no tracks of layout 'musdb18' in '.*other'; it looks like layout 'stems'"):
        find_tracks(tmp_path / "other", "musdb18")
