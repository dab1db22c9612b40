from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from polyres.audio.track_files import SOURCES
from polyres.core.errors import InputError
from polyres.datasets.collections import source_of
from polyres.datasets.layouts import find_tracks
from polyres.datasets.tracks import index_tracks, load_layout_track, load_mixture, read_stem
from tests.datasets.stem_folders import RATE_HZ, noise, write_moises_track, write_slakh_track, write_wave

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
