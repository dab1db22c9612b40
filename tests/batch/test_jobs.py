"""Folders named after tracks and models."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.batch.jobs import MAX_FOLDER_BYTES, folder_name
from polyres.separation.registry import model_label


@pytest.mark.parametrize("name", ["..", ".", "...", "", "a/b", "x" * 400, "日本語の歌" * 40])
def test_every_text_becomes_one_folder(tmp_path: Path, name: str) -> None:
    folder = tmp_path / folder_name(name)
    folder.mkdir()
    assert folder.resolve().parent == tmp_path.resolve()
    assert len(folder.name.encode()) <= MAX_FOLDER_BYTES


def test_a_model_is_labelled_by_its_name_or_file(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").touch()
    assert model_label("htdemucs_ft") == "htdemucs_ft"
    assert model_label(str(tmp_path / "other.safetensors")) == "other"
    assert model_label(str(tmp_path)) == folder_name(tmp_path.name)
    run = tmp_path / "run7"
    run.mkdir()
    (run / "best.safetensors").touch()
    assert model_label(str(run / "best.safetensors")) == "run7"
    (tmp_path / "linked").symlink_to(run)
    assert model_label(str(tmp_path / "linked" / "")) == "linked"
    for arm in ("base", "nn"):
        (tmp_path / arm / "seed42").mkdir(parents=True)
        (tmp_path / arm / "seed42" / "best.safetensors").touch()
        assert model_label(str(tmp_path / arm / "seed42")) == f"{arm}-seed42"
        assert model_label(str(tmp_path / arm / "seed42" / "best.safetensors")) == f"{arm}-seed42"
    assert model_label("default") == "polyres-small"
    assert model_label("someone/model") == "someone_model"
