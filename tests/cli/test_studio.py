"""`polyres studio` as it is typed."""

from __future__ import annotations

import re
import socket
import sys
from pathlib import Path

import pytest

from polyres.cli.main import main
from polyres.studio.engines import PolyresEngine
from tests.studio.studios import separated


def test_finished_stems_become_a_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = separated(tmp_path / "separated", seconds=0.5)
    out = tmp_path / "page.html"
    assert main(["studio", "export", str(folder), "--out", str(out), "--title", "</script>"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"page\.html: 1 song, \d+\.\d MiB; open it in a browser", told)
    text = out.read_text()
    assert "</script>" not in text.partition('id="data"')[2].partition("</script>")[0]
    assert "src=" not in text
    assert "http" not in text.replace("http://www.w3.org/2000/svg", "")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["export", "missing"], "is not a folder"),
        (["export", "."], "no folder here was written by polyres"),
        (["export", ".", "--format", "ogg"], "choose flac or mp3"),
        (["--root-path", "studio"], "write it like /studio"),
        (["--max-minutes", "0"], "lets nothing in"),
    ],
)
def test_mistakes_are_told_in_one_line(
    words: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["studio", *words]) == 2
    error = capsys.readouterr().err
    assert expected in error
    assert error.count("\n") == 1


def test_a_port_that_is_taken(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(PolyresEngine, "check", lambda self: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        assert main(["studio", "--port", str(taken.getsockname()[1])]) == 2
    assert "choose another --port" in capsys.readouterr().err


def test_the_extra_is_named_where_it_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name in ("polyres.studio.server", "polyres.listen.server.web")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["studio"]) == 2
    assert "pip install 'polyres[studio]'" in capsys.readouterr().err
