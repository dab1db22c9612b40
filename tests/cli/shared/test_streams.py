"""Printing that never stops the work."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from polyres.cli.main import main
from polyres.cli.shared.streams import prepare_streams

ODD = "日本語 é — \udcff\x81 🎶"


Own = Callable[..., None]


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    """Make a descriptor the process's stdout."""
    raws: list[IO[bytes]] = []

    def make(number: int, encoding: str = "utf-8", buffering: int = -1) -> None:
        raws.append(open(number, "wb", buffering))  # noqa: SIM115 - closed below
        stream = io.TextIOWrapper(raws[-1], encoding, "strict", write_through=not buffering)
        monkeypatch.setattr(sys, "stdout", stream)
        monkeypatch.setattr(sys, "__stdout__", stream)
        monkeypatch.setattr(sys, "stderr", sys.stderr)

    yield make
    for raw in raws:
        raw.close()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "latin-1", "cp932", "utf-8"])
@pytest.mark.parametrize("buffering", [-1, 0])
def test_any_text_is_printed_in_any_encoding(tmp_path: Path, own: Own, encoding: str, buffering: int) -> None:
    number = os.open(tmp_path / "out", os.O_WRONLY | os.O_CREAT)
    own(number, encoding, buffering)
    lost = prepare_streams()
    print(ODD)
    print(json.dumps(ODD))
    assert lost() is None
    first, second = (tmp_path / "out").read_bytes().splitlines()
    assert first == ODD.encode(encoding, "backslashreplace")
    assert json.loads(second) == ODD


def test_a_reader_who_went_away_stops_nothing(own: Own) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    own(writer)
    lost = prepare_streams()
    for _ in range(3):
        print(ODD, flush=True)
    assert lost() is None


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_below_stdout_is_told_at_the_end(own: Own, capsys: pytest.CaptureFixture[str]) -> None:
    own(os.open("/dev/full", os.O_WRONLY))
    assert main(["models"]) == 2
    assert capsys.readouterr().err == (
        "error: a part of the output could not be printed (No space left on device); print it elsewhere\n"
    )


def test_a_process_without_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main(["models"]) == 0
    assert main(["nonsense"]) == 2
    sys.stdout.close()
    sys.stderr.close()


def test_a_stream_of_another_is_only_made_tolerant(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(kept, "ascii"))
    lost = prepare_streams()
    print("é")
    assert lost() is None
    assert kept.getvalue().split() == [b"\\xe9"]
