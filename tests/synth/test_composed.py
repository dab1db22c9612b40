from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.core.errors import ConfigError, OutputError
from polyres.datasets.tracks import index_tracks, load_track
from polyres.synth import composed
from polyres.synth import composed as miniature
from polyres.synth.composed import ComposedConfig, composed_jobs, make_miniature, make_song
from polyres.synth.instruments.render import SAMPLE_RATE_HZ
from polyres.synth.jobs import Made, run_jobs
from polyres.synth.scores.midi import STEMS

SHORT = ComposedConfig(
    length_s=6.0, tail_s=1.0, styles=("house", "funk"), always=("drums", "bass", "comping", "vocals")
)


def test_songs_have_their_stems_and_stay_below_full_scale() -> None:
    waves, manifest = make_song(SHORT, 0)
    assert list(waves) == list(STEMS)
    for wave in [*waves.values(), sum(waves.values())]:
        assert wave.shape == (2, 6 * SAMPLE_RATE_HZ)
        assert wave.dtype == np.float32
        assert np.abs(wave).max() < 0.999
        assert np.abs(wave[:, -20:]).max() < 0.01  # the end is faded out, not cut
    assert manifest["piece"] == "composed_house"
    assert manifest["players"] == dict.fromkeys(("drums", "bass", "other"), "electronic") | {"vocals": "formant voice"}
    assert 116.0 <= float(str(manifest["tempo_bpm"])) <= 134.0


def test_songs_depend_on_seed_and_number_alone() -> None:
    first, again = (make_song(SHORT, 1)[0] for _ in range(2))
    for other in (make_song(SHORT, 3)[0], make_song(SHORT.with_values({"seed": 1}), 1)[0]):
        assert all(not np.array_equal(first[stem], other[stem]) for stem in ("drums", "bass"))
    assert all(np.array_equal(first[stem], again[stem]) for stem in STEMS)


def test_styles_take_turns_and_unknown_ones_are_told() -> None:
    pieces = [make_song(SHORT.with_values({"length_s": 2.0}), number)[1]["piece"] for number in range(3)]
    assert pieces == ["composed_house", "composed_funk", "composed_house"]
    with pytest.raises(ConfigError, match=r"unknown style 'huose'; did you mean 'house'"):
        ComposedConfig(styles=("huose",))
    with pytest.raises(ConfigError, match=r"instruments is 'both' but there are no banks; name an .sf2 or .sf3 file"):
        ComposedConfig(instruments="both")


def test_effects_can_be_left_out() -> None:
    _, manifest = make_song(SHORT.with_values({"effects": False, "length_s": 2.0}), 0)
    assert manifest["effects"] == {}


def test_banks_play_what_the_synthesisers_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def render(score: object, stem: str, take: object, bank: Path, length_s: float) -> np.ndarray:
        asked.append((stem, bank.name))
        return np.full((2, round(length_s * SAMPLE_RATE_HZ)), 0.1, np.float32)

    monkeypatch.setattr(composed, "render_stem", render)
    monkeypatch.setattr(composed, "read_presets", lambda bank: [])
    config = SHORT.with_values({"length_s": 2.0, "banks": ["one.sf2", "two.sf2"], "instruments": "sampled"})
    _, manifest = make_song(config, 0)
    assert [stem for stem, _ in asked] == ["drums", "bass", "other"]
    assert len({bank for _, bank in asked}) == 1
    assert manifest["players"] == {stem: asked[0][1] for stem, _ in asked} | {"vocals": "formant voice"}
    players = [make_song(config.with_values({"instruments": "both"}), number)[1]["players"] for number in range(6)]
    drums = {str(names["drums"]) for names in players if isinstance(names, dict)}
    assert "electronic" in drums
    assert drums & {"one.sf2", "two.sf2"}


def test_a_singer_takes_the_vocals(tmp_path: Path) -> None:
    time_s = np.arange(SAMPLE_RATE_HZ) / SAMPLE_RATE_HZ
    wave = sum(np.sin(2 * np.pi * 220 * n * time_s) / n for n in range(1, 9))
    (tmp_path / "choir").mkdir()
    soundfile.write(tmp_path / "choir" / "la_A3.wav", 0.2 * wave, SAMPLE_RATE_HZ)
    config = SHORT.with_values({"singer": str(tmp_path / "choir")})
    waves, manifest = make_song(config, 0)
    assert "vocals" in waves
    players = manifest["players"]
    assert isinstance(players, dict)
    assert players["vocals"] == "choir"
    # Moving the folder makes no other song.
    assert config.identity() == config.with_values({"singer": "/elsewhere/choir"}).identity() != SHORT.identity()


def test_making_and_making_more(tmp_path: Path) -> None:
    config = SHORT.with_values({"length_s": 2.0})
    assert [made.name for made in run_jobs(composed_jobs(tmp_path, 1, config))] == ["song_00000"]
    assert [made.skipped for made in run_jobs(composed_jobs(tmp_path, 2, config))] == [True, False]
    parts = [soundfile.read(tmp_path / "song_00001" / f"{stem}.wav", dtype="int16")[0].astype(int) for stem in STEMS]
    assert np.abs(sum(parts)).max() < 32768


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
