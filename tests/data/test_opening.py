from __future__ import annotations

from pathlib import Path

import pytest

from polyres.data.opening import open_container
from tests.data.sound_files import sound, write_media


def test_open_container_takes_names_that_look_like_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_media(tmp_path / "x.mp3", "libmp3lame", [sound(3000)]).rename(tmp_path / "http:x.mp3")
    monkeypatch.chdir(tmp_path)
    with open_container(Path("http:x.mp3")) as container:
        assert container.format.name == "mp3"
