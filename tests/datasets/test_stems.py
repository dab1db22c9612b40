from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from polyres.audio.writer import AudioWriter, WriteSpec
from polyres.core.errors import ConfigError, InputError
from polyres.datasets.stems import DATASETS, SegmentSampler, StemsConfig, StemsDataset, TracksConfig, TracksDataset
from tests.datasets.stem_folders import noise, write_moises_track, write_track, write_wave

RATE_HZ = 1000
SOURCES = ("drums", "vocals")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("songs")
    rng = np.random.default_rng(0)
    for name, seconds in (("a", 4), ("b", 6)):
        (base / name).mkdir()
        for source in SOURCES:
            wave = 0.1 * rng.standard_normal((seconds * RATE_HZ, 2))
            soundfile.write(base / name / f"{source}.wav", wave, RATE_HZ)
    return base


def stems_config(root: Path) -> StemsConfig:
    values = {"sources": SOURCES, "sample_rate_hz": RATE_HZ, "segment_samples": 1500, "items_per_epoch": 6}
    return StemsConfig.from_dict({"roots": [{"path": str(root)}], **values})


def test_the_catalogue_builds_both_kinds(root: Path) -> None:
    assert DATASETS.names() == ["stems", "tracks"]
    assert isinstance(DATASETS.build("stems", stems_config(root)), StemsDataset)
    assert isinstance(DATASETS.build("tracks", TracksConfig(roots=(str(root),))), TracksDataset)


def test_epochs_differ_and_come_back(root: Path) -> None:
    dataset = StemsDataset(stems_config(root))
    assert len(dataset) == 6
    item = dataset[2]
    assert item.shape == (2, 2, 1500)
    assert item.dtype == torch.float32
    dataset.set_epoch(1)
    assert not torch.equal(dataset[2], item)
    dataset.set_epoch(0)
    assert torch.equal(dataset[2], item)


def test_an_index_past_the_end_belongs_to_the_next_epoch(root: Path) -> None:
    dataset = StemsDataset(stems_config(root))
    past = dataset[8]
    dataset.set_epoch(1)
    assert torch.equal(past, dataset[2])


def test_copies_and_loaders_give_the_same_items(root: Path) -> None:
    dataset = StemsDataset(stems_config(root))
    expected = torch.stack([dataset[index] for index in range(6)])
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[0], expected[0])
    loaded = torch.cat(list(DataLoader(dataset, batch_size=4, num_workers=0)))
    assert torch.equal(loaded, expected)


def test_the_config_survives_a_round_trip(root: Path) -> None:
    config = stems_config(root)
    assert StemsConfig.from_dict(config.to_dict()) == config


def test_whole_tracks_come_in_order_and_can_be_cut(root: Path) -> None:
    config = TracksConfig(roots=(str(root),), sources=SOURCES, sample_rate_hz=RATE_HZ)
    dataset = TracksDataset(config)
    assert dataset.names == ["a", "b"]
    assert len(dataset) == 2
    assert dataset[1].shape == (2, 2, 6 * RATE_HZ)
    stored, _ = soundfile.read(root / "b" / "vocals.wav", dtype="float32")
    assert torch.equal(dataset[1][1], torch.from_numpy(stored.T))
    short = TracksDataset(config.with_values({"max_length_s": 1.5}))
    assert torch.equal(short[1], dataset[1][..., :1500])


def test_no_tracks_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"roots = \[\] is not allowed; name at least one folder"):
        TracksDataset(TracksConfig(roots=()))
    with pytest.raises(InputError, match=r"no tracks in '.*'; each track is a folder with some of drums\.wav"):
        TracksDataset(TracksConfig(roots=(str(tmp_path),)))
    with pytest.raises(InputError, match="no folder"):
        TracksDataset(TracksConfig(roots=(str(tmp_path / "nowhere"),)))


def test_whole_tracks_of_a_layout_and_split(tmp_path: Path) -> None:
    for place in ("train/A - a", "train/James May - On The Line", "test/Z - z"):
        write_track(tmp_path / place, ("drums", "bass", "other", "vocals"), 4000, with_mixture=True)
    config = TracksConfig(roots=(str(tmp_path),), layout="musdb18hq", split="valid", max_length_s=0.05)
    dataset = TracksDataset(config)
    assert dataset.names == ["James May - On The Line"]
    mixture = dataset.mixture(0)
    assert mixture is not None
    assert mixture.shape == (2, 2205)
    assert torch.allclose(dataset[0].sum(dim=0), mixture, atol=1e-6)
    assert TracksDataset(config.with_values({"split": "test"})).names == ["Z - z"]
    with pytest.raises(ConfigError, match="layout 'stems' has no split 'valid'"):
        config.with_values({"layout": "stems"})


def test_padding_is_told_once_per_track(tmp_path: Path) -> None:
    write_track(tmp_path / "a", ("drums",), 4000)
    write_wave(tmp_path / "a" / "bass.wav", noise(3000))
    dataset = TracksDataset(TracksConfig(roots=(str(tmp_path),)))
    for _ in range(2):
        assert dataset[0].shape == (4, 2, 4000)
    assert len(dataset.warnings) == 1
    assert dataset.mixture(0) is None
    values = {"segment_samples": 1500, "items_per_epoch": 6, "sources": ["drums", "bass"]}
    assert (
        StemsDataset(StemsConfig.from_dict({"roots": [{"path": str(tmp_path)}], **values})).warnings == dataset.warnings
    )


SECONDS = 20


def write_tracks(root: Path, stems: dict[str, list[str]]) -> Path:
    """Tracks of coloured noise; every stem has its own amplitude so that its origin can be told."""
    rng = np.random.default_rng(0)
    for name, sources in stems.items():
        for source in sources:
            (root / name).mkdir(parents=True, exist_ok=True)
            wave = 0.1 * rng.standard_normal((SECONDS * RATE_HZ, 2)).astype(np.float32)
            soundfile.write(root / name / f"{source}.wav", wave, RATE_HZ, subtype="FLOAT")
    return root


def config(*roots: Any, **values: Any) -> StemsConfig:
    plain = {"sample_rate_hz": RATE_HZ, "segment_samples": 2 * RATE_HZ, "silence_probability": 0.0, **values}
    return StemsConfig.from_dict({"roots": [r if isinstance(r, dict) else {"path": str(r)} for r in roots], **plain})


ALL = ["drums", "bass", "other", "vocals"]


@pytest.fixture(scope="module")
def two_roots(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    base = tmp_path_factory.mktemp("roots")
    whole = write_tracks(base / "whole", {"a": ALL, "b": ["drums", "vocals"]})
    return whole, write_tracks(base / "singer", {"s1": ["vocals"], "s2": ["vocals"]})


def plans(settings: StemsConfig, count: int = 300) -> list[dict[str, Any]]:
    sampler = SegmentSampler(settings)
    return [sampler.plan(np.random.default_rng(index)) for index in range(count)]


def test_items_depend_on_seed_epoch_and_index_alone(two_roots: tuple[Path, Path]) -> None:
    first, again = SegmentSampler(config(*two_roots)), SegmentSampler(config(*two_roots))
    item = first.draw(1, 2)
    again.draw(0, 0)
    assert np.array_equal(item, again.draw(1, 2))
    assert item.shape == (4, 2, 2 * RATE_HZ)
    assert item.dtype == np.float32
    assert np.isfinite(item).all()
    others = [first.draw(1, 3), first.draw(2, 2), SegmentSampler(config(*two_roots, seed=1)).draw(1, 2)]
    assert not any(np.array_equal(item, other) for other in others)


def test_coherent_items_come_from_one_place_of_one_track(two_roots: tuple[Path, Path]) -> None:
    whole, _ = two_roots
    for plan in plans(config(whole, coherent_probability=1.0), 50):
        folder = plan["drums"].stem.path.parent
        assert plan["vocals"].stem.path.parent == folder
        assert plan["vocals"].start_s == plan["drums"].start_s
        assert plan["vocals"].speed == plan["drums"].speed
        if folder.name == "b":  # lacks bass, which then comes from elsewhere
            assert plan["bass"].stem.path.parent.name == "a"
        else:
            assert plan["bass"].start_s == plan["drums"].start_s


def test_independent_items_mix_tracks_and_times(two_roots: tuple[Path, Path]) -> None:
    drawn = plans(config(two_roots[0], coherent_probability=0.0))
    assert any(p["drums"].stem.path.parent != p["vocals"].stem.path.parent for p in drawn)
    assert all(p["drums"].start_s != p["vocals"].start_s for p in drawn)


def test_roots_are_drawn_by_the_weight_of_the_source(two_roots: tuple[Path, Path]) -> None:
    whole, singer = two_roots
    settings = config(
        {"path": str(whole), "weight": 1.0, "source_weights": {"vocals": 1.0}},
        {"path": str(singer), "weight": 0.0, "source_weights": {"vocals": 3.0}},
        coherent_probability=0.0,
    )
    share = np.mean([plan["vocals"].stem.path.parent.parent == singer for plan in plans(settings, 600)])
    assert share == pytest.approx(0.75, abs=0.06)


def test_one_root_per_item_is_kept_where_it_has_the_source(two_roots: tuple[Path, Path]) -> None:
    whole, singer = two_roots
    drawn = plans(config(whole, singer, coherent_probability=0.0, draw_roots_per="item"))
    from_singer = [plan["vocals"].stem.path.parent.parent == singer for plan in drawn]
    assert np.mean(from_singer) == pytest.approx(0.5, abs=0.1)
    assert all(plan["bass"].stem.path.parent.parent == whole for plan in drawn)


def test_sources_are_silent_as_often_as_asked(two_roots: tuple[Path, Path]) -> None:
    drawn = plans(config(two_roots[0], silence_probability=0.2), 500)
    share = np.mean([[plan[source].stem is None for source in ALL] for plan in drawn])
    assert share == pytest.approx(0.2, abs=0.03)
    settings = config(two_roots[0], silence_probability=1.0)
    assert np.abs(SegmentSampler(settings).draw(0, 0)).max() == 0.0


def test_levels_follow_the_prior(two_roots: tuple[Path, Path]) -> None:
    levels = {"drums": {"mean_db": -20, "spread_db": 0}, "vocals": {"mean_db": -30, "spread_db": 2}}
    draws = {"coherent_probability": 0.5, "balanced_probability": 0.0, "speed_probability": 0.0}
    settings = config(two_roots[0], sources=["drums", "vocals"], levels=levels, **draws)
    sampler = SegmentSampler(settings)
    items = np.stack([sampler.draw(0, index) for index in range(200)])
    level_db = 10 * np.log10((items**2).mean(axis=(2, 3)))
    assert level_db[:, 0] == pytest.approx(np.full(200, -20.0), abs=0.6)
    assert level_db[:, 1].mean() == pytest.approx(-30.0, abs=0.5)
    assert level_db[:, 1].std() == pytest.approx(2.0, abs=0.5)


def test_levels_stay_when_they_are_not_normalised(two_roots: tuple[Path, Path]) -> None:
    settings = config(two_roots[0], normalise_levels=False, speed_probability=0.0)
    item = SegmentSampler(settings).draw(0, 0)
    assert 10 * np.log10((item**2).mean(axis=(1, 2))) == pytest.approx(np.full(4, -20.0), abs=0.3)


def test_balanced_items_keep_the_balance_of_their_track(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for source, amplitude in (("drums", 0.2), ("vocals", 0.02)):
        (tmp_path / "a").mkdir(exist_ok=True)
        wave = amplitude * rng.standard_normal(SECONDS * RATE_HZ).astype(np.float32)
        soundfile.write(tmp_path / "a" / f"{source}.wav", wave, RATE_HZ, subtype="FLOAT")
    settings = config(
        tmp_path,
        sources=["drums", "vocals"],
        coherent_probability=1.0,
        balanced_probability=1.0,
        balanced_level={"mean_db": -16, "spread_db": 0},
    )
    item = SegmentSampler(settings).draw(0, 0)
    level_db = 10 * np.log10((item**2).mean(axis=(1, 2)))
    assert level_db[0] - level_db[1] == pytest.approx(20.0, abs=0.5)
    assert level_db[0] == pytest.approx(-16.0, abs=0.5)


def test_segments_are_active_when_asked_and_anywhere_else(tmp_path: Path) -> None:
    wave = np.zeros(100 * RATE_HZ, np.float32)
    wave[60 * RATE_HZ : 66 * RATE_HZ] = 0.1
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "drums.wav", wave, RATE_HZ, subtype="FLOAT")
    asked = plans(config(tmp_path, sources=["drums"], active_probability=1.0, speed_probability=0.0))
    assert all(58.4 <= plan["drums"].start_s <= 65.6 for plan in asked)
    free = plans(config(tmp_path, sources=["drums"], active_probability=0.0, speed_probability=0.0))
    starts_s = np.array([plan["drums"].start_s for plan in free])
    assert starts_s.min() < 10.0
    assert starts_s.max() > 90.0
    assert starts_s.max() <= 98.0


def test_tracks_shorter_than_a_segment_are_padded(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    soundfile.write(tmp_path / "a" / "drums.wav", np.full(500, 0.1), RATE_HZ, subtype="FLOAT")
    item = SegmentSampler(config(tmp_path, sources=["drums"], speed_probability=0.0)).draw(0, 0)
    assert np.abs(item[..., :500]).min() > 0.0
    assert np.abs(item[..., 500:]).max() == 0.0


def test_silent_files_are_never_drawn(tmp_path: Path) -> None:
    write_tracks(tmp_path, {"a": ["drums"]})
    (tmp_path / "b").mkdir()
    soundfile.write(tmp_path / "b" / "drums.wav", np.zeros(5000), RATE_HZ)
    drawn = plans(config(tmp_path, sources=["drums"]), 50)
    assert {plan["drums"].stem.path.parent.name for plan in drawn} == {"a"}


def test_a_stem_that_is_silent_in_every_track_is_present_and_silent(tmp_path: Path) -> None:
    write_tracks(tmp_path, {"a": ["drums", "bass"], "b": ["drums", "bass"]})
    for name in ("a", "b"):
        soundfile.write(tmp_path / name / "other.wav", np.zeros((SECONDS * RATE_HZ, 2)), RATE_HZ)
    settings = config(tmp_path, sources=["drums", "bass", "other"], coherent_probability=0.5)
    assert all(plan["other"].stem is None for plan in plans(settings, 40))
    sampler = SegmentSampler(settings)
    assert sampler.warnings == ["source 'other' is silent in every track, so silence is all to learn"]
    item = sampler.draw(0, 0)
    assert item[:2].any(axis=(1, 2)).all()
    assert not item[2].any()
    with pytest.raises(ConfigError, match="no track has the source 'vocals'"):
        SegmentSampler(config(tmp_path, sources=["drums", "vocals"]))
    with pytest.raises(ConfigError, match=r"^every stem of every track is silent; add a root with sound$"):
        SegmentSampler(config(tmp_path, sources=["other"]))


def test_speeds_stay_in_their_range(two_roots: tuple[Path, Path]) -> None:
    settings = config(two_roots[0], speed_probability=0.5, speed_range=(0.9, 1.2), coherent_probability=0.0)
    speeds = np.array([plan[source].speed for plan in plans(settings) for source in ALL])
    assert np.mean(speeds != 1.0) == pytest.approx(0.5, abs=0.06)
    assert speeds.min() >= 0.9
    assert speeds.max() <= 1.2


def test_unusable_configs_are_told(two_roots: tuple[Path, Path]) -> None:
    with pytest.raises(ConfigError, match=r"roots = \[\] is not allowed; name at least one folder"):
        SegmentSampler(config())
    with pytest.raises(ConfigError, match=r"no track has the source 'drums'; add a root with drums or drop the source"):
        SegmentSampler(config(two_roots[1]))
    with pytest.raises(ConfigError, match=r"roots\.0\.weigth"):
        config({"path": "x", "weigth": 1.0})


def test_old_recipes_give_the_items_they_always_gave(tmp_path: Path) -> None:
    """Plans and samples of a fixed seed, written down when folders of stems were the only layout."""
    rng = np.random.default_rng(7)
    waves = {}
    for name, length in (("a", 12_000), ("b", 15_000), ("c", 12_777)):
        for source in ALL:
            if (name, source) != ("b", "bass"):
                wave = rng.integers(-9000, 9000, (length, 2)).astype(np.int16)
                wave[4000:7000] //= 64
                (tmp_path / name).mkdir(exist_ok=True)
                soundfile.write(tmp_path / name / f"{source}.wav", wave, RATE_HZ, subtype="PCM_16")
                waves[name, source] = np.pad(wave.T / np.float32(32768), ((0, 0), (0, 9999)))
    old = {"segment_samples": 2500, "items_per_epoch": 6, "seed": 3, "silence_probability": 0.05}
    second = SegmentSampler(config(tmp_path, **old)).plan(np.random.default_rng([3, 0, 2]))
    names = {"drums": "a", "bass": "c", "other": "c", "vocals": "a"}
    assert {source: draw.stem.path.parent.name for source, draw in second.items()} == names
    numbers = [(draw.start_s, draw.speed, draw.gain_db) for draw in second.values()]
    expected = [(8.34727, 1.0, -10.145189), (2.834624, 0.975018, -9.015882), (5.621353, 1.0, 2.422249)]
    assert np.array(numbers) == pytest.approx(np.array([*expected, (0.200004, 0.980227, -4.827688)]), abs=1e-6)
    plain = SegmentSampler(config(tmp_path, **old, speed_probability=0.0))
    for index in range(6):
        plan, item = plain.plan(np.random.default_rng([3, 1, index])), plain.draw(1, index)
        for position, source in enumerate(ALL):
            draw = plan[source]
            if draw.stem is None:
                assert not item[position].any()
                continue
            start = round(draw.start_s * RATE_HZ)
            wave = waves[draw.stem.path.parent.name, source][:, start : start + 2500]
            assert np.array_equal(item[position], wave * np.float32(10.0 ** (draw.gain_db / 20.0)))


def test_coherent_items_go_on_in_silence_where_a_stem_ends(tmp_path: Path) -> None:
    for source, seconds in (("drums", 20), ("bass", 3)):
        (tmp_path / "a").mkdir(exist_ok=True)
        spec = WriteSpec(sample_rate_hz=44_100, channels=2, format="m4a")
        with AudioWriter(tmp_path / "a" / f"{source}.m4a", spec) as writer:
            writer.write(noise(seconds * 44_100))
    values = {
        "sample_rate_hz": 44_100,
        "segment_samples": 44_100,
        "coherent_probability": 1.0,
        "speed_probability": 0.0,
    }
    sampler = SegmentSampler(config(tmp_path, sources=["drums", "bass"], active_probability=0.0, **values))
    items = np.stack([sampler.draw(0, index) for index in range(8)])
    silent = [not item[1].any() for item in items]
    assert any(silent)
    assert not all(silent)
    assert len(sampler.warnings) == 1
    assert "bass.m4a (bass) by 17.0" in sampler.warnings[0]


def test_segments_come_from_the_layout_and_split_of_the_root(tmp_path: Path) -> None:
    for place in ("train/ANiMAL - Rockshow", "train/A - a", "test/Z - z"):
        write_tracks(tmp_path, {place: ALL})
    for split, name in (("train", "A - a"), ("valid", "ANiMAL - Rockshow"), ("test", "Z - z")):
        sampler = SegmentSampler(config({"path": str(tmp_path), "layout": "musdb18hq", "split": split}))
        assert [track.name for track in sampler.tracks[0]] == [name]
        assert sampler.draw(0, 0).shape == (4, 2, 2 * RATE_HZ)


def test_sums_of_files_are_drawn_as_one_stem(tmp_path: Path) -> None:
    write_moises_track(tmp_path / "song", {"drums": ["kick", "snare"]}, length=3 * 44_100)
    values = {"sample_rate_hz": 44_100, "segment_samples": 44_100, "speed_probability": 0.0}
    root = {"path": str(tmp_path), "layout": "moisesdb"}
    sampler = SegmentSampler(config(root, sources=["drums"], **values))
    item = sampler.draw(0, 0)
    draw = sampler.plan(np.random.default_rng([0, 0, 0]))["drums"]
    start = round(draw.start_s * 44_100)
    total = (noise(3 * 44_100, 0) + noise(3 * 44_100, 1))[:, start : start + 44_100]
    assert item[0] == pytest.approx(total * 10 ** (draw.gain_db / 20), abs=1e-6)
