"""`polyres separate` as it is typed."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from polyres.audio.files import read_audio
from polyres.cli.main import main
from polyres.nn.transformer import TransformerConfig
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.weights import save_separator
from tests.audio.sound_files import sound, write_media

STEMS = ["bass.wav", "drums.wav", "other.wav", "vocals.wav"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SeparatorConfig(
        n_fft=(512,),
        channels=4,
        wave_branch=False,
        segment_samples=4096,
        transformer=TransformerConfig(kind="none"),
    )
    return save_separator(Separator(config), tmp_path_factory.mktemp("weights") / "tiny.safetensors")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


def song(path: Path, seconds: float = 0.3, channels: int = 2, rate_hz: int = 44100, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    samples = 0.2 * np.random.default_rng(seed).standard_normal((round(seconds * rate_hz), channels))
    soundfile.write(path, samples.clip(-1, 1), rate_hz)
    return path


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def separate(weights: Path, *arguments: str | Path) -> int:
    return main(["separate", "--model", str(weights), "--device", "cpu", "--precision", "fp32", *map(str, arguments)])


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    return summary


def test_one_song(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert separate(weights, song(here / "a song.wav")) == 0
    assert files(here / "separated") == sorted(f"tiny/a song/{name}" for name in [*STEMS, "separation.json"])
    out, err = capsys.readouterr()
    assert out.startswith("separated/tiny/a song: drums.wav bass.wav other.wav vocals.wav (0.3 s of audio in ")
    assert err == ""
    assert separate(weights, "a song.wav") == 0
    assert capsys.readouterr().out == (
        "separated/tiny/a song: all stems are there; skipped (--overwrite makes them again)\n"
    )


def test_a_tree_with_bad_files_among_good_ones(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    song(here / "music" / "one.wav")
    song(here / "music" / "B" / "two.flac", channels=1, rate_hz=8000)
    (here / "music" / "B" / "bad.mp3").write_text("words")
    (here / "music" / "cover.jpg").write_text("a picture")
    (here / "music" / "self.wav").symlink_to("self.wav")
    assert separate(weights, "music", "gone.wav", "--out", "x", "--format", "flac", "--json") == 2
    out, err = capsys.readouterr()
    summary = json.loads(out)
    assert (summary["model"], summary["device"], summary["precision"]) == ("tiny", "cpu", "fp32")
    status = {Path(track["input"]).name: track["status"] for track in summary["tracks"]}
    assert status == {
        "one.wav": "done",
        "bad.mp3": "failed",
        "two.flac": "done",
        "gone.wav": "failed",
        "self.wav": "failed",
    }
    for track in summary["tracks"]:
        assert set(track) == {
            *("model", "input", "status", "skipped", "folder", "stems", "seconds", "audio_seconds"),
            *("real_time_factor", "gain", "warnings", "error"),
        }
        assert (track["error"] is not None) == (track["status"] == "failed")
        assert all(Path(path).is_file() for path in track["stems"].values())
    errors = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 3
    assert errors[0].startswith("error: music/self.wav cannot be read (Too many levels of symbolic links)")
    assert errors[1].startswith("error: music/B/bad.mp3")
    assert "note: music: left out 1 without sound (cover.jpg)\n" in err
    assert errors[2] == "error: gone.wav does not exist; check the path"
    assert soundfile.info(here / "x/tiny/B/two/bass.flac").samplerate == 8000
    assert sorted(path.name for path in (here / "x" / "tiny").iterdir()) == ["B", "one"]


def test_skipped_tracks_in_json(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    song(here / "a.wav")
    separate(weights, "a.wav")
    capsys.readouterr()
    assert separate(weights, "a.wav", "--json") == 0
    (track,) = told(capsys)["tracks"]
    assert (track["status"], track["skipped"], track["real_time_factor"]) == ("skipped", True, None)
    assert len(track["stems"]) == 4


def test_a_song_from_stdin(
    here: Path, weights: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = song(here / "a.wav").read_bytes()
    for status in ("done", "skipped"):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
        assert separate(weights, "-", "--name", "mine", "--json") == 0
        (track,) = told(capsys)["tracks"]
        assert (track["input"], track["status"], track["folder"]) == ("-", status, "separated/tiny/mine")
    separate(weights, "a.wav")
    assert (here / "separated/tiny/a/bass.wav").read_bytes() == (here / "separated/tiny/mine/bass.wav").read_bytes()


def test_stems_and_levels(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = song(here / "a.wav", channels=6)
    assert separate(weights, path, "--stems", "vocals, bass", "--bit-depth", "16") == 0
    assert files(here / "separated/tiny/a") == ["bass.wav", "separation.json", "vocals.wav"]
    consistent = ("--two-stems", "drums", "--mixture-consistent", "--bit-depth", "float", "--out", "two")
    assert separate(weights, path, *consistent) == 0
    pair = [read_audio(here / "two/tiny/a" / name)[0] for name in ("drums.wav", "no_drums.wav")]
    np.testing.assert_allclose(sum(pair), read_audio(path)[0], atol=1e-6)


def test_the_seed_decides_the_bytes(here: Path, weights: Path) -> None:
    song(here / "a.wav", seconds=1)
    for out, seed in (("x", "3"), ("y", "3"), ("z", "4")):
        assert separate(weights, "a.wav", "--out", out, "--shifts", "2", "--seed", seed) == 0
    x, y, z = ((here / out / "tiny/a/bass.wav").read_bytes() for out in "xyz")
    assert x == y
    assert x != z


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--stems", "vocal"], "unknown stem 'vocal'; did you mean 'vocals'?"),
        (["--two-stems", "drum"], "unknown stem 'drum'; did you mean 'drums'?"),
        (["--stems", ","], "stems is empty; name at least one stem"),
        (["--stems", "bass", "--two-stems", "bass"], "stems and two_stems exclude each other"),
        (["--overlap", "1"], "overlap 1.0 is not possible; choose 0 <= overlap < 1"),
        (["--shifts", "-1"], "shifts -1 is not possible"),
        (["--batch", "0"], "batch 0 is not possible"),
        (["--format", "flak"], "unknown format 'flak'; did you mean 'flac'?"),
        (["--bit-depth", "32"], "unknown bit depth '32'; known: 16, 24, float"),
        (["--format", "mp3", "--bit-depth", "float"], "bit depth float is not possible in mp3; use --format wav"),
        (["--device", "gpu"], "unknown device 'gpu'; did you mean 'cpu'? known: auto, cpu, cuda, mps"),
        (["--device", "cuda"], "device cuda is not available here; use --device cpu"),
        (["--precision", "fp16"], "unknown precision 'fp16'; did you mean 'bf16'?"),
        (["--model", "htdemuc"], "unknown model 'htdemuc'; did you mean 'htdemucs'?"),
        (["--shifts", "two"], "--shifts"),
        (["--stem", "bass"], "--stem"),
    ],
)
def test_a_wrong_option_is_one_line_and_nothing_is_written(
    here: Path,
    weights: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert separate(weights, song(here / "a.wav"), *arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert message in err
    assert err.count("\n") == 1
    assert files(here) == ["a.wav"]


def test_weights_that_do_not_fit_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(3)}, here / "wrong.safetensors")
    assert separate(here / "wrong.safetensors", song(here / "a.wav")) == 2
    err = capsys.readouterr().err
    assert err.startswith("error: ")
    assert "wrong.safetensors" in err
    assert err.count("\n") == 1
    assert files(here) == ["a.wav", "wrong.safetensors"]


def test_a_folder_that_cannot_be_written(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "out").write_text("a file")
    assert separate(weights, song(here / "a.wav"), "--out", "out") == 2
    assert "error: out/tiny/a: cannot be written (" in capsys.readouterr().err
    assert files(here) == ["a.wav", "out"]


def test_a_cut_file_is_separated_with_a_warning(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = song(here / "a.wav").read_bytes()
    (here / "a.wav").write_bytes(whole[:-20_000])
    assert separate(weights, "a.wav") == 0
    err = capsys.readouterr().err
    assert err.startswith("warning: a.wav ends early")
    assert err.count("\n") == 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_leaves_what_was_finished_and_whole_json(here: Path, weights: Path, number: int) -> None:
    song(here / "a.wav")
    song(here / "b.wav", seconds=120)
    command = [sys.executable, "-m", "polyres", "separate", "a.wav", "b.wav", "--json", "--model", str(weights)]
    root = Path(__file__).parents[2] / "src"
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"}
    # A child of a background job would ignore Ctrl-C; a handler in the parent sets that right.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, before)
    try:
        assert process.stdout is not None
        first = [process.stdout.readline() for _ in range(3)]
        track = json.loads(first[2])  # while the second is under way
        for _ in range(2400):
            if list((here / "separated").rglob("*.f32")) or process.poll() is not None:
                break
            time.sleep(0.05)
        assert process.poll() is None
        process.send_signal(number)
        rest, err = process.communicate(timeout=120)
    finally:
        process.kill()
    assert process.returncode == 130
    summary = json.loads("".join(first) + rest)
    assert (summary["tracks"], summary["interrupted"]) == ([track], True)
    assert (track["input"], track["status"]) == ("a.wav", "done")
    assert err.splitlines()[-1] == "error: interrupted; finished tracks are kept"
    assert files(here) == sorted(["a.wav", "b.wav", *(f"separated/tiny/a/{n}" for n in [*STEMS, "separation.json"])])
    assert os.listdir(here / "separated" / "tiny") == ["a"]


def test_the_handler_of_signals_is_put_back(here: Path, weights: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    separate(weights, song(here / "a.wav"))
    assert signal.getsignal(signal.SIGTERM) == before


@pytest.mark.slow
def test_a_data_set_goes_on_to_evaluation_listening_and_pages(
    here: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number, name in enumerate(("test/A - One & Two", "train/B")):
        for stem in ("drums", "bass", "other", "vocals", "mixture"):
            song(here / "M" / name / f"{stem}.wav", seconds=1.2, seed=number)
    assert separate(weights, "M", "--layout", "musdb18hq", "--out", "est", "--stems", "drums,bass") == 0
    assert (here / "est/test/A - One & Two/drums.wav").is_file()
    assert (here / "est/train/B/bass.wav").is_file()
    data = ["--data", "M", "--layout", "musdb18hq", "--stems", "drums,bass", "--metrics", "nsdr"]
    assert main(["evaluate", "--estimates", "est", *data, "--out", "scores"]) == 0
    assert len((here / "scores" / "scores.jsonl").read_text().splitlines()) == 4
    excerpts = "{per_track: 1, length_s: 1, layout: musdb18hq}"
    (here / "s.yaml").write_text(
        "{name: t, title: T, kind: mushra, references: M, systems: {a: est}, stems: [drums], "
        f"excerpts: {excerpts}, attributes: [{{name: quality, question: Good}}]}}"
    )
    assert main(["listen", "new", "s.yaml", "--out", "study"]) == 0
    capsys.readouterr()
    assert main(["studio", "export", "est", "--reference", "M", "--out", "page.html", "--seconds", "1"]) == 0
    assert "2 songs" in capsys.readouterr().out
    page = (here / "page.html").read_text()
    assert page.count('"label":"reference"') == page.count('"label":"tiny"') == 2


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["separate", "--help"]) == 0
    text = capsys.readouterr().out
    assert "polyres separate song.mp3" in text
    assert "--mixture-consistent" in text


def test_another_stream_of_a_film_can_be_chosen(here: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    waves = [sound(5000, seed=seed) for seed in (1, 2)]
    write_media(here / "a.mkv", "flac", waves, default_stream=1)
    command = ["separate", "a.mkv", "--model", str(weights), "--bit-depth", "float"]
    mixtures = {}
    for stream in (None, 1, 2):
        assert main([*command, "--out", f"out{stream}", *([] if stream is None else ["--stream", str(stream)])]) == 0
        stems = [soundfile.read(path)[0] for path in sorted((here / f"out{stream}").rglob("*.wav"))]
        mixtures[stream] = sum(stems)
        said = capsys.readouterr().err
        assert ("--stream chooses another" in said) is (stream is None)
    assert np.array_equal(mixtures[None], mixtures[2])
    assert not np.allclose(mixtures[1], mixtures[2])
    assert main([*command, "--stream", "3"]) == 2
    assert "has no audio stream 3; it has 1 (flac, 2 ch), 2 (flac, 2 ch)" in capsys.readouterr().err
