"""Studies from folders of results: aligned, matched, hidden, and refused with reasons."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from polyres.core.errors import ConfigError, InputError, OutputError
from polyres.listen.design.anchors import LOW_HZ, loudness_lufs, low_pass
from polyres.listen.design.build import BUILD_NAME, build_study
from polyres.listen.design.files import ListenStudy, StudyRecipe, load_study

RATE_HZ = 16_000
STEMS = ("drums", "bass")


def write(path: Path, wave: np.ndarray, rate_hz: int = RATE_HZ) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave.T, rate_hz, subtype="FLOAT")


def song(seed: int, seconds: int = 8) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    time_s = np.arange(seconds * RATE_HZ) / RATE_HZ
    bass = 0.2 * np.sin(2 * np.pi * 80 * time_s) + 0.05 * np.sin(2 * np.pi * 5000 * time_s)
    drums = generator.normal(0.0, 0.1, len(time_s)) * np.exp(-8 * (time_s % 0.5))
    return {"bass": np.stack([bass, 0.9 * bass]), "drums": np.stack([drums, drums])}


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for seed in range(3):
        stems = song(seed)
        for stem, wave in stems.items():
            write(tmp_path / "refs" / f"song{seed}" / f"{stem}.wav", wave)
            other = stems["bass" if stem == "drums" else "drums"]
            write(tmp_path / "good" / f"song{seed}" / f"{stem}.wav", 0.5 * wave + 0.01 * other)
            write(tmp_path / "poor" / f"song{seed}" / f"{stem}.flac".replace("flac", "wav"), wave + 0.3 * other)
    return tmp_path


def recipe(folder: Path, **changes: Any) -> StudyRecipe:
    values: dict[str, Any] = {
        "name": "test",
        "title": "A test",
        "references": str(folder / "refs"),
        "systems": {"good": str(folder / "good"), "poor": str(folder / "poor")},
        "stems": ["drums"],
        "anchors": ["low", "interference"],
        "sample_rate_hz": RATE_HZ,
        "excerpts": {"length_s": 3, "sources": list(STEMS)},
        "levels": {"fade_s": 0, "bit_depth": 24},
    }
    return StudyRecipe.from_dict({**values, **changes})


def sounds(study: ListenStudy, folder: Path, page: int = 0) -> dict[str, np.ndarray]:
    labels = {condition.id: condition.label for condition in study.conditions}
    names = {labels[name]: path for name, path in study.pages[page].audio.items()}
    if study.pages[page].reference:
        names["open"] = str(study.pages[page].reference)
    return {label: soundfile.read(folder / name, always_2d=True)[0].T for label, name in names.items()}


def test_a_study_holds_every_sound_aligned_and_equally_loud(folders: Path) -> None:
    lines: list[str] = []
    study = build_study(recipe(folders), folders / "study", lines.append)
    assert load_study(folders / "study") == study
    assert len(study.pages) == 3
    for number, page in enumerate(study.pages):
        found = sounds(study, folders / "study", number)
        assert set(found) == {"good", "poor", "reference", "anchor 3.5 kHz", "anchor mixture", "open"}
        np.testing.assert_array_equal(found["reference"], found["open"])
        levels = [loudness_lufs(wave.astype(np.float32), RATE_HZ) for wave in found.values()]
        assert max(levels) - min(levels) < 0.05
        assert all(np.abs(wave).max() <= 1.0 for wave in found.values())
        start = round(page.start_s * RATE_HZ)
        stems = song(int(page.track[-1]))
        wide = low_pass(stems["drums"].astype(np.float32), LOW_HZ, RATE_HZ)
        truth = {
            "reference": stems["drums"],
            "good": 0.5 * stems["drums"] + 0.01 * stems["bass"],
            "anchor mixture": stems["drums"] + stems["bass"],
            "anchor 3.5 kHz": wide,
        }
        for label, wave in truth.items():
            part = wave[:, start : start + 3 * RATE_HZ]
            gain = float((found[label] * part).sum() / (part * part).sum())
            np.testing.assert_allclose(found[label], gain * part, atol=2e-5, err_msg=label)
    assert len(lines) == 3


def test_names_and_ids_tell_nothing(folders: Path) -> None:
    study = build_study(recipe(folders), folders / "study")
    files = [name for page in study.pages for name in page.files()]
    assert len(set(files)) == 6 * 3
    assert all(set(Path(name).stem) <= set("0123456789abcdef") for name in files)
    text = json.dumps([page.to_dict()["audio"] for page in study.pages])
    assert not any(word in text for word in ("good", "poor", "ref", "anchor"))
    sizes = {(folders / "study" / name).stat().st_size for name in files}
    assert len(sizes) == 1
    log = json.loads((folders / "study" / BUILD_NAME).read_text())["files"]
    assert {line["file"] for line in log} == set(files)


def test_the_same_recipe_gives_the_same_study_and_another_seed_another(folders: Path) -> None:
    first = build_study(recipe(folders), folders / "a")
    again = build_study(recipe(folders), folders / "b")
    assert first == again
    options = {"length_s": 3, "sources": list(STEMS), "seed": 1}
    other = build_study(recipe(folders, excerpts=options), folders / "c")
    assert [page.start_s for page in other.pages] != [page.start_s for page in first.pages]


def test_levels_can_be_kept(folders: Path) -> None:
    study = build_study(recipe(folders, levels={"match": False, "fade_s": 0, "bit_depth": 24}), folders / "study")
    found = sounds(study, folders / "study")
    ratio = np.linalg.norm(found["good"]) / np.linalg.norm(found["reference"])
    assert ratio == pytest.approx(0.5, abs=0.01)


def test_the_mixture_holds_stems_that_need_not_sound(folders: Path) -> None:
    hum = np.full((2, 8 * RATE_HZ), 0.02) * np.sin(np.arange(8 * RATE_HZ) / 9)
    for seed in range(3):
        write(folders / "refs" / f"song{seed}" / "vocals.wav", hum)
    study = build_study(recipe(folders, levels={"match": False, "fade_s": 0, "bit_depth": 24}), folders / "study")
    page, found = study.pages[0], sounds(study, folders / "study")
    start = round(page.start_s * RATE_HZ)
    stems = song(int(page.track[-1]))
    mixture = (stems["drums"] + stems["bass"] + hum)[:, start : start + 3 * RATE_HZ]
    np.testing.assert_allclose(found["anchor mixture"], mixture, atol=2e-5)


def test_training_pages_subsets_and_stems(folders: Path) -> None:
    made = recipe(folders, stems=["drums", "bass"], training_pages=2, anchors=[], kind="ab")
    study = build_study(made, folders / "study")
    assert (len(study.training), len(study.pages)) == (2, 4)
    assert {page.stem for page in (*study.pages, *study.training)} == set(STEMS)
    assert study.pages[0].reference is None
    some = {"length_s": 3, "sources": list(STEMS), "max_tracks": 2}
    assert len(build_study(recipe(folders, excerpts=some), folders / "two").pages) == 2
    one = {"length_s": 3, "sources": list(STEMS), "tracks": ["song1"], "per_track": 2}
    assert {page.track for page in build_study(recipe(folders, excerpts=one), folders / "one").pages} == {"song1"}


def test_late_and_silent_results_are_told(folders: Path) -> None:
    late = np.roll(song(0)["drums"], 80, axis=1)
    write(folders / "good" / "song0" / "drums.wav", late)
    write(folders / "poor" / "song1" / "drums.wav", 0.0 * song(1)["drums"])
    lines: list[str] = []
    build_study(recipe(folders), folders / "study", lines.append)
    assert "warning: good, song0, drums is 5.0 ms late" in lines
    assert any("warning: poor stays" in line and "almost silent" in line for line in lines)


def short(folder: Path) -> None:
    write(folder / "poor" / "song1" / "drums.wav", song(1, 4)["drums"])


def gone(folder: Path) -> None:
    (folder / "good" / "song2" / "drums.wav").unlink()


def nothing(folder: Path) -> None:
    return


@pytest.mark.parametrize(
    ("spoil", "changes", "error", "message"),
    [
        (gone, {}, InputError, r"system 'good' has no drums of 'song2': no .*drums\.\*"),
        (short, {}, InputError, "is 4.00 s longer or shorter than its reference"),
        (nothing, {"systems": {"x": "nowhere"}}, InputError, "nowhere"),
        (nothing, {"references": "nowhere"}, InputError, "nowhere"),
        (nothing, {"excerpts": {"tracks": ["songX"]}}, InputError, "has no track 'songX'; it has song0, song1, song2"),
        (nothing, {"stems": ["vocals"]}, InputError, "no track of .* has an excerpt to use"),
        (nothing, {"excerpts": {"length_s": 60}}, InputError, "has an excerpt to use; the lines above say why"),
        (nothing, {"training_pages": 3}, InputError, "3 excerpts leave none besides 3 training pages"),
    ],
)
def test_what_cannot_be_built_is_refused(
    folders: Path, spoil: Callable[[Path], None], changes: dict[str, Any], error: type[Exception], message: str
) -> None:
    spoil(folders)
    with pytest.raises(error, match=message):
        build_study(recipe(folders, **changes), folders / "study")
    assert not (folders / "study" / "study.json").exists()


def test_a_system_cannot_be_called_reference(folders: Path) -> None:
    systems = {"reference": str(folders / "good"), "poor": str(folders / "poor")}
    with pytest.raises(ConfigError, match="a system cannot be called 'reference', which another condition is"):
        build_study(recipe(folders, systems=systems), folders / "study")


def test_studies_are_not_written_over(folders: Path) -> None:
    build_study(recipe(folders), folders / "study")
    with pytest.raises(OutputError, match="holds a study already; choose another folder"):
        build_study(recipe(folders), folders / "study")
    (folders / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make"):
        build_study(recipe(folders), folders / "file")


def test_results_of_another_rate_are_resampled(folders: Path) -> None:
    study = build_study(recipe(folders, sample_rate_hz=22_050), folders / "study")
    found = sounds(study, folders / "study")
    assert {wave.shape for wave in found.values()} == {(2, 3 * 22_050)}
