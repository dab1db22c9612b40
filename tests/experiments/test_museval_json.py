"""museval's file format."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from polyres.core.errors import OutputError
from polyres.experiments.museval_json import track_scores, write_track

SCORES = {"SDR": [[1.234567, math.nan], [math.inf, -2.0]], "ISR": [[0.0, 1.0], [2.0, 3.0]]}


def test_frames_by_target_as_museval_has_them() -> None:
    found = track_scores(SCORES, ("drums", "bass"))
    assert [target["name"] for target in found["targets"]] == ["drums", "bass"]
    first, second = found["targets"][0]["frames"]
    assert first == {"time": 0.0, "duration": 1.0, "metrics": {"SDR": 1.23457, "ISR": 0.0}}
    assert second == {"time": 1.0, "duration": 1.0, "metrics": {"SDR": None, "ISR": 1.0}}
    assert found["targets"][1]["frames"][0]["metrics"]["SDR"] is None


def test_written_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a" / "song.json"
    write_track(path, track_scores(SCORES, ("drums", "bass")))
    assert json.loads(path.read_text()) == track_scores(SCORES, ("drums", "bass"))
    assert [child.name for child in path.parent.iterdir()] == ["song.json"]


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write '.*song.json'.*choose another --out"):
        write_track(tmp_path / "a" / "song.json", {})
