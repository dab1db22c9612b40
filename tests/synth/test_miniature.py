from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.core.errors import ConfigError, OutputError
from polyres.datasets.tracks import index_tracks, load_track
from polyres.synth import miniature
from polyres.synth.jobs import Made
from polyres.synth.miniature import make_miniature
from polyres.synth.scores.midi import STEMS


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Made], float]:
    out, before_s = tmp_path_factory.mktemp("miniature"), time.process_time()
    tracks = make_miniature(out, seed=0, length_s=6.0, splits={"train": 3, "valid": 1})
    return out, tracks, time.process_time() - before_s


def test_four_songs_take_seconds(made: tuple[Path, list[Made], float]) -> None:
    out, tracks, cpu_s = made
    assert cpu_s < 5.0
    folders = sorted(path.relative_to(out).as_posix() for path in out.glob("*/miniature_*"))
    assert folders == ["train/miniature_00", "train/miniature_01", "train/miniature_02", "valid/miniature_03"]
    assert all(one.stems == STEMS and one.length_s == 6.0 for one in tracks)


def test_they_are_tracks_with_four_active_stems(made: tuple[Path, list[Made], float]) -> None:
    for track in index_tracks(made[0] / "train"):
        assert set(track.stems) == set(STEMS)
        assert all(sum(stem.active) >= 2 for stem in track.stems.values())


def test_the_mixture_is_the_sum_of_the_files(made: tuple[Path, list[Made], float]) -> None:
    for folder in made[0].glob("*/miniature_*"):
        parts = [soundfile.read(folder / f"{stem}.wav", dtype="int16")[0].astype(int) for stem in STEMS]
        mixture = np.sum(parts, axis=0)
        assert mixture.shape == (6 * 44_100, 2)
        assert 3000 < np.abs(mixture).max() <= 32_767
        exact = load_track(folder).sum(dim=0).numpy().T * 32_768
        assert np.array_equal(exact, mixture)


def test_the_same_seed_makes_the_same_bytes(made: tuple[Path, list[Made], float], tmp_path: Path) -> None:
    make_miniature(tmp_path, tracks=1)
    for stem in STEMS:
        ours, theirs = (root / "miniature_00" / f"{stem}.wav" for root in (tmp_path, made[0] / "train"))
        assert ours.read_bytes() == theirs.read_bytes()
    with pytest.raises(OutputError, match=r"miniature_00' was made with another seed or other options"):
        make_miniature(tmp_path, seed=1, tracks=1)


def test_songs_that_lack_a_stem_are_composed_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def make_song(config: object, number: int) -> tuple[dict[str, np.ndarray], dict[str, object]]:
        asked.append(number)
        return {stem: np.zeros((2, 9), np.float32) for stem in STEMS[: 2 + len(asked)]}, {}

    monkeypatch.setattr(miniature, "make_song", make_song)
    make_miniature(tmp_path, tracks=1)
    assert asked == [0, 6000]


def test_useless_wishes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"length_s is 1; a miniature needs 2 seconds or more"):
        make_miniature(tmp_path, length_s=1.0)
    for splits in ({}, {"train": 0}):
        with pytest.raises(ConfigError, match="no miniature is asked for; give at least one track"):
            make_miniature(tmp_path, splits=splits)
