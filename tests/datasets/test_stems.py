from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
from torch.utils.data import DataLoader

from polyres.core.errors import ConfigError, InputError
from polyres.datasets.stems import DATASETS, StemsConfig, StemsDataset, TracksConfig, TracksDataset
from tests.datasets.stem_folders import noise, write_track, write_wave

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
