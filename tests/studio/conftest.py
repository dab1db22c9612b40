"""A browser per file of tests, as the pages of listening tests have it; decoding without a process for each song."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.audio.apart import Room, decode
from tests.browser.conftest import browser

__all__ = ["browser", "decode_here"]


@pytest.fixture(autouse=True)
def decode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spare the tests a process per song; `tests/data/test_apart.py` and tests/studio/test_uploads.py start them."""

    def here(source: Path, target: Path, max_minutes: float, room: Room, max_s: float) -> list[str]:
        return decode(source, target, max_minutes, room)

    monkeypatch.setattr("polyres.studio.songs.decode_apart", here)
