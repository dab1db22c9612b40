"""What is in an exported page: the sounds to the sample, figures, and nothing that the page would have to load."""

from __future__ import annotations

import base64
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from polyres.batch.manifest import MANIFEST_NAME
from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.studio import export
from polyres.studio.export import ExportOptions, export_page
from tests.studio.studios import RATE_HZ, reconstructed, separated


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
