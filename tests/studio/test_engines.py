"""The real engine: separation and reconstruction by small models without training, and what is offered."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from polyres.codec.audioldm2 import parts as audioldm2_parts
from polyres.core.errors import PolyresError, UnknownNameError, WeightsError
from polyres.separation.load import load_separator
from polyres.studio.engines import Choice, PolyresEngine
from tests.studio.studios import song, tiny_weights


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own, with the small stand-in for a codec, and one thread."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POLYRES_CACHE", str(tmp_path_factory.mktemp("cache")))
        audioldm2_parts.tiny_folder()
        torch.set_num_threads(1)
        yield
        torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_weights(tmp_path_factory.mktemp("weights") / "tiny.safetensors")


def read(path: Path) -> np.ndarray:
    wave, _ = soundfile.read(path, dtype="float32", always_2d=True)
    return np.asarray(wave)


# -- what is offered --------------------------------------------------------------------------------------------------


def test_the_first_model_given_is_the_default_and_none_is_offered_twice(weights: Path) -> None:
    choices = PolyresEngine([str(weights), "default", "polyres-small", str(weights)], ["default"]).choices
    assert [(one.kind, one.label) for one in choices] == [
        ("separate", "tiny"),
        ("separate", "polyres-small"),
        ("reconstruct", "polyres-wave"),
    ]
    assert choices[0].id == "separate:tiny"


def test_models_of_one_name_are_told_apart_by_their_folders(weights: Path, tmp_path: Path) -> None:
    names = ("x/a/best.safetensors", "x/b/best.safetensors", "y/b/best.safetensors", "z/y/b.safetensors")
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True)
        path.write_bytes(weights.read_bytes())
    engine = PolyresEngine([str(path) for path in paths])
    labels = [one.label for one in engine.choices if one.kind == "separate"]
    assert labels == ["a", "x/b", "y/b", "y/b (2)", "polyres-small"]
    assert [engine._given[one.id] for one in engine.choices[:4]] == [str(path) for path in paths]


@pytest.mark.parametrize(
    ("models", "codecs", "error", "text"),
    [
        (["default", "htdemux"], [], UnknownNameError, "htdemux"),
        (["default", "gone/model.safetensors"], [], WeightsError, r"gone/model\.safetensors"),
        ([], ["audioldm3"], UnknownNameError, "audioldm3"),
        ([], ["audioldm2_tiny+frequenzy"], UnknownNameError, "frequenzy"),
        ([], ["default+frequency"], PolyresError, "enhancer"),
    ],
)
def test_whatever_was_asked_for_and_cannot_be_is_known_before_the_first_song(
    models: list[str], codecs: list[str], error: type[PolyresError], text: str
) -> None:
    with pytest.raises(error, match=text):
        PolyresEngine(models, codecs).check()


def test_after_the_check_the_default_is_loaded(weights: Path) -> None:
    engine = PolyresEngine([str(weights)], ["audioldm2_tiny"])
    engine.check()
    assert engine._loaded is not None
    assert engine._loaded[0] == "separate:tiny"


# -- what it does -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "rate_hz"), [(2, 44_100), (1, 22_050), (6, 48_000)])
def test_separation_gives_the_stems_of_the_command_line(
    weights: Path, tmp_path: Path, channels: int, rate_hz: int
) -> None:
    path = song(tmp_path / "a.wav", 0.4, channels, rate_hz)
    engine = PolyresEngine([str(weights)])
    shares: list[float] = []
    made = engine.run(engine.choices[0], path, tmp_path, shares.append)
    assert list(made.files) == ["drums", "bass", "other", "vocals"]
    expected = load_separator(str(weights), "cpu").separate_file(path, tmp_path / "cli")
    for name, file in made.files.items():
        assert file.is_relative_to(tmp_path / "out")
        assert read(file).shape == read(path).shape
        assert np.array_equal(read(file), read(expected.stems[name]))
    assert made.gain == expected.gain
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)


@pytest.mark.parametrize("enhancer", [None, "frequency", "gain_match"])
def test_reconstruction_gives_every_version_and_what_is_lost(tmp_path: Path, enhancer: str | None) -> None:
    path = song(tmp_path / "a.wav", 0.4)
    engine = PolyresEngine([], ["audioldm2_tiny" + (f"+{enhancer}" if enhancer else "")])
    choice = next(one for one in engine.choices if one.label.startswith("audioldm2_tiny"))
    made = engine.run(choice, path, tmp_path, lambda share: None)
    last = "codec" if enhancer is None else "enhanced"
    names = ["original", "codec", "enhanced", "difference"]
    assert list(made.files) == (names if enhancer else [name for name in names if name != "enhanced"])
    waves = {name: read(file) for name, file in made.files.items()}
    assert np.abs(waves["difference"]).max() > 0.01
    assert np.array_equal(waves["difference"], waves["original"] - waves[last])


def test_one_model_is_in_memory_at_a_time(weights: Path, tmp_path: Path) -> None:
    engine = PolyresEngine([str(weights)], ["audioldm2_tiny"])
    path = song(tmp_path / "a.wav", 0.2)
    for number, label in enumerate(["tiny", "audioldm2_tiny", "tiny"]):
        choice = next(one for one in engine.choices if one.label == label)
        folder = tmp_path / str(number)
        folder.mkdir()
        engine.run(choice, path, folder, lambda share: None)
        assert engine._loaded is not None
        assert engine._loaded[0] == choice.id


def test_a_song_that_cannot_be_used_is_named_for_models_and_codecs(weights: Path, tmp_path: Path) -> None:
    wave = np.zeros((9000, 2), np.float32)
    wave[5000] = np.nan
    soundfile.write(tmp_path / "nan.wav", wave, 44_100, subtype="FLOAT")
    engine = PolyresEngine([str(weights)], ["audioldm2_tiny"])
    for choice in engine.choices:
        if choice.label in ("tiny", "audioldm2_tiny"):
            with pytest.raises(PolyresError, match=r"nan\.wav holds a NaN sample at 0\.113 s"):
                engine.run(choice, tmp_path / "nan.wav", tmp_path, lambda share: None)
    assert [path.name for path in tmp_path.iterdir()] == ["nan.wav"]


def test_what_is_not_offered_is_refused(weights: Path, tmp_path: Path) -> None:
    engine = PolyresEngine([str(weights)])
    with pytest.raises(UnknownNameError, match=r"no 'separate:other' here; choose one of separate:tiny, "):
        engine.run(Choice("separate:other", "separate", "other"), tmp_path / "a.wav", tmp_path, lambda share: None)


class StopError(Exception):
    """The visitor changed their mind."""


@pytest.mark.parametrize("label", ["tiny", "audioldm2_tiny+frequency"])
def test_work_that_ends_in_the_middle_leaves_no_file(weights: Path, tmp_path: Path, label: str) -> None:
    path = song(tmp_path / "in" / "a.wav", 3)
    engine = PolyresEngine([str(weights)], ["audioldm2_tiny+frequency"])
    choice = next(one for one in engine.choices if one.label == label)
    shares: list[float] = []

    def stop(share: float) -> None:
        shares.append(share)
        if share > 0.3:
            raise StopError

    folder = tmp_path / "work"
    folder.mkdir()
    with pytest.raises(StopError):
        engine.run(choice, path, folder, stop)
    assert 0.3 < shares[-1] < 0.95
    assert [one for one in folder.rglob("*") if one.is_file()] == []
