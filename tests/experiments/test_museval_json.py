"""museval's file format, and museval's own reader on it."""

from __future__ import annotations

import importlib.util
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from unittest import mock

import numpy as np
import pytest

from polyres.core.errors import OutputError
from polyres.experiments.museval_json import track_scores, write_track

SCORES = {"SDR": [[1.234567, math.nan], [math.inf, -2.0]], "ISR": [[0.0, 1.0], [2.0, 3.0]]}


def test_frames_by_target_as_museval_has_them() -> None:
    found = track_scores(SCORES, ("drums", "bass"))
    assert [target["name"] for target in found["targets"]] == ["drums", "bass"]
    first, second = found["targets"][0]["frames"]
    assert first == {"time": 0.0, "duration": 1.0, "metrics": {"SDR": 1.23457, "ISR": 0.0}}
    assert (second["time"], second["metrics"]["ISR"]) == (1.0, 1.0)
    assert math.isnan(second["metrics"]["SDR"])
    assert math.isnan(found["targets"][1]["frames"][0]["metrics"]["SDR"])


def test_written_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "a" / "song.json"
    write_track(path, track_scores(SCORES, ("drums", "bass")))
    np.testing.assert_equal(json.loads(path.read_text()), track_scores(SCORES, ("drums", "bass")))
    assert [child.name for child in path.parent.iterdir()] == ["song.json"]


def test_an_unwritable_folder_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a file")
    with pytest.raises(OutputError, match=r"cannot write '.*song.json'.*choose another folder"):
        write_track(tmp_path / "a" / "song.json", {})


def museval_aggregate() -> ModuleType:
    """Load `museval/aggregate.py` alone: the package itself asks for an ffmpeg program on import."""
    spec = importlib.util.find_spec("museval")
    assert spec is not None
    assert spec.origin is not None
    package, version = ModuleType("museval"), ModuleType("museval.version")
    package.__path__ = [str(Path(spec.origin).parent)]
    version._version = "0.4.1"  # type: ignore[attr-defined]
    inner = importlib.util.spec_from_file_location("museval.aggregate", Path(spec.origin).parent / "aggregate.py")
    assert inner is not None
    assert inner.loader is not None
    module = importlib.util.module_from_spec(inner)
    for library in ("jsonschema", "pandas", "simplejson"):  # else they would go with the names below
        importlib.import_module(library)
    with mock.patch.dict(sys.modules, {"museval": package, "museval.version": version}):
        inner.loader.exec_module(module)
    return module


def test_musevals_own_reader_finds_the_same_medians(tmp_path: Path) -> None:
    museval = museval_aggregate()
    schema = Path(museval.__file__ or "").with_name("musdb.schema.json")
    rng = np.random.default_rng(0)
    medians: dict[tuple[str, str], list[float]] = {}
    for track in ("one", "two", "three"):
        scores = {name: rng.normal(5, 3, (2, 9)) for name in ("SDR", "ISR", "SIR", "SAR")}
        for values in scores.values():
            values[:, rng.integers(9, size=3)] = math.nan
        scores["SIR"][0, 0] = math.inf
        written = track_scores({name: values.tolist() for name, values in scores.items()}, ("drums", "vocals"))
        museval.validate(written, json.loads(schema.read_text()))
        write_track(tmp_path / "model" / "test" / f"{track}.json", written)
        for name, values in scores.items():
            for source, frames in zip(("drums", "vocals"), values, strict=True):
                medians.setdefault((source, name), []).append(float(np.median(frames[np.isfinite(frames)])))
    store = museval.EvalStore(frames_agg="median", tracks_agg="median")
    store.add_eval_dir(str(tmp_path / "model"))
    found = store.agg_frames_tracks_scores()
    assert len(found) == 8
    for (source, name), values in medians.items():
        assert found[source, name] == pytest.approx(np.median(values), abs=2e-5)
