"""What `polyres separate` and `polyres reconstruct` really write is found, read and measured."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from polyres.batch.manifest import MANIFEST_NAME
from polyres.cli.main import main
from polyres.codec.audioldm2 import parts as audioldm2_parts
from polyres.core.errors import InputError
from polyres.studio.results import Result, find_results, sdr_db, true_stems
from tests.studio.studios import separated, song, tiny_weights

RATE_HZ = 44_100


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Two songs by two models and a codec, as the commands write them."""
    folder = tmp_path_factory.mktemp("made")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYRES_CACHE", str(folder / "cache"))
        audioldm2_parts.tiny_folder()
        torch.set_num_threads(1)
        songs = [str(song(folder / "in" / f"{name}.wav", 0.4)) for name in ("one", "two")]
        for number, kind in enumerate(("wav", "mp3")):
            weights = tiny_weights(folder / f"tiny{number}.safetensors")
            words = ["--model", str(weights), "--out", str(folder / "out"), "--format", kind]
            assert main(["separate", *songs, *words]) == 0
        words = ["--codec", "audioldm2_tiny", "--enhance", "frequency", "--device", "cpu", "--out", str(folder / "out")]
        assert main(["reconstruct", songs[0], *words]) == 0
        yield folder
        torch.set_num_threads(threads)


def test_songs_are_found_with_all_that_was_made_of_them(made: Path) -> None:
    found = find_results(made / "out")
    assert list(found) == ["one", "two"]
    assert [(one.label, one.kind) for one in found["one"]] == [
        ("audioldm2_tiny", "reconstruct"),
        ("tiny0", "separate"),
        ("tiny1", "separate"),
    ]
    assert list(found["one"][0].files) == ["original", "codec", "enhanced"]
    assert set(found["one"][1].files) == {"drums", "bass", "other", "vocals", "mixture"}
    assert found["one"][1].files["mixture"] == (made / "in" / "one.wav").resolve()
    assert found["one"][2].files["bass"].suffix == ".mp3"
    assert [one.label for one in found["two"]] == ["tiny0", "tiny1"]


@pytest.mark.parametrize(("part", "songs", "results"), [("tiny0", 2, 1), ("tiny0/two", 1, 1), ("audioldm2_tiny", 1, 1)])
def test_one_model_or_one_song_is_enough(made: Path, part: str, songs: int, results: int) -> None:
    found = find_results(made / "out" / part)
    assert (len(found), *{len(one) for one in found.values()}) == (songs, results)


def test_folders_without_results_are_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no folder here was written by polyres separate or reconstruct"):
        find_results(made / "in")
    with pytest.raises(InputError, match=r"one\.wav is not a folder"):
        find_results(made / "in" / "one.wav")
    folder = separated(tmp_path / "out", ["one"])
    for path in folder.rglob("*.wav"):
        path.unlink()
    with pytest.raises(InputError, match="its audio files are gone; make them again"):
        find_results(folder)
    (folder / "one" / "tune" / MANIFEST_NAME).write_text("{")
    with pytest.raises(InputError, match=r"separation\.json cannot be read; separate the song again"):
        find_results(folder)


def test_a_gain_against_clipping_is_known(made: Path, tmp_path: Path) -> None:
    folder = separated(tmp_path / "out", ["one"])
    path = folder / "one" / "tune" / MANIFEST_NAME
    values = json.loads(path.read_text())
    for entry in values["files"].values():
        entry["gain"] = 0.5
    path.write_text(json.dumps(values))
    assert find_results(folder)["tune"][0].gain == 0.5
    report = made / "out" / "audioldm2_tiny" / "one" / "reconstruction.json"
    values = json.loads(report.read_text())
    assert find_results(report.parent)["one"][0].gain == values["gain"] == 1


# -- true stems -------------------------------------------------------------------------------------------------------


def test_true_stems_are_found_in_any_format(tmp_path: Path) -> None:
    results = find_results(separated(tmp_path / "out"))["tune"]
    song(tmp_path / "truth" / "tune" / "low.flac")
    song(tmp_path / "truth" / "tune" / "mixture.wav")
    found = true_stems("tune", results, tmp_path / "truth")
    assert found is not None
    assert (found.label, found.is_truth, list(found.files)) == ("reference", True, ["low", "mixture"])
    codec = [Result("codec", "reconstruct", {"original": tmp_path / "a.wav"})]
    assert true_stems("tune", codec, tmp_path / "truth") is None
    (tmp_path / "truth" / "tune" / "low.flac").unlink()
    with pytest.raises(InputError, match=r"tune: no true stems of this song \(.*low.*\); check --reference"):
        true_stems("tune", results, tmp_path / "truth")


def written(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate_hz, subtype="FLOAT")
    return path


def test_the_sdr_is_that_of_the_excerpt_whatever_the_gain(tmp_path: Path) -> None:
    generator = np.random.default_rng(3)
    true = generator.uniform(-0.5, 0.5, (3 * RATE_HZ, 2))
    error = generator.uniform(-1, 1, true.shape) * np.repeat([0.1, 0.01, 0.001], RATE_HZ)[:, None]
    truth = Result("reference", "separate", {"low": written(tmp_path / "true.wav", true)}, is_truth=True)
    given = Result("a", "separate", {"low": written(tmp_path / "given.wav", 0.5 * (true + error))}, gain=0.5)
    for start_s, length_s in ((0, 1), (1, 1), (2, 99), (0, 99)):
        part = slice(start_s * RATE_HZ, (start_s + length_s) * RATE_HZ)
        expected = 10 * np.log10(np.square(true[part]).sum() / np.square(error[part]).sum())
        assert sdr_db(given, truth, "low", start_s, length_s) == pytest.approx(expected, abs=0.01)


def test_where_there_is_nothing_to_compare_there_is_no_sdr(tmp_path: Path) -> None:
    wave = np.random.default_rng(3).uniform(-0.5, 0.5, (1000, 2))
    given = Result("a", "separate", dict.fromkeys(("low", "mixture"), written(tmp_path / "given.wav", wave)))

    def sdr(true: np.ndarray, name: str = "low", rate_hz: int = RATE_HZ) -> float | None:
        path = written(tmp_path / "true.wav", true, rate_hz)
        return sdr_db(given, Result("reference", "separate", dict.fromkeys(("low", "mixture"), path)), name, 0, 1)

    assert sdr(wave) is not None
    assert sdr(wave[:-1]) is None
    assert sdr(wave[:, 0]) is None
    assert sdr(wave, rate_hz=48_000) is None
    assert sdr(0 * wave) is None
    assert sdr(wave, "mixture") is None
    assert sdr_db(given, Result("reference", "separate", {}), "low", 0, 1) is None
    with pytest.raises(InputError, match="ends before sample"):
        sdr_db(given, given, "low", 5, 1)
