from __future__ import annotations

from pathlib import Path

import pytest

from polyres.audio.track_files import load_measured, save_measured


def test_entries_are_kept_beside_the_files_or_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root = tmp_path / "data"
    root.mkdir()
    entries = {"a.wav": {"stamp": "1"}}
    assert load_measured(root, ".polyres_x.json", 3) == {}
    save_measured(root, ".polyres_x.json", 3, entries)
    assert load_measured(root, ".polyres_x.json", 3) == entries
    assert load_measured(root, ".polyres_x.json", 4) == {}
    assert load_measured(root, ".polyres_y.json", 3) == {}
    (root / ".polyres_y.json").mkdir()  # nothing can be written in its place
    save_measured(root, ".polyres_y.json", 1, entries)
    assert load_measured(root, ".polyres_y.json", 1) == entries
    assert len(list((tmp_path / "cache" / "polyres" / "y").iterdir())) == 1
