from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from filelock import FileLock, Timeout
from hypothesis import given
from hypothesis import strategies as st

from polyres.audio.track_files import list_tracks
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.datasets.stems import RootConfig
from polyres.synth import cache as made
from polyres.synth.cache import MadeConfig, cache_folder, is_made, make_root, root_of
from polyres.synth.jobs import Made
from polyres.synth.scores.midi import Note, write_score

TINY = MadeConfig(kind="miniature", tracks=1, length_s=2.0)


def quiet(line: str) -> None:
    """Say nothing."""


@given(
    seed=st.integers(0, 9),
    hours=st.none() | st.floats(0.1, 100.0),
    styles=st.lists(st.sampled_from(["house", "funk"])),
    singer=st.none() | st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1),
)
def test_roots_are_read_as_they_were_written(seed: int, hours: float | None, styles: list[str], singer: Any) -> None:
    spec = MadeConfig(kind="composed", seed=seed, hours=hours, styles=tuple(styles), singer=singer)
    root = spec.to_root()
    assert is_made(root)
    assert "\n" not in root
    assert MadeConfig.from_root(root) == spec
    assert root_of(root) == root_of({"make": spec}) == root_of({"make": spec.to_dict()}) == root


def test_roots_of_a_recipe_may_be_made() -> None:
    root = RootConfig.from_dict({"make": {"kind": "miniature", "seed": 3}, "weight": 2.0})
    assert root.path == "make: {kind: miniature, seed: 3}"
    assert root.weight == 2.0
    assert RootConfig.from_dict(root.to_dict()) == root
    assert not is_made("songs/make")
    assert root_of("songs") == "songs"
    with pytest.raises(ConfigError, match="unknown key"):
        RootConfig.from_dict({"make": {"kind": "miniature"}, "path": "songs"})


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"make": "music"}, r"make: 'music' says not what to make; write it as make: \{kind: miniature\}"),
        ("make: [1", r"root 'make: \[1' says not what to make; write it as make: \{kind: miniature\}"),
        ("make: music", "says not what to make"),
        ({"make": {"kind": "opera"}}, "kind = 'opera' is not allowed"),
        ({"make": {"kind": "miniature", "trakcs": 2}}, "unknown key 'trakcs'; did you mean 'tracks'"),
        ({"make": {"kind": "midi"}}, "kind midi needs a folder; name it with midi"),
        ({"make": {"kind": "loops", "singer": "a", "loops": "b"}}, "kind loops does not use singer; leave it out"),
        ({"make": {"kind": "miniature", "hours": 2}}, "kind miniature goes by tracks; use kind composed for hours"),
    ],
)
def test_wrong_wishes_are_told(given: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        root_of(given)


def test_songs_are_made_once_and_found_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    out = make_root(TINY, None, tmp_path, lines.append)
    assert [track.name for track in list_tracks(out)] == ["miniature_00"]
    assert len(lines) == 1
    assert "making data: {kind: miniature, tracks: 1, length_s: 2.0} in " in lines[0]
    assert json.loads((out / "songs.json").read_text())["tracks"][0]["length_s"] == 2.0
    monkeypatch.setattr(made, "make_miniature", lambda *_: pytest.fail("made again"))
    assert make_root(TINY, None, tmp_path, lines.append) == out
    assert make_root(TINY, "/elsewhere", tmp_path, lines.append) == out
    assert len(lines) == 1


def test_broken_off_making_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = make_root(TINY, None, tmp_path, quiet)
    (out / "songs.json").unlink()
    before = (out / "miniature_00" / "drums.wav").stat().st_mtime_ns
    assert make_root(TINY, None, tmp_path, quiet) == out
    assert (out / "miniature_00" / "drums.wav").stat().st_mtime_ns == before


def test_other_wishes_have_other_folders(tmp_path: Path) -> None:
    composed = MadeConfig(kind="composed")
    specs = [TINY, TINY.with_values({"seed": 1}), composed, composed.with_values({"styles": ["funk"]})]
    assert len({spec.identity() for spec in specs}) == 4
    near, far = (MadeConfig(kind="midi", midi=f"{folder}/scores") for folder in ("a", "b"))
    assert near.identity() == far.identity()


def test_several_at_once_make_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def slowly(out: Path, seed: int, tracks: int, length_s: float) -> Sequence[Made]:
        calls.append(seed)
        out.mkdir(parents=True)
        threading.Event().wait(0.3)
        return []

    monkeypatch.setattr(made, "make_miniature", slowly)
    threads = [threading.Thread(target=make_root, args=(TINY, None, tmp_path, quiet)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert calls == [0]


@pytest.mark.parametrize("kind", ["midi", "composed", "vocals", "loops"])
def test_every_kind_is_made_from_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    for name in ("scores", "choir", "sounds"):
        (tmp_path / "data" / name).mkdir(parents=True)
    write_score([Note(0.0, 1.0, 0, 33, 40, 100)], (), 1.0, tmp_path / "data" / "scores" / "piece.mid")
    wave = np.sin(np.arange(20_000) * 0.03)
    for name in ("choir/A3.wav", "sounds/kick.wav", "sounds/snare.wav"):
        soundfile.write(tmp_path / "data" / name, wave, 44_100)
    asked: list[str] = []

    def run(jobs: Sequence[Any], processes: int, tell: Any) -> list[Made]:
        asked.extend(job.folder.name for job in jobs)
        jobs[0].folder.mkdir(parents=True)
        tell(Made("a", 2000.0, ()))
        return []

    monkeypatch.setattr(made, "run_jobs", run)
    spec = {
        "midi": MadeConfig(kind="midi", midi="scores", takes=2, singer="choir"),
        "composed": MadeConfig(kind="composed", tracks=2, length_s=20.0, singer="choir"),
        "vocals": MadeConfig(kind="vocals", tracks=2, singer="choir"),
        "loops": MadeConfig(kind="loops", tracks=2, loops="sounds"),
    }[kind]
    lines: list[str] = []
    make_root(spec, str(tmp_path / "data"), tmp_path / "cache", lines.append)
    stem = {"midi": "piece_take", "composed": "song_0000", "vocals": "singer_00", "loops": "loops_00"}[kind]
    assert asked == [f"{stem}0", f"{stem}1"]
    assert lines[-1] == "0.6 h made"
    if kind != "composed":
        with pytest.raises(InputError, match=r"there is no folder .* to make songs from \(.*\); set its parent"):
            make_root(spec, str(tmp_path / "nowhere"), tmp_path / "other", quiet)


def test_unusable_caches_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write '.*miniature_.*' \(.*\); make room, or set POLYRES_CACHE"):
        make_root(TINY, None, tmp_path / "file", quiet)

    def never(self: FileLock) -> None:
        raise Timeout("x")

    monkeypatch.setattr(FileLock, "__enter__", never)
    with pytest.raises(OutputError, match=r"another process has been making '.*' for hours; end it, or remove"):
        make_root(TINY, None, tmp_path, quiet)


@pytest.mark.parametrize(
    ("platform", "variable", "expected"),
    [
        ("linux", "XDG_CACHE_HOME", "polyres/made"),
        ("win32", "LOCALAPPDATA", "polyres/made"),
        ("darwin", "HOME", "Library/Caches/polyres/made"),
        ("linux", "POLYRES_CACHE", "made"),
    ],
)
def test_the_cache_is_where_the_platform_keeps_such_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, platform: str, variable: str, expected: str
) -> None:
    monkeypatch.delenv("POLYRES_CACHE", raising=False)
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(made.sys, "platform", platform)
    assert cache_folder() == tmp_path / expected
