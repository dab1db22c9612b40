from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path

import pytest

from polyres.core import whole_files
from polyres.core.errors import OutputError
from polyres.core.whole_files import (
    is_left_behind,
    make_scratch_folder,
    remove_left_behind,
    replaced_atomically,
    scratch_folder,
    scratch_path,
    write_whole,
)


@pytest.mark.parametrize(
    ("content", "stored"), [("Käse\n", b"K\xc3\xa4se\n"), (b"\x00\xff\r\n", b"\x00\xff\r\n"), ("", b"")]
)
def test_the_file_holds_what_was_given_and_its_folder_is_made(
    tmp_path: Path, content: str | bytes, stored: bytes
) -> None:
    path = write_whole(tmp_path / "new" / "folder" / "a.txt", content)
    assert path.read_bytes() == stored
    assert [one.name for one in path.parent.iterdir()] == ["a.txt"]


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_whole(tmp_path / "a.txt", "old")

    def half(self: Path, data: bytes) -> int:
        with self.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(OutputError, match=r"cannot write '.*a\.txt' \(No space left on device\); make room"):
        write_whole(path, "new text")
    assert path.read_text() == "old"
    assert [one.name for one in tmp_path.iterdir()] == ["a.txt"]


def test_a_file_in_place_of_the_folder_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write '.*file.x\.json' \(.+\); make room or choose another folder"):
        write_whole(tmp_path / "file" / "x.json", b"")


def test_a_folder_in_its_place_stays(tmp_path: Path) -> None:
    (tmp_path / "taken" / "inner").mkdir(parents=True)
    with pytest.raises(OutputError, match="taken"):
        write_whole(tmp_path / "taken", "x")
    assert [one.name for one in tmp_path.iterdir()] == ["taken"]
    assert (tmp_path / "taken" / "inner").is_dir()


@pytest.mark.skipif(os.name == "nt", reason="permissions of files are another thing on Windows")
@pytest.mark.parametrize("mask", [0o022, 0o027, 0o077])
def test_files_get_the_permissions_of_any_new_file(tmp_path: Path, mask: int) -> None:
    before = os.umask(mask)
    try:
        (tmp_path / "plain").touch()
        with replaced_atomically(tmp_path / "a") as temporary:
            temporary.touch(0o600)
    finally:
        os.umask(before)
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "plain").stat().st_mode


def fail_inside(target: Path) -> None:
    with replaced_atomically(target) as temporary:
        temporary.write_text("half")
        raise ValueError("no")


def test_an_error_inside_leaves_no_trace(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no"):
        fail_inside(tmp_path / "a")
    assert list(tmp_path.iterdir()) == []


DAY_S = 86_400.0


@pytest.fixture(autouse=True)
def looks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call looks through the folder."""
    monkeypatch.setattr(whole_files, "_remove_left_behind", whole_files._remove_left_behind.__wrapped__)


def name_of(pid: int, start: str = "0", machine: str | None = None, suffix: str = "") -> str:
    return f".polyres-{machine or whole_files._machine()}-{pid}-{start}-{'0' * 16}{suffix}"


def dead_process() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_dead_processes_left_goes_and_nothing_else(tmp_path: Path) -> None:
    dead = dead_process()
    (tmp_path / name_of(dead) / "deep").mkdir(parents=True)
    (tmp_path / name_of(dead, suffix=".part")).write_bytes(b"x")
    mine = make_scratch_folder(tmp_path)
    parent = tmp_path / name_of(os.getppid(), whole_files._started(os.getppid()))
    parent.mkdir()
    others = [tmp_path / ".polyres-notes", tmp_path / ".polyres_index.json", tmp_path / "song.part"]
    for path in others:
        path.write_text("kept")
    remove_left_behind(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([mine, parent, *others])


def test_a_number_that_another_process_has_now_is_no_owner(tmp_path: Path) -> None:
    if whole_files._started(os.getpid()) == "0":
        pytest.skip("this system does not tell when a process started")
    assert is_left_behind(tmp_path / name_of(os.getpid(), "1"))
    assert not is_left_behind(tmp_path / name_of(os.getpid(), whole_files._started(os.getpid())))


@pytest.mark.parametrize("name", [name_of(1, machine="0" * 12), ".polyres-ab12cd_8", f".polyres-{'a' * 16}.part"])
def test_what_others_or_older_versions_left_goes_after_a_week(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.mkdir()
    assert not is_left_behind(path)
    now_s = path.stat().st_mtime
    os.utime(path, (now_s - 8 * DAY_S, now_s - 8 * DAY_S))
    assert is_left_behind(path)


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "precious"
    target.mkdir()
    (target / "song").write_text("kept")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / name_of(dead_process())).symlink_to(target)
    remove_left_behind(folder)
    assert list(folder.iterdir()) == []
    assert (target / "song").read_text() == "kept"


def test_a_scratch_folder_ends_with_its_block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with suppress(KeyboardInterrupt), scratch_folder() as work:
        (work / "a").write_text("x")
        assert [path.name for path in tmp_path.iterdir()] == [work.name]
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_missing_or_unreadable_is_no_trouble(tmp_path: Path) -> None:
    remove_left_behind(tmp_path / "gone")
    assert scratch_path(tmp_path / "gone").parent == tmp_path / "gone"


def test_writing_a_file_removes_what_a_killed_writer_left_beside_it(tmp_path: Path) -> None:
    left = tmp_path / name_of(dead_process(), suffix=".part")
    left.write_bytes(b"half")
    write_whole(tmp_path / "a.txt", "whole")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_folder_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    remove_left_behind(tmp_path)
    left = tmp_path / name_of(dead_process())
    left.mkdir()
    remove_left_behind(tmp_path)
    assert left.exists()
