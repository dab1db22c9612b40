"""Files through stdin and stdout."""

from __future__ import annotations

import io
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from polyres.cli.shared.pipes import PIPE, from_stdin, prepare_streams, to_stdout
from polyres.core.errors import ConfigError, InputError, OutputError


def feed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary folder of its own, which is empty again at the end."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    yield folder
    assert os.listdir(folder) == []


def test_stdin_is_a_file_while_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = []
    for content in (b"abc", b"abc", b"abd"):
        feed(monkeypatch, content)
        with from_stdin([Path("a.wav"), PIPE], 1.0, "my/song") as piped:
            assert piped.spooled is not None
            assert piped.paths == [Path("a.wav"), piped.spooled]
            assert piped.spooled.read_bytes() == content
            facts.append((piped.spooled.name, piped.spooled.stat().st_mtime_ns))
            assert piped.words(f"{piped.spooled} is bad") == "my_song is bad"
    # The same content is known again.
    assert facts[0] == facts[1] != facts[2]


def test_without_a_dash_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with from_stdin([Path("a"), Path("x/-")], 1.0) as piped:
        assert (piped.paths, piped.spooled) == ([Path("a"), Path("x/-")], None)


def take(paths: list[Path], max_gb: float = 1.0) -> None:
    with from_stdin(paths, max_gb) as piped:
        raise InputError(f"{piped.spooled}: bad")


def test_what_cannot_be_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    feed(monkeypatch, b"")
    with pytest.raises(InputError, match=r"stdin is empty \(0 bytes\)"):
        take([PIPE])
    feed(monkeypatch, bytes(1200))
    with pytest.raises(InputError, match=r"stdin is longer than 1e-06 GiB; raise --max-stdin-gb, or give a file"):
        take([PIPE], 1e-6)
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(ConfigError, match=r"--max-stdin-gb .* is not possible; give more than 0"):
            take([PIPE], bad)
    feed(monkeypatch, b"abc")
    with pytest.raises(InputError, match=r"^stdin: bad$"):
        take([PIPE])
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    with pytest.raises(InputError, match=r"stdin is no file; write 'cat song\.mp3 \|"):
        take([PIPE])
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="stdin is no file"):
        take([PIPE])


def test_a_full_disk_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    feed(monkeypatch, b"abc")
    monkeypatch.setattr("os.utime", full)
    with pytest.raises(OutputError, match=r"stdin cannot be kept in .*scratch \(No space left on device\); make room"):
        take([PIPE])


def test_other_files_go_on_without_stdin(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    feed(monkeypatch, b"")
    with from_stdin([PIPE, Path("b.wav")], 1.0) as piped:
        assert (piped.paths, piped.failed) == ([Path("b.wav")], True)
    assert capsys.readouterr().err.startswith("error: stdin is empty")


def test_a_terminal_gets_no_sound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    with pytest.raises(OutputError, match="stdout is a terminal, which cannot play sound"), to_stdout(PIPE, ".wav"):
        raise AssertionError("not reached")
    with to_stdout(Path("a.wav"), ".wav") as path:
        assert path == Path("a.wav")


def test_from_pipe_to_pipe(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    wave = 0.2 * np.random.default_rng(0).standard_normal((2000, 1))
    soundfile.write(tmp_path / "a.wav", wave, 16000)
    feed(monkeypatch, (tmp_path / "a.wav").read_bytes())
    assert main(["encode", "-", "-o", "-", "--device", "cpu"]) == 0
    latent, told = capfdbinary.readouterr()
    assert told.startswith(b"-: 0.1 s in ")
    feed(monkeypatch, latent)
    assert main(["decode", "-", "-o", "-", "--device", "cpu"]) == 0
    samples, rate_hz = soundfile.read(io.BytesIO(capfdbinary.readouterr().out))
    assert (rate_hz, samples.shape) == (16000, (2000,))
    feed(monkeypatch, b"words")
    assert main(["decode", "-", "-o", str(tmp_path / "b.wav")]) == 2
    assert capfdbinary.readouterr().err.startswith(b"error: stdin is not a safetensors file")


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
