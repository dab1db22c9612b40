from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.audio.resample import resample
from polyres.audio.track_files import Part
from polyres.core.errors import InputError
from polyres.datasets.stem_files import StemReader, read_whole, refuse_warnings, spread_channels
from tests.datasets.stem_folders import noise, write_wave


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), st.integers(1, 120))
def test_blocks_are_those_of_the_sum(
    tmp_path_factory: pytest.TempPathFactory, lengths: list[int], block_samples: int
) -> None:
    folder = tmp_path_factory.mktemp("parts")
    waves = [noise(length, seed) for seed, length in enumerate(lengths)]
    reader = StemReader([Part(write_wave(folder / f"{i}.wav", wave)) for i, wave in enumerate(waves)])
    blocks = list(reader.blocks(block_samples))
    assert [block.shape[1] for block in blocks[:-1]] == [block_samples] * (len(blocks) - 1)
    expected = np.zeros((2, max(lengths)), np.float32)
    for wave in waves:
        expected[:, : wave.shape[1]] += wave
    assert np.array_equal(np.concatenate(blocks, axis=1), expected)
    assert reader.lengths_samples == lengths


def test_rates_and_channels_are_brought_to_one(tmp_path: Path) -> None:
    stereo, mono = noise(800, 0), noise(1600, 1, channels=1)
    parts = [Part(write_wave(tmp_path / "a.wav", stereo, 8000)), Part(write_wave(tmp_path / "b.wav", mono, 16_000))]
    reader = StemReader(parts)
    assert (reader.sample_rates_hz, reader.sample_rate_hz, reader.channels) == ([8000, 16_000], 8000, 2)
    total = np.concatenate(list(reader.blocks(99)), axis=1)
    assert total == pytest.approx(stereo + resample(mono, 16_000, 8000), abs=1e-6)
    assert reader.lengths_samples == [800, 1600]


def test_channels_are_repeated_or_left_out() -> None:
    wave = np.arange(6, dtype=np.float32).reshape(3, 2)
    assert np.array_equal(spread_channels(wave, 2), wave[:2])
    assert np.array_equal(spread_channels(wave, 4), wave[[0, 1, 2, 2]])


def test_a_whole_file_that_is_short_is_refused(tmp_path: Path) -> None:
    path = write_wave(tmp_path / "a.wav", noise(44_100))
    wave, rate_hz = read_whole(Part(path))
    assert (wave.shape, rate_hz) == ((2, 44_100), 44_100)
    path.write_bytes(path.read_bytes()[:-200_000])
    with pytest.raises(InputError, match=r"a\.wav ends early: .*; copy the file again or take it away"):
        read_whole(Part(path))
    refuse_warnings([])


def test_bad_samples_are_named(tmp_path: Path) -> None:
    wave = noise(100)
    wave[1, 50] = np.nan
    reader = StemReader([Part(write_wave(tmp_path / "a.wav", noise(100))), Part(write_wave(tmp_path / "b.wav", wave))])
    with pytest.raises(InputError, match=r"b\.wav holds a NaN sample at 0\.001 s \(channel 2\)"):
        list(reader.blocks(1000))


def test_parts_with_fewer_channels_repeat_their_last(tmp_path: Path) -> None:
    two, three = noise(50, 0), noise(50, 1, channels=3)
    parts = [Part(write_wave(tmp_path / "a.wav", two)), Part(write_wave(tmp_path / "b.wav", three))]
    (block,) = StemReader(parts).blocks(50)
    assert np.array_equal(block, two[[0, 1, 1]] + three)
