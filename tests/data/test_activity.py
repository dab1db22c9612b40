from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError
from polyres.data import activity
from polyres.data.activity import INDEX_NAME, StemFile, index_files, measure

RATE_HZ = 2000


def write(path: Path, seconds_amplitudes: list[float], rate_hz: int = RATE_HZ) -> Path:
    """A file whose seconds are constant at the given amplitudes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.repeat(seconds_amplitudes, rate_hz).astype(np.float32), rate_hz, subtype="FLOAT")
    return path


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
    file = StemFile(Path("a.wav"), RATE_HZ, len(levels_db) * RATE_HZ, np.array(levels_db))
    if file.active.any():
        assert max(levels_db) - 30.1 <= file.active_level_db <= max(levels_db) + 1e-6
    else:
        assert max(levels_db) <= -60.0
        assert file.active_level_db == -120.0


def test_index_reads_a_file_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "song" / "a.wav", [0.1, 0.1])
    reads = []

    def counting(path: Path) -> StemFile:
        reads.append(path)
        return measure(path)

    monkeypatch.setattr(activity, "measure", counting)
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
    monkeypatch.setattr(activity, "measure", lambda path: pytest.fail("measured again"))
    index_files(root, [path])


def test_unreadable_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("no audio")
    with pytest.raises(InputError, match=r"a\.wav cannot be read as audio"):
        measure(tmp_path / "a.wav")
