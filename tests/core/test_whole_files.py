from __future__ import annotations

import os
from pathlib import Path

import pytest

from polyres.core.errors import OutputError
from polyres.core.whole_files import replaced_atomically, write_whole


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
