from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from polyres.audio.track_files import SOURCES, Part, track_folder
from polyres.core.errors import ConfigError, InputError, UnknownNameError
from polyres.datasets.layouts import LAYOUTS, check_split, find_tracks, guess_layout, stems_track
from polyres.datasets.stems import RootConfig
from polyres.datasets.tracks import index_tracks
from polyres.synth.instruments.render import write_track as write_made_track
from tests.datasets.stem_folders import noise, write_moises_track, write_slakh_track, write_stem_mp4, write_track
from tests.synth.modules.module_files import openmpt_is_there, write_module


def test_all_layouts_are_known_and_described() -> None:
    assert set(LAYOUTS.names()) == {"stems", "synthetic", "musdb18hq", "musdb18", "slakh2100", "modules", "moisesdb"}
    assert all(LAYOUTS.summary(name) and LAYOUTS.build(name).wanted for name in LAYOUTS.names())


@pytest.fixture
def roots(tmp_path: Path) -> dict[str, Path]:
    """One data set of every layout."""
    made = {name: tmp_path / name for name in LAYOUTS.names()}
    write_track(made["stems"] / "a", ("drums", "vocals"))
    write_made_track(made["synthetic"] / "a", {"bass": noise(100)}, {"stems": ["bass"]})
    write_track(made["musdb18hq"] / "train" / "a", SOURCES, with_mixture=True)
    write_stem_mp4(made["musdb18"] / "test" / "a.stem.mp4", [noise(3000)] * 5)
    write_slakh_track(made["slakh2100"] / "train" / "Track00001", {"S00": "Piano"})
    write_moises_track(made["moisesdb"] / "a", {"vocals": ["v"]})
    if openmpt_is_there():
        write_module(made["modules"] / "a.mod")
    else:
        del made["modules"]
    return made


def test_the_layout_of_a_folder_is_found_out(roots: dict[str, Path], tmp_path: Path) -> None:
    assert {name: guess_layout(root) for name, root in roots.items()} == {name: name for name in roots}
    (tmp_path / "empty").mkdir()
    assert guess_layout(tmp_path / "empty") is None


def test_every_layout_is_measured(roots: dict[str, Path]) -> None:
    for name, root in roots.items():
        (track,) = index_tracks(root, layout=name)
        assert track.stems
        assert all(stem.length_samples > 0 for stem in track.stems.values())


def test_wrong_layouts_are_told_with_the_right_one(roots: dict[str, Path]) -> None:
    with pytest.raises(
        InputError, match=r"no tracks of layout 'stems' in '.*moisesdb'; it looks like layout 'moisesdb'"
    ):
        find_tracks(roots["moisesdb"])
    with pytest.raises(UnknownNameError, match=r"unknown layout 'musdb18-hq'; did you mean 'musdb18hq'\? known: stems"):
        find_tracks(roots["stems"], "musdb18-hq")
    with pytest.raises(UnknownNameError, match="did you mean 'slakh2100'"):
        RootConfig.from_dict({"path": "x", "layout": "slakh"})


def test_wrong_splits_are_told() -> None:
    message = r"layout 'stems' has no split 'valid'; musdb18hq, musdb18, slakh2100 have; leave the split at 'all' or"
    with pytest.raises(ConfigError, match=message):
        check_split("stems", "valid")
    with pytest.raises(ConfigError, match=r"layout 'moisesdb' has no split 'test'"):
        RootConfig(path="x", layout="moisesdb", split="test")
    with pytest.raises(ConfigError, match=r"split = 'dev' is not allowed; allowed: 'all', 'train', 'valid' or 'test'"):
        RootConfig.from_dict({"path": "x", "layout": "musdb18", "split": "dev"})
    assert RootConfig(path="x") == RootConfig(path="x", layout="stems", split="all")


def test_empty_and_missing_folders_are_told(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no tracks in '.*'; each track is a folder with some of drums\.wav"):
        find_tracks(tmp_path)
    with pytest.raises(InputError, match=r"no tracks of layout 'slakh2100' in .*; it wants ROOT/train/Track00001"):
        find_tracks(tmp_path, "slakh2100")
    with pytest.raises(InputError, match=r"no folder '.*gone'"):
        find_tracks(tmp_path / "gone", "moisesdb")


def test_a_folder_of_stems_may_lack_some_and_bring_a_mixture(tmp_path: Path) -> None:
    write_track(tmp_path, ("bass",), with_mixture=True)
    track = stems_track(tmp_path)
    assert track.stems == {"bass": (Part(tmp_path / "bass.wav"),)}
    assert track.mixture == Part(tmp_path / "mixture.wav")
    assert track.problems == ()


def test_made_songs_need_their_manifest(tmp_path: Path) -> None:
    write_made_track(tmp_path / "a", {"bass": noise(100), "drums": noise(100)}, {"stems": ["drums", "bass"]})
    write_track(tmp_path / "unfinished", SOURCES)
    (track,) = find_tracks(tmp_path, "synthetic")
    assert (track.name, sorted(track.stems)) == ("a", ["bass", "drums"])
    (tmp_path / "a" / "bass.wav").unlink()
    with pytest.raises(InputError, match=r"a/bass\.wav' is missing from the track 'a'; restore it"):
        index_tracks(tmp_path, layout="synthetic")
    assert len(index_tracks(tmp_path, ("drums",), "synthetic")) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [("{", r"manifest\.json' cannot be read as JSON"), (json.dumps([1]), r"manifest\.json' names no stems")],
)
def test_broken_manifests_are_named(tmp_path: Path, text: str, message: str) -> None:
    write_made_track(tmp_path / "a", {"bass": noise(100)}, {"stems": ["bass"]})
    (tmp_path / "a" / "manifest.json").write_text(text)
    with pytest.raises(InputError, match=message):
        index_tracks(tmp_path, layout="synthetic")


def test_results_of_a_track_are_found_with_and_without_parts_of_the_data_set(tmp_path: Path) -> None:
    for name in ("a", "test/b", "train/c", "test/Mr", "Mrs. "):
        (tmp_path / name).mkdir(parents=True)
    wanted = {"a": "a", "b": "test/b", "c": "train/c", "Mr.": "test/Mr", "Mr": "test/Mr", "Mrs": "Mrs. ", "x": "x"}
    found = {track: track_folder(tmp_path, track).relative_to(tmp_path).as_posix() for track in wanted}
    assert found == wanted
    assert track_folder(tmp_path / "gone", "a") == tmp_path / "gone" / "a"


def test_linked_folders_count_once_and_locked_ones_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a", "z/locked"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "drums.wav").touch()
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "self").symlink_to("self")
    assert [track.name for track in find_tracks(tmp_path)] == ["a", "locked"]
    iterdir = Path.iterdir

    def guarded(self: Path) -> Iterator[Path]:
        if self.name == "locked":
            raise PermissionError(13, "Permission denied", str(self))
        return iterdir(self)

    monkeypatch.setattr(Path, "iterdir", guarded)
    good, locked = find_tracks(tmp_path)
    assert (good.name, good.problems) == ("a", ())
    problem = f"{tmp_path / 'z' / 'locked'} cannot be read (Permission denied); check its permissions"
    assert (locked.stems, locked.problems) == ({}, (problem,))
    assert guess_layout(tmp_path) == "stems"
    for layout in ("synthetic", "moisesdb"):
        with pytest.raises(InputError, match=r"locked cannot be read \(Permission denied\)"):
            find_tracks(tmp_path, layout)
