"""Which files count in folders, and what is told of the others."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from polyres.batch.manifest import MANIFEST_NAME
from polyres.batch.search import AUDIO_ENDINGS, OTHER_ENDINGS, VIDEO_ENDINGS, find_audio
from polyres.core.errors import InputError, PolyresError


def sound(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path.with_suffix(".wav"), np.zeros(800), 8000)
    return path.with_suffix(".wav").rename(path)


def silent_film(path: Path) -> Path:
    with av.open(str(path), "w", format="matroska") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        container.mux(stream.encode(av.VideoFrame(32, 32, "yuv420p")))
        container.mux(stream.encode(None))
    return path


def found(*inputs: Path, out: Path | None = None) -> tuple[dict[str, str], list[str]]:
    """Return name to folders above it, or to what is wrong, and the notes."""
    notes: list[str] = []
    files = list(find_audio(inputs, out, notes.append))
    return {path.name: str(what) if isinstance(what, PolyresError) else "/".join(what) for path, what in files}, notes


def test_endings_are_of_one_kind_only() -> None:
    assert not AUDIO_ENDINGS & OTHER_ENDINGS
    assert not AUDIO_ENDINGS & VIDEO_ENDINGS
    assert not VIDEO_ENDINGS & OTHER_ENDINGS


def test_content_decides_where_the_ending_does_not(tmp_path: Path) -> None:
    for name in ("voice", "take.old", "film.ts", "film.avi", "a.b.xyz"):
        sound(tmp_path / name)
    sound(tmp_path / "cover.txt")  # never opened
    silent_film(tmp_path / "silent.mkv")
    silent_film(tmp_path / "silent.xyz")
    (tmp_path / "code.ts").write_text("export const x = 1;\n")
    (tmp_path / "README").write_text("words")
    (tmp_path / "random.xyz").write_bytes(np.random.default_rng(0).bytes(50_000))
    (tmp_path / "broken.mp3").write_text("words")
    (tmp_path / "broken.eac3").write_bytes(b"")
    files, notes = found(tmp_path)
    # What is called a film or sound and is neither is an error to be told, not left out.
    assert sorted(files) == sorted(
        ["voice", "take.old", "film.ts", "film.avi", "a.b.xyz", "code.ts", "broken.mp3", "broken.eac3"]
    )
    assert notes == [f"{tmp_path}: left out 5 without sound (README, cover.txt, random.xyz, …)"]


def test_links_are_followed_once_and_loops_end(tmp_path: Path) -> None:
    music, elsewhere = tmp_path / "music", tmp_path / "elsewhere"
    sound(music / "z" / "deep" / "own.wav")
    sound(elsewhere / "far.wav")
    (music / "a").symlink_to(music / "z")
    (music / "z" / "up").symlink_to(music)
    (music / "far").symlink_to(elsewhere)
    (music / "above").symlink_to(tmp_path)
    sound(tmp_path / "above.wav")
    (elsewhere / "back").symlink_to(music)
    (music / "twin.wav").symlink_to(music / "z" / "deep" / "own.wav")
    files, notes = found(music, music / "z")
    assert files == {"twin.wav": "", "far.wav": "far"}
    assert notes == []
    (music / "twin.wav").unlink()
    assert found(music)[0] == {"own.wav": "z/deep", "far.wav": "far"}


def test_a_link_to_itself_stops_no_other(tmp_path: Path) -> None:
    sound(tmp_path / "m" / "good.wav")
    (tmp_path / "m" / "self.wav").symlink_to("self.wav")
    (tmp_path / "m" / "dangling.wav").symlink_to("gone.wav")
    (tmp_path / "m" / "loop").symlink_to("loop")
    too_long = tmp_path / ("x" * 300 + ".wav")
    files, _ = found(tmp_path / "m", too_long, tmp_path / "m" / "good.wav" / "below.wav")
    assert files["good.wav"] == ""
    assert "self.wav cannot be read (Too many levels of symbolic links)" in files["self.wav"]
    assert files["dangling.wav"].endswith("dangling.wav does not exist; check the path")
    assert "(File name too long)" in files[too_long.name]
    assert files["below.wav"].endswith("below.wav does not exist; check the path")
    assert "loop" not in files


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sound(tmp_path / "good.wav")
    sound(tmp_path / "locked" / "secret.wav")
    scandir = os.scandir

    def locked(path: Path) -> object:
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr("os.scandir", locked)
    files, _ = found(tmp_path)
    assert files["good.wav"] == ""
    assert "locked cannot be read (Permission denied); check its name, links and permissions" in files["locked"]


def test_results_and_hidden_files_are_left_out_and_counted(tmp_path: Path) -> None:
    for name in ("song.wav", ".song.wav", ".git/a.wav", "sep/drums.wav", "rec/codec.wav", "enh/original.wav"):
        sound(tmp_path / name)
    sound(tmp_path / "mine" / "a.wav")
    (tmp_path / "sep" / MANIFEST_NAME).write_text("{}")
    (tmp_path / "rec" / "reconstruction.json").write_text("{}")
    (tmp_path / "enh" / "done.json").write_text('{"key": "x"}')
    (tmp_path / "mine" / "done.json").write_text('{"homework": true}')
    sound(tmp_path / "out" / "b.wav")
    files, notes = found(tmp_path, out=tmp_path / "out")
    assert files == {"song.wav": "", "a.wav": "mine"}
    assert notes == [f"{tmp_path}: left out 1 without sound (mine/done.json), 3 with results (enh, rec, sep), 2 hidden"]
    shutil.rmtree(tmp_path / "mine")
    (tmp_path / "song.wav").unlink()
    assert found(tmp_path, out=tmp_path / "out")[0] == {
        tmp_path.name: f"{tmp_path}: no audio files in this folder; name a file or another folder"
    }


def test_an_input_given_in_python_may_be_any_text() -> None:
    ((_, error),) = find_audio([Path("a\0b")])
    assert isinstance(error, InputError)
