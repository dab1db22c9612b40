"""What is in an exported page: the sounds to the sample, figures, and nothing that the page would have to load."""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from polyres.batch.manifest import MANIFEST_NAME
from polyres.cli.main import main
from polyres.codec.audioldm2 import parts as audioldm2_parts
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.studio import export
from polyres.studio.export import ExportOptions, Result, export_page, find_results, sdr_db, true_stems
from tests.studio.studios import RATE_HZ, reconstructed, separated, song, tiny_weights


def held(page: Path) -> Any:
    """What the page's script reads."""
    return json.loads(page.read_text(encoding="utf-8").partition('id="data">')[2].partition("</script>")[0])


def sound(lane: dict[str, str]) -> np.ndarray:
    wave, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(lane["audio"])), always_2d=True)
    assert rate_hz == RATE_HZ
    return np.asarray(wave)


def truth(folder: Path) -> Path:
    """True stems of the song that `separated` makes, the high one with 1 % more."""
    wave, rate_hz = soundfile.read(folder.parent / "mixture.wav")
    target = folder.parent / "truth" / "tune"
    target.mkdir(parents=True)
    soundfile.write(target / "low.wav", wave * [1, 0], rate_hz, subtype="FLOAT")
    soundfile.write(target / "high.wav", wave * [0, 1.01], rate_hz, subtype="FLOAT")
    return target.parent


def test_a_page_holds_every_song_and_result_to_the_sample(tmp_path: Path) -> None:
    folder = separated(tmp_path / "out")
    said: list[str] = []
    assert export_page(folder, tmp_path / "a.html", ExportOptions(start_s=0.5, length_s=1), said.append) == 1
    assert said == ["tune: one", "tune: two"]
    data = held(tmp_path / "a.html")
    assert [song["title"] for song in data["songs"]] == ["tune"]
    results = data["songs"][0]["results"]
    assert [(one["label"], one["kind"], one["truth"], one["rate_hz"]) for one in results] == [
        ("one", "separate", False, RATE_HZ),
        ("two", "separate", False, RATE_HZ),
    ]
    wave, _ = soundfile.read(tmp_path / "mixture.wav")
    for name, sides in {"low": [1, 0], "high": [0, 1], "mixture": [1, 1]}.items():
        lane = results[0]["lanes"][name]
        assert np.abs(sound(lane) - (wave * sides)[22_050:66_150]).max() <= 2**-16 + 1e-7
        assert lane["view"]["columns"] == 690
        assert "sdr_db" not in lane


def test_true_stems_stand_first_and_each_stem_tells_its_sdr(tmp_path: Path) -> None:
    folder = separated(tmp_path / "out", ["one"])
    options = ExportOptions(reference=truth(folder), length_s=1)
    export_page(folder, tmp_path / "a.html", options)
    reference, one = held(tmp_path / "a.html")["songs"][0]["results"]
    assert (reference["label"], reference["truth"], list(reference["lanes"])) == ("reference", True, ["low", "high"])
    assert "sdr_db" not in reference["lanes"]["low"]
    # An error of 1 % of the reference: 20 log10(1.01 / 0.01) dB.
    assert one["lanes"]["high"]["sdr_db"] == pytest.approx(40.09, abs=0.02)
    assert one["lanes"]["low"]["sdr_db"] > 90
    assert one["lanes"]["mixture"]["sdr_db"] is None


def test_a_reconstruction_has_its_difference(tmp_path: Path) -> None:
    export_page(reconstructed(tmp_path / "out"), tmp_path / "a.html", ExportOptions(length_s=1))
    (result,) = held(tmp_path / "a.html")["songs"][0]["results"]
    assert list(result["lanes"]) == ["original", "codec", "enhanced", "difference"]
    waves = {name: sound(lane) for name, lane in result["lanes"].items()}
    lost = waves["original"] - waves["enhanced"]
    assert np.abs(lost).max() > 0.1
    assert np.abs(waves["difference"] - lost).max() <= 2**-14


def test_versions_of_unequal_length_have_no_difference(tmp_path: Path) -> None:
    folder = reconstructed(tmp_path / "out")
    path = folder / "echo" / "tune" / "enhanced.wav"
    wave, rate_hz = soundfile.read(path)
    soundfile.write(path, wave[:-1], rate_hz, subtype="PCM_24")
    export_page(folder, tmp_path / "a.html", ExportOptions(length_s=1))
    assert list(held(tmp_path / "a.html")["songs"][0]["results"][0]["lanes"]) == ["original", "codec", "enhanced"]


def test_a_result_that_was_turned_down_tells_it_and_its_mixture_is_as_loud(tmp_path: Path) -> None:
    folder = separated(tmp_path / "out", ["one"])
    path = folder / "one" / "tune" / MANIFEST_NAME
    path.write_text(path.read_text().replace('"gain": 1.0', '"gain": 0.5'))
    export_page(folder, tmp_path / "a.html", ExportOptions(length_s=1))
    (result,) = held(tmp_path / "a.html")["songs"][0]["results"]
    assert result["gain"] == 0.5
    wave, _ = soundfile.read(tmp_path / "mixture.wav")
    assert np.abs(sound(result["lanes"]["mixture"]) - 0.5 * wave[:RATE_HZ]).max() <= 2**-15


def test_a_page_loads_nothing_and_its_data_cannot_end_its_element(tmp_path: Path) -> None:
    folder = separated(tmp_path / "out", ["one"])
    (folder / "one" / "tune").rename(folder / "one" / "<script>alert(1)<!--")
    export_page(folder, tmp_path / "a.html", ExportOptions(title="</title><b>", length_s=0.1))
    text = (tmp_path / "a.html").read_text(encoding="utf-8")
    assert "<script>alert" not in text
    assert "<b>" not in text
    assert len(re.findall(r"<script\b", text)) == text.count("</script>") == 2
    assert not re.search(r"\bimport\b.*\bfrom\b|@import|url\(|\bsrc=|https?://(?!www\.w3\.org/2000/svg)", text)
    names = re.findall(r"^(?:export )?(?:const|let|(?:async )?function|class) (\w+)", text, flags=re.MULTILINE)
    assert len(names) == len(set(names)) > 20  # all modules share one scope


def test_mp3_is_smaller_where_the_sound_is_dense(tmp_path: Path) -> None:
    folder = separated(tmp_path / "out", ["one"])
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (2 * RATE_HZ, 2))
    soundfile.write(tmp_path / "mixture.wav", noise, RATE_HZ, subtype="PCM_16")
    sizes = {}
    for kind in ("flac", "mp3"):
        export_page(folder, tmp_path / f"{kind}.html", ExportOptions(format=kind))
        sizes[kind] = len(held(tmp_path / f"{kind}.html")["songs"][0]["results"][0]["lanes"]["mixture"]["audio"])
    assert sizes["mp3"] < sizes["flac"]


def test_what_cannot_be_a_page_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = separated(tmp_path / "out", ["one"])
    out = tmp_path / "a.html"
    for wrong, text in ((0.0, "holds nothing"), (float("nan"), "holds nothing")):
        with pytest.raises(ConfigError, match=text):
            ExportOptions(length_s=wrong)
    with pytest.raises(ConfigError, match="'ogg' is not for pages; choose flac or mp3"):
        ExportOptions(format="ogg")
    with pytest.raises(InputError, match="ends before 9 s"):
        export_page(folder, out, ExportOptions(start_s=9))
    with pytest.raises(OutputError, match=r"cannot write '.*'"):
        export_page(folder, tmp_path, ExportOptions(length_s=0.1))
    monkeypatch.setattr(export, "MAX_PAGE_BYTES", 1000)
    with pytest.raises(OutputError, match="too large for a browser; choose fewer --seconds, or --format mp3"):
        export_page(folder, out)
    assert not out.exists()


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
