"""The recipe for a first trial: it needs no data, ends in seconds, and leaves a model that separates."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.separation.weights import load_separator_weights

RECIPE = Path(__file__).resolve().parents[3] / "recipes" / "debug.yaml"


@pytest.mark.slow
def test_the_whole_path_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POLYRES_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    runs = [tmp_path / "first", tmp_path / "second"]
    for run in runs:
        assert main(["train", str(RECIPE), "--out", str(run), "--set", "device=cpu"]) == 0
    assert capfd.readouterr().err.count("making data") == 2  # songs to train and to validate on, once each
    first, second = (load_separator_weights(run / "best.safetensors").state_dict() for run in runs)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    tracks = sorted((tmp_path / "cache" / "made").glob("*/miniature_00"))
    mixture = sum(soundfile.read(path)[0] for path in tracks[0].glob("*.wav"))
    soundfile.write(tmp_path / "song.wav", mixture[: 3 * 44_100], 44_100)
    assert (
        main(["separate", str(tmp_path / "song.wav"), "--model", str(runs[0]), "--out", str(tmp_path / "stems")]) == 0
    )
    assert {path.stem for path in (tmp_path / "stems").rglob("*.wav")} >= {"drums", "bass", "other", "vocals"}
