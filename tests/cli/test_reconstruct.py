from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

import polyres
from polyres.cli.main import main
from polyres.codec.audioldm2 import parts as audioldm2_parts
from polyres.codec.latent import Latent

RATE_HZ, LENGTH = 22050, 15000
TINY = ["--codec", "audioldm2_tiny", "--device", "cpu"]
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


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


@pytest.fixture
def song(tmp_path: Path) -> Path:
    noise = np.random.default_rng(4).normal(0, 0.1, (LENGTH, 2)) * np.linspace(0, 1, LENGTH)[:, None]
    path = tmp_path / "in" / "song.wav"
    path.parent.mkdir()
    soundfile.write(path, noise, RATE_HZ, subtype="FLOAT")
    return path


def read(path: Path) -> np.ndarray:
    samples, rate_hz = soundfile.read(path, dtype="float32", always_2d=True)
    assert rate_hz == RATE_HZ
    return samples.T


def run(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_file_becomes_a_folder_of_versions_latent_scores_and_figure(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = ["reconstruct", song, *TINY, "--enhance", "frequency", "--strength", "0.5", "--out", out]
    assert run(*words, "--plots", "--bit-depth", "float", "--json") == 0
    track = json.loads(capsys.readouterr().out)["tracks"][0]
    folder = out / "audioldm2_tiny" / "song"
    names = {"original.wav", "codec.wav", "enhanced.wav", "latent.safetensors", "comparison.png", "reconstruction.json"}
    assert {path.name for path in folder.iterdir()} == names
    assert {Path(path).name for path in track["files"].values()} == names
    assert np.array_equal(read(folder / "original.wav"), read(song))
    codec = polyres.load_codec("audioldm2_tiny", "cpu")
    expected = codec.reconstruct(torch.from_numpy(read(song)), RATE_HZ).numpy()
    assert np.allclose(read(folder / "codec.wav"), expected, atol=1e-5)
    assert read(folder / "enhanced.wav").shape == expected.shape
    assert not np.allclose(read(folder / "enhanced.wav"), expected, atol=0.01)
    assert track["num_scalars"] == Latent.load(folder / "latent.safetensors").num_scalars
    assert set(track["scores"]) == {"codec", "enhanced"}
    report = json.loads((folder / "reconstruction.json").read_text())
    assert report["scores"] == track["scores"]
    assert "snr" in report["invalid"]
    assert report["informed"] is False
    assert (folder / "comparison.png").read_bytes().startswith(b"\x89PNG")
    assert [path.name for path in out.iterdir()] == ["audioldm2_tiny"]


def test_versions_share_one_gain(song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    samples = read(song).T
    loud = song.with_name("loud.wav")
    soundfile.write(loud, samples * (1.5 / abs(samples).max()), RATE_HZ, subtype="FLOAT")
    assert run("reconstruct", loud, *TINY, "--out", tmp_path / "out", "--json") == 0
    captured = capsys.readouterr()
    gain = json.loads(captured.out)["tracks"][0]["gain"]
    assert gain < 1 / 1.5 + 1e-4
    assert "all versions were turned down by one gain" in captured.err
    original = read(tmp_path / "out" / "audioldm2_tiny" / "loud" / "original.wav")
    assert np.allclose(original, read(loud) * gain, atol=1e-6)


def test_what_is_there_is_skipped_and_what_was_made_otherwise_is_not_replaced(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reconstruct", song, *TINY, "--out", tmp_path / "out"]
    assert run(*words) == 0
    assert "codec: snr" in capsys.readouterr().out
    file = tmp_path / "out" / "audioldm2_tiny" / "song" / "codec.wav"
    before = file.stat().st_mtime_ns
    assert run(*words) == 0
    assert "is there; skipped" in capsys.readouterr().out
    assert run(*words, "--phase", "griffin_lim") == 2
    assert "was made otherwise (config" in capsys.readouterr().err
    assert file.stat().st_mtime_ns == before
    assert run(*words, "--phase", "griffin_lim", "--overwrite") == 0
    assert file.stat().st_mtime_ns != before
    assert [path.name for path in file.parent.parent.iterdir()] == ["song"]


def test_a_bad_file_is_reported_and_the_others_go_on(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = song.with_name("bad.wav")
    bad.write_bytes(b"RIFF nothing")
    assert run("reconstruct", song.parent, tmp_path / "none.wav", *TINY, "--out", tmp_path / "out") == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error:")]
    assert len(lines) == 2
    assert "bad.wav" in lines[0]
    assert "none.wav does not exist" in lines[1]
    assert [path.name for path in (tmp_path / "out" / "audioldm2_tiny").iterdir()] == ["song"]


def test_a_folder_of_something_else_is_left_alone(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "out" / "audioldm2_tiny" / "song"
    other.mkdir(parents=True)
    (other / "mine.txt").write_text("x")
    for extra in ([], ["--overwrite"]):
        assert run("reconstruct", song, *TINY, "--out", tmp_path / "out", *extra) == 2
        assert "is there and holds something else; choose another --out" in capsys.readouterr().err
    assert [path.name for path in other.parent.iterdir()] == ["song"]
    assert [path.name for path in other.iterdir()] == ["mine.txt"]


def test_results_that_cannot_be_written_are_one_line(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert run("reconstruct", song, *TINY, "--out", tmp_path / "file" / "out") == 2
    assert "cannot be written" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--enhance", "learned"], "enhancer 'learned' needs network"),
        (["--enhance", "frequenzy"], "did you mean 'frequency'"),
        (["--phase", "grifin_lim"], "did you mean 'griffin_lim'"),
        (["--format", "wave"], "unknown format"),
        (["--codec", "audioldm2_tinny"], "unknown codec 'audioldm2_tinny'"),
        (["--vocoder", "nowhere"], "has no vocoder with a config.json"),
    ],
)
def test_wrong_words_are_one_line(
    words: list[str], message: str, song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("reconstruct", song, *TINY, "--out", tmp_path / "out", *words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len([line for line in error.splitlines() if line.startswith("error:")]) == 1
    assert not (tmp_path / "out").exists()


def test_an_enhancer_that_is_told_about_the_original_is_said_to_be_informed(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reconstruct", song, *TINY, "--enhance", "ltas_match", "--out", tmp_path / "out", "--json"]
    assert run(*words) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["informed"] is True
    scores = found["tracks"][0]["scores"]
    assert scores["codec"] != scores["enhanced"]


def test_codecs_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("reconstruct", "--list") == 0
    assert "audioldm2: audioldm2 of the Hugging Face Hub" in capsys.readouterr().out


def test_encode_and_decode_give_what_reconstruct_gives(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, out = tmp_path / "z.safetensors", tmp_path / "out.wav"
    assert run("encode", song, "-o", coded, *TINY, "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["num_scalars"] == Latent.load(coded).num_scalars
    assert facts["duration_s"] == pytest.approx(LENGTH / RATE_HZ)
    assert run("decode", coded, "-o", out, "--device", "cpu") == 0
    codec = polyres.load_codec("audioldm2_tiny", "cpu")
    expected = codec.reconstruct(torch.from_numpy(read(song)), RATE_HZ).numpy()
    assert np.allclose(read(out), expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("codec", [pytest.param("audioldm2_tiny", marks=pytest.mark.slow), "default"])
def test_a_new_process_decodes_the_same_samples(codec: str, song: Path, tmp_path: Path) -> None:
    coded, out = tmp_path / "z.safetensors", tmp_path / "out.wav"
    program = [sys.executable, "-c", "import sys; from polyres.cli.main import main; sys.exit(main())"]
    for words in (["encode", song, "-o", coded, "--codec", codec], ["decode", coded, "-o", out]):
        subprocess.run([*program, *map(str, words), "--device", "cpu"], check=True, env={**os.environ, **ONE_THREAD})
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        loaded = polyres.load_codec(codec, "cpu")
        latent = loaded.encode(torch.from_numpy(read(song)), RATE_HZ)
        wave = loaded.decode(latent).numpy()
    finally:
        torch.set_num_threads(threads)
    stored = Latent.load(coded)
    assert all(torch.equal(stored.tensors[name], value) for name, value in latent.tensors.items())
    assert all(torch.equal(stored.side[name], value) for name, value in latent.side.items())
    assert np.array_equal(read(out), wave)


def test_encode_and_decode_replace_nothing_unasked(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    coded, out = tmp_path / "z.safetensors", tmp_path / "out.wav"
    assert run("encode", song, "-o", coded, *TINY) == 0
    assert run("decode", coded, "-o", out, "--json") == 0
    for words in (["encode", song, "-o", coded, *TINY], ["decode", coded, "-o", out]):
        assert run(*words) == 2
        assert "is there already; --overwrite replaces it" in capsys.readouterr().err
        assert run(*words, "--overwrite") == 0


def test_encode_and_decode_leave_nothing_half_written(
    song: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    assert run("encode", tmp_path / "none.wav", "-o", work / "z.safetensors", *TINY) == 2
    assert run("decode", song, "-o", work / "out.wav") == 2
    assert "song.wav is not a safetensors file" in capsys.readouterr().err
    assert run("encode", song, "-o", tmp_path / "z.safetensors", *TINY) == 0
    assert run("decode", tmp_path / "z.safetensors", "-o", work / "out.doc") == 2
    assert "unknown audio format 'doc'" in capsys.readouterr().err
    assert list(work.iterdir()) == []
