from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from mutagen.ogg import OggPage

from polyres.audio.encode import GuardedFile, set_ogg_serial
from tests.audio.sound_files import sound


def test_guarded_file_keeps_the_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    guard = GuardedFile(tmp_path / "a")
    assert guard.write(b"abc") == 3
    assert (guard.seek(1), guard.tell(), guard.read(1)) == (1, 1, b"b")
    guard.check()

    class Full:
        calls = 0

        def write(self, _: bytes) -> int:
            self.calls += 1
            raise OSError(28, "No space left on device") if self.calls == 1 else OSError(5, "later")

        def close(self) -> None:
            raise OSError(5, "later")

    guard.file.close()
    guard.file = Full()
    assert guard.write(b"abc") == 3
    assert guard.write(b"abc") == 3
    assert (guard.seek(0), guard.tell()) == (0, 0)
    with pytest.raises(OSError, match="No space left"):
        guard.check()
    with pytest.raises(OSError, match="No space left"):
        guard.end()
    guard.drop()


def test_ogg_serial_is_set_in_every_page_and_the_sound_stays(tmp_path: Path):
    path = tmp_path / "a.ogg"
    soundfile.write(path, sound(100_000).T, 44100)
    before = soundfile.read(path)[0]
    set_ogg_serial(path, 77)
    pages = []
    with path.open("rb") as file:
        while True:
            try:
                pages.append(OggPage(file))
            except EOFError:
                break
    assert len(pages) > 10
    assert {page.serial for page in pages} == {77}
    assert np.array_equal(soundfile.read(path)[0], before)
