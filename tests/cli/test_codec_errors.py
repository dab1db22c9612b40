"""Inputs and places that cannot be used: one line each, status 2, nothing half-written, older results untouched."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.audio.encode import PcmSink, SndfileSink
from polyres.cli.main import main
from polyres.codec.audioldm2 import parts as audioldm2_parts

RATE_HZ = 16000
TINY = ["--codec", "audioldm2_tiny", "--device", "cpu"]
FEW = ["--rung", "R0", "--rung", "R6", "--seconds", "0.5"]
ONE = ["--enhancer", "gain_match", "--seconds", "0.5"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYRES_CACHE", str(folder))
        audioldm2_parts.tiny_folder()
    return folder


@pytest.fixture(autouse=True)
def _own_cache(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POLYRES_CACHE", str(cache))


def tone() -> np.ndarray:
    noise = np.random.default_rng(4).normal(0, 0.05, RATE_HZ)
    return 0.2 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ) + noise


def good(path: Path) -> None:
    soundfile.write(path, tone(), RATE_HZ)


def with_nan(path: Path) -> None:
    samples = tone().astype(np.float32)
    samples[8000] = np.nan
    soundfile.write(path, samples, RATE_HZ, subtype="FLOAT")


def empty_file(path: Path) -> None:
    path.write_bytes(b"")


def no_samples(path: Path) -> None:
    soundfile.write(path, np.zeros(0), RATE_HZ)


def no_audio(path: Path) -> None:
    path.write_text("these are words")


def head_only(path: Path) -> None:
    good(path)
    path.write_bytes(path.read_bytes()[:30])


def folder(path: Path) -> None:
    path.mkdir()


def nothing(path: Path) -> None:
    return


COMMANDS: dict[str, Callable[[Path, Path], list[str]]] = {
    "reconstruct": lambda audio, out: ["reconstruct", str(audio), *TINY, "--out", str(out), "--overwrite"],
    "encode": lambda audio, out: ["encode", str(audio), *TINY, "-o", str(out / "z.safetensors"), "--overwrite"],
    "enhance": lambda audio, out: ["enhance", str(audio), *TINY, *ONE, "--out", str(out), "--overwrite"],
    "ladder": lambda audio, out: ["ladder", str(audio), *TINY, *FEW, "--out", str(out), "--overwrite"],
    "decode": lambda audio, out: ["decode", str(audio), "-o", str(out / "o.wav"), "--device", "cpu", "--overwrite"],
}


def tree(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def one_error(capsys: pytest.CaptureFixture[str]) -> str:
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert line.startswith("error: ")
    return line


BAD = [
    (with_nan, "NaN"),
    (empty_file, "empty"),
    (no_samples, "no samples"),
    (no_audio, "cannot be read as audio"),
    (head_only, "song.wav"),
    (folder, "no audio files|is a folder|Is a directory"),
    (nothing, "does not exist"),
]


@pytest.mark.parametrize("command", ["reconstruct", "encode", "enhance", "ladder"])
@pytest.mark.parametrize(("make", "message"), BAD, ids=[make.__name__ for make, _ in BAD])
def test_bad_audio(
    command: str, make: Callable[[Path], None], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    make(tmp_path / "song.wav")
    assert main(COMMANDS[command](tmp_path / "song.wav", tmp_path / "out")) == 2
    line = one_error(capsys)
    assert "song.wav" in line
    assert re.search(message, line), line
    assert not tree(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_bad_latents(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(tmp_path / "song.wav")
    coded = tmp_path / "z.safetensors"
    assert main(["encode", str(tmp_path / "song.wav"), *TINY, "-o", str(coded)]) == 0
    whole = coded.read_bytes()
    for content in (b"", whole[:20], whole[:-100], b"words", whole[:8] + b"x" * 50 + whole[58:]):
        coded.write_bytes(content)
        assert main(COMMANDS["decode"](coded, tmp_path / "out")) == 2
        assert "z.safetensors" in one_error(capsys)
        assert not (tmp_path / "out").exists()
    assert main(COMMANDS["decode"](tmp_path, tmp_path / "out")) == 2
    assert "is a folder, not a latent file; name the file" in one_error(capsys)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_what_may_not_be_read(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good(tmp_path / "song.wav")
    (tmp_path / "song.wav").chmod(0)
    assert main(COMMANDS[command](tmp_path / "song.wav", tmp_path / "out")) == 2
    one_error(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_full_disk_leaves_older_results(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    good(tmp_path / "song.wav")
    given, out = tmp_path / "song.wav", tmp_path / "out"
    if command == "decode":
        given = tmp_path / "given.safetensors"
        assert main(["encode", str(tmp_path / "song.wav"), *TINY, "-o", str(given)]) == 0
    assert main(COMMANDS[command](given, out)) == 0
    before = tree(out)
    capsys.readouterr()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    for sink in (PcmSink, SndfileSink):
        monkeypatch.setattr(sink, "write", full)
    monkeypatch.setattr("polyres.codec.latent.save_file", full)
    assert main(COMMANDS[command](given, out)) == 2
    assert "No space left on device" in one_error(capsys)
    assert tree(out) == before
    assert main(COMMANDS[command](given, tmp_path / "new")) == 2
    assert not tree(tmp_path / "new")


@pytest.mark.parametrize("command", ["reconstruct", "encode", "enhance", "ladder"])
def test_a_file_that_ends_early_is_used_as_far_as_it_goes(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    good(tmp_path / "song.wav")
    whole = (tmp_path / "song.wav").read_bytes()
    (tmp_path / "song.wav").write_bytes(whole[: len(whole) * 3 // 4])
    assert main(COMMANDS[command](tmp_path / "song.wav", tmp_path / "out")) == 0
    assert tree(tmp_path / "out")
    if command in ("reconstruct", "encode"):
        assert "song.wav" in capsys.readouterr().err
