from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from polyres.audio.resample import resample
from polyres.audio.track_files import Part, content_stamp
from polyres.core.errors import InputError
from polyres.datasets import stem_files
from polyres.datasets.stem_files import (
    FORMAT,
    INDEX_NAME,
    StemFile,
    StemReader,
    index_stems,
    level_db,
    read_whole,
    refuse_warnings,
    spread_channels,
)
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


RATE_HZ = 2000


def write(path: Path, seconds_amplitudes: list[float], rate_hz: int = RATE_HZ, subtype: str = "FLOAT") -> Path:
    """A file whose seconds are constant at the given amplitudes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(seconds_amplitudes, rate_hz).astype(np.float32), rate_hz, subtype=subtype)
    return path


def measure(path: Path) -> StemFile:
    return stem_files.measure((Part(path),))


def index_files(root: Path, paths: list[Path]) -> dict[Path, StemFile]:
    found = index_stems(root, [(Part(path),) for path in paths])
    return {stem.path: stem for stem in found.values()}


def test_levels_are_the_rms_of_every_second(tmp_path: Path) -> None:
    file = measure(write(tmp_path / "a.wav", [1.0, 0.1, 0.0] + [0.5] * 20))
    assert file.levels_db[:4] == pytest.approx([0.0, -20.0, -120.0, -6.0], abs=0.06)
    assert len(file.levels_db) == 23
    assert (file.length_samples, file.sample_rate_hz, file.length_s) == (23 * RATE_HZ, RATE_HZ, 23.0)


def test_the_last_begun_second_counts(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.full(RATE_HZ + 10, 0.5), RATE_HZ, subtype="FLOAT")
    assert measure(tmp_path / "a.wav").levels_db == pytest.approx([-6.0, -6.0], abs=0.06)


def test_active_level_ignores_quiet_seconds(tmp_path: Path) -> None:
    file = measure(write(tmp_path / "a.wav", [0.1, 0.1, 0.0, 0.002, 0.1, 0.0]))
    assert file.active.tolist() == [True, True, False, False, True, False]
    assert file.active_level_db == pytest.approx(-20.0, abs=0.05)


@given(st.lists(st.floats(-119.0, 0.0), min_size=1, max_size=30))
def test_active_level_lies_between_the_loudest_and_30_db_below(levels_db: list[float]) -> None:
    file = StemFile((Part(Path("a.wav")),), RATE_HZ, len(levels_db) * RATE_HZ, np.array(levels_db))
    if file.active.any():
        assert max(levels_db) - 30.1 <= file.active_level_db <= max(levels_db) + 1e-6
    else:
        assert max(levels_db) <= -60.0
        assert file.active_level_db == -120.0


def count_measurements(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The first file of every stem that is measured from now on."""
    reads: list[Path] = []
    original = stem_files.measure

    def counting(parts: tuple[Part, ...]) -> StemFile:
        reads.append(parts[0].path)
        return original(parts)

    monkeypatch.setattr(stem_files, "measure", counting)
    return reads


def test_index_reads_a_file_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "song" / "a.wav", [0.1, 0.1])
    reads = count_measurements(monkeypatch)
    first = index_files(tmp_path, [path])[path]
    second = index_files(tmp_path, [path])[path]
    assert reads == [path]
    assert second.levels_db.tolist() == first.levels_db.tolist()
    write(path, [0.2, 0.2, 0.2])
    os.utime(path, ns=(1, 1))
    assert len(index_files(tmp_path, [path])[path].levels_db) == 3
    assert len(reads) == 2


def test_index_of_a_part_keeps_what_is_known_of_the_rest(tmp_path: Path) -> None:
    a, b = write(tmp_path / "a.wav", [0.1]), write(tmp_path / "b.wav", [0.1])
    index_files(tmp_path, [a])
    index_files(tmp_path, [b])
    assert set(json.loads((tmp_path / INDEX_NAME).read_text())["files"]) == {"a.wav", "b.wav"}
    assert sorted(p.name for p in tmp_path.iterdir()) == [INDEX_NAME, "a.wav", "b.wav"]


def test_a_broken_index_is_made_anew(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", [0.1])
    (tmp_path / INDEX_NAME).write_text("{")
    assert index_files(tmp_path, [path])[path].active_level_db == pytest.approx(-20.0, abs=0.05)


def test_read_only_roots_are_indexed_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, cache = tmp_path / "root", tmp_path / "cache"
    path = write(root / "a.wav", [0.1])
    (root / INDEX_NAME).mkdir()  # nothing can be written in its place
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    index_files(root, [path])
    assert len(list((cache / "polyres" / "index").glob("*.json"))) == 1
    assert [p.name for p in root.iterdir() if ".part" in p.name] == []
    monkeypatch.setattr(stem_files, "measure", lambda parts: pytest.fail("measured again"))
    index_files(root, [path])


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"a\.wav cannot be read as audio"):
        measure(tmp_path / "a.wav")


def test_a_changed_file_is_measured_again_even_with_its_old_size_and_date(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "a.wav", [0.0] * 10 + [0.1] * 30, subtype="PCM_16")  # whose header is always the same
    date = path.stat()
    index_files(tmp_path, [path])
    reads = count_measurements(monkeypatch)
    for seconds in ([0.0] * 10 + [0.2] * 30, [0.0] * 20 + [0.2] * 20):  # beginnings stay
        write(path, seconds, subtype="PCM_16")
        os.utime(path, ns=(date.st_atime_ns, date.st_mtime_ns))
        assert path.stat().st_size == date.st_size
        assert index_files(tmp_path, [path])[path].levels_db.tolist() == measure(path).levels_db.tolist()
    assert reads.count(path) == 4  # twice by the index, twice by this test


def test_a_copy_with_another_date_is_not_measured_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", [0.1, 0.2])
    stamp = content_stamp(path)
    index_files(tmp_path, [path])
    reads = count_measurements(monkeypatch)
    os.utime(path, ns=(1, 1))
    index_files(tmp_path, [path])
    assert reads == []
    assert content_stamp(path) == stamp


def test_an_index_of_an_older_format_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.wav", [0.1])
    index_files(tmp_path, [path])
    content = json.loads((tmp_path / INDEX_NAME).read_text())
    assert content["format"] == FORMAT == 2
    content["format"] = 1
    (tmp_path / INDEX_NAME).write_text(json.dumps(content))
    reads = count_measurements(monkeypatch)
    index_files(tmp_path, [path])
    assert reads == [path]
    assert json.loads((tmp_path / INDEX_NAME).read_text())["format"] == 2


def test_what_was_measured_before_an_error_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = write(tmp_path / "a.wav", [0.1])
    (tmp_path / "b.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"b\.wav cannot be read as audio"):
        index_files(tmp_path, [good, tmp_path / "b.wav"])
    reads = count_measurements(monkeypatch)
    index_files(tmp_path, [good])
    assert reads == []


def test_a_stem_of_several_files_is_measured_as_their_sum(tmp_path: Path) -> None:
    paths = [write(tmp_path / "a.wav", [0.1, 0.1, 0.0]), write(tmp_path / "b.wav", [0.3, -0.1])]
    parts = tuple(Part(path) for path in paths)
    lines: list[str] = []
    (stem,) = index_stems(tmp_path, [parts], lines.append).values()
    assert lines == ["measuring a.wav|b.wav"]
    assert stem.levels_db == pytest.approx([-8.0, -120.0, -120.0], abs=0.06)
    assert (stem.length_s, stem.part_lengths_s) == (3.0, (3.0, 2.0))
    (again,) = index_stems(tmp_path, [parts], lines.append).values()
    assert len(lines) == 1
    assert (again.parts, again.part_lengths_s, again.loudness_lufs) == (parts, (3.0, 2.0), stem.loudness_lufs)
    assert again.levels_db.tolist() == stem.levels_db.tolist()


def test_loudness_is_kept_with_the_levels(tmp_path: Path) -> None:
    rate_hz = 48_000
    wave = 10 ** (-20 / 20) * np.sin(2 * np.pi * 1000 * np.arange(3 * rate_hz) / rate_hz)
    soundfile.write(tmp_path / "a.wav", np.stack([wave, wave], 1), rate_hz, subtype="FLOAT")
    stem = index_files(tmp_path, [tmp_path / "a.wav"])[tmp_path / "a.wav"]
    assert stem.loudness_lufs == pytest.approx(-20.0, abs=0.1)
    assert stem.levels_db == pytest.approx([-23.0] * 3, abs=0.1)


def test_a_short_file_and_a_missing_file_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", [0.1, 0.1])
    path.write_bytes(path.read_bytes()[:-4000])
    with pytest.raises(InputError, match=r"a\.wav ends early: 1\.50 s of 2\.00 s could be read; copy the file again"):
        measure(path)
    with pytest.raises(InputError, match=r"gone\.wav cannot be opened \(No such file or directory\); restore it"):
        index_files(tmp_path, [tmp_path / "gone.wav"])


def test_the_level_has_a_floor() -> None:
    assert level_db(np.zeros((2, 10), np.float32)) == -120.0
