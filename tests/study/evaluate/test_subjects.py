"""Songs to score on."""

from __future__ import annotations

from pathlib import Path

import pytest
import soundfile

from polyres.core.errors import ConfigError, InputError
from polyres.study.evaluate.subjects import SongChoices, open_songs
from tests.study.evaluate.test_run import RATE, SOURCES, write_tracks


def test_a_folder_is_read_at_its_own_rate_and_layout(tmp_path: Path) -> None:
    tracks = open_songs(write_tracks(tmp_path / "data"), SongChoices(SOURCES))
    assert tracks.names == ["a", "b"]
    assert (tracks.config.layout, tracks.config.sample_rate_hz) == ("stems", RATE)
    assert tracks[0].shape == (4, 2, 3 * RATE)
    other = open_songs(tmp_path / "data", SongChoices(SOURCES, sample_rate_hz=4000, max_length_s=1.5))
    assert other[0].shape == (4, 2, 6000)


def test_musdb_is_recognised(tmp_path: Path) -> None:
    write_tracks(tmp_path / "musdb" / "test")
    write_tracks(tmp_path / "musdb" / "train")
    for folder in (tmp_path / "musdb").glob("*/*"):
        soundfile.write(folder / "mixture.wav", soundfile.read(folder / "bass.wav")[0], RATE)
    tracks = open_songs(tmp_path / "musdb", SongChoices(SOURCES, split="test"))
    assert tracks.config.layout == "musdb18hq"
    assert len(tracks) == 2


def test_a_file_names_folders(tmp_path: Path) -> None:
    one, two = write_tracks(tmp_path / "one"), write_tracks(tmp_path / "two", names=("c",))
    path = tmp_path / "songs.yaml"
    path.write_text(f"roots: ['{one}', '{two}']\nsample_rate_hz: 4000\nmax_length_s: 1\n")
    tracks = open_songs(path, SongChoices(SOURCES))
    assert tracks.names == ["a", "b", "c"]
    assert tracks[2].shape == (4, 2, 4000)
    assert open_songs(path, SongChoices(SOURCES, max_length_s=2.0))[0].shape == (4, 2, 8000)


def test_a_recipe_names_its_validation_songs(tmp_path: Path) -> None:
    root = write_tracks(tmp_path / "one")
    path = tmp_path / "recipe.yaml"
    path.write_text(f"variant: nn\nvalid: {{roots: ['{root}'], every: 4}}\ndata: {{roots: [elsewhere]}}\n")
    assert open_songs(path, SongChoices(SOURCES)).names == ["a", "b"]


@pytest.mark.parametrize("text", ["valid: {roots: [{make: {tracks: 1}}]}", "layout: stems", "roots: []"])
def test_a_file_without_folders_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "songs.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"songs.yaml names no folders of songs; give roots: \[FOLDER, …\]"):
        open_songs(path, SongChoices(SOURCES))


def test_nothing_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder"):
        open_songs(tmp_path / "gone", SongChoices(SOURCES))
    with pytest.raises(InputError, match="no folder"):
        open_songs(tmp_path / "gone.yaml", SongChoices(SOURCES))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no tracks in"):
        open_songs(tmp_path / "empty", SongChoices(SOURCES))
