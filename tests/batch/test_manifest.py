"""The record beside the stems."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyres.batch.manifest import (
    MANIFEST_NAME,
    InputId,
    Manifest,
    StemRecord,
    changed_settings,
    manifest_text,
    read_manifest,
)


def test_round_trip(tmp_path: Path) -> None:
    settings = {"model": "m", "shifts": 0, "seed": None, "overlap": 0.25}
    manifest = Manifest(InputId("/a.wav", 3, 4), {"drums.wav": StemRecord("drums", settings, 0.5)})
    text = manifest_text(manifest, {"warnings": ["w"]})
    (tmp_path / MANIFEST_NAME).write_text(text)
    assert read_manifest(tmp_path) == manifest
    assert json.loads(text)["warnings"] == ["w"]


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"files": 3}', '{"files": {"a": 1}}', '{"files": {}, "input": {}}', "\0"]
)
def test_what_cannot_be_understood_counts_as_none(tmp_path: Path, text: str) -> None:
    (tmp_path / MANIFEST_NAME).write_text(text)
    assert read_manifest(tmp_path) is None


def test_no_manifest(tmp_path: Path) -> None:
    assert read_manifest(tmp_path / "nowhere") is None


def test_one_track() -> None:
    song = InputId("/a/song.wav", 10, 20)
    assert song.same_track(InputId("/b/song.wav", 10, 20))
    assert song.same_track(InputId("/a/song.wav", 11, 21))
    assert not song.same_track(InputId("/b/song.wav", 10, 21))
    assert not song.same_track(InputId("/a/song.mp3", 10, 20))


def test_changes_are_named() -> None:
    old = {"shifts": 0, "seed": None, "input_bytes": 3, "input_changed_ns": 4}
    assert changed_settings(old, {**old, "shifts": 2}) == "shifts 0, now 2"
    new = {**old, "seed": 1, "input_bytes": 5, "input_changed_ns": 6}
    assert changed_settings(old, new) == "seed None, now 1; the input file has changed since"
