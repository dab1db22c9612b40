from __future__ import annotations

import collections
import json
import os
import pickle
import sys
import types
import zipfile
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from demucs.htdemucs import HTDemucs

from polyres.core.errors import WeightsError
from polyres.separation.official import SUPPORTED_CLASS
from polyres.weights.packages import Inert, is_official, read_fraction, read_package
from tests.separation.oracle import SMALL, demucs_model, serialize, write_safetensors, write_th

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def model() -> HTDemucs:
    return demucs_model(SMALL)


def rejects(path: Path, text: str) -> None:
    with pytest.raises(WeightsError, match=text) as caught:
        read_package(path)
    assert "\n" not in str(caught.value)


def save(content: Any, path: Path) -> Path:
    torch.save(content, path)
    return path


@pytest.mark.parametrize("layout", ["th", "safetensors"])
def test_both_layouts_hold_the_same(model: HTDemucs, layout: str, tmp_path: Path) -> None:
    path = tmp_path / f"x.{layout}"
    (write_th if layout == "th" else write_safetensors)(model, path)
    package = read_package(str(path))
    assert (package.klass, package.args, package.where) == (SUPPORTED_CLASS, (), str(path))
    assert package.kwargs == SMALL
    assert isinstance(package.kwargs["segment"], Fraction)
    assert package.state.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(package.state[name], value.half()), name


def test_layouts_of_safetensors_are_told_apart(model: HTDemucs, tmp_path: Path) -> None:
    assert is_official(write_safetensors(model, tmp_path / "x.safetensors"))
    with pytest.raises(WeightsError, match="there is no weight file"):
        is_official(tmp_path / "none.safetensors")


# -- nothing is executed ----------------------------------------------------------------------------------------------


class Evil:
    """Runs something when unpickled by an unrestricted loader."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.call


def write_zip(path: Path, content: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", content)
        archive.writestr("x/version", "3\n")
        archive.writestr("x/byteorder", "little")
    return path


@pytest.mark.parametrize("place", ["klass", "kwargs", "training_args", "state", "metrics"])
@pytest.mark.parametrize("how", ["system", "eval", "exec", "open", "import"])
def test_code_in_a_package_is_not_run(model: HTDemucs, place: str, how: str, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    evil = {
        "system": Evil(os.system, f"touch {mark}"),
        "eval": Evil(eval, f"open({str(mark)!r}, 'w')"),
        "exec": Evil(exec, f"open({str(mark)!r}, 'w')"),
        "open": Evil(open, str(mark), "w"),
        "import": Evil(__import__, "antigravity"),
    }[how]
    content = serialize(model)
    content[place] = {"a": evil} if place == "kwargs" else evil
    path = save(content, tmp_path / "x.th")
    rejects(path, r"x\.th names '\w+\.\w+', which is not on the allow-list; it is refused unread")
    assert not mark.exists()


def test_the_same_code_is_run_by_an_unrestricted_loader(tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    torch.load(save(Evil(os.mkdir, str(mark)), tmp_path / "x.th"), weights_only=False)
    assert mark.exists()


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_other_pickle_protocols_run_nothing_either(protocol: int, tmp_path: Path) -> None:
    mark = tmp_path / "was_run"
    content = pickle.dumps({"klass": Evil(os.mkdir, str(mark))}, protocol=protocol)
    rejects(write_zip(tmp_path / "x.th", content), r"x\.th (names 'posix\.mkdir'|holds more than weights|is damaged)")
    assert not mark.exists()


def test_names_on_the_allow_list_do_nothing(model: HTDemucs, tmp_path: Path) -> None:
    mark = tmp_path / "was_run.npy"
    content = serialize(model)
    content["training_args"] = Evil(np.save, str(mark), [1.0])
    assert read_package(save(content, tmp_path / "x.th")).klass == SUPPORTED_CLASS
    assert not mark.exists()


def test_the_official_class_is_not_called(model: HTDemucs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = serialize(model)
    content["training_args"] = Evil(HTDemucs, ["a"])
    path = save(content, tmp_path / "x.th")
    monkeypatch.setattr(HTDemucs, "__init__", lambda *args: pytest.fail("was called"))
    read_package(path)


def test_loading_leaves_no_name_allowed(model: HTDemucs, tmp_path: Path) -> None:
    before = set(torch.serialization.get_safe_globals())
    path = write_th(model, tmp_path / "x.th")
    read_package(path)
    assert set(torch.serialization.get_safe_globals()) == before
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)


def test_notes_about_the_training_may_hold_what_trainers_use(
    model: HTDemucs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = types.ModuleType("omegaconf.dictconfig")

    class DictConfig:
        def __init__(self, content: dict[str, Any]) -> None:
            self._content = content

    DictConfig.__module__, DictConfig.__qualname__ = "omegaconf.dictconfig", "DictConfig"
    module.DictConfig = DictConfig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    counts: dict[str, list[float]] = collections.defaultdict(list)
    counts["sdr"].append(9.0)
    content = serialize(model)
    content["training_args"] = {"config": DictConfig({"lr": 3e-4}), "any": Any, "counts": counts}
    content["metrics"] = {"nsdr": np.float64(7.5), "best": np.arange(3)}
    assert read_package(save(content, tmp_path / "x.th")).kwargs == SMALL


# -- files that cannot be read ----------------------------------------------------------------------------------------


def test_missing_empty_and_other_files(tmp_path: Path) -> None:
    rejects(tmp_path / "none.th", r"there is no weight file .*none\.th; check the path")
    (tmp_path / "empty.th").write_bytes(b"")
    rejects(tmp_path / "empty.th", r"empty\.th is empty; give an official \.th file")
    (tmp_path / "text.th").write_text("hello")
    rejects(tmp_path / "text.th", r"text\.th is not a torch\.save archive")
    rejects(tmp_path, "cannot read .*: Is a directory")


def test_the_old_format_without_an_archive(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "old.th", _use_new_zipfile_serialization=False)
    rejects(tmp_path / "old.th", r"old\.th is not a torch\.save archive")


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_cut_archives(model: HTDemucs, share: float, tmp_path: Path) -> None:
    path = write_th(model, tmp_path / "x.th")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    rejects(path, r"x\.th is cut or damaged; get the file again")


def test_archives_of_something_else(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "song.th", "w") as archive:
        archive.writestr("song.txt", "la la")
    rejects(tmp_path / "song.th", r"song\.th is damaged")
    rejects(save({"a": 1}, tmp_path / "dict.th"), "is not an official Demucs package")
    rejects(save([1, 2], tmp_path / "list.th"), "is not an official Demucs package")
    rejects(write_zip(tmp_path / "junk.th", b"\x80\x02junk"), r"junk\.th (holds more than weights|is damaged)")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"klass": "demucs.htdemucs.HTDemucs"}, "its klass is str instead of a class"),
        ({"klass": torch.Tensor}, "its klass is .* instead of a class"),
        ({"args": None}, "args, kwargs or state have the wrong type"),
        ({"kwargs": [1]}, "args, kwargs or state have the wrong type"),
        ({"state": torch.zeros(2)}, "args, kwargs or state have the wrong type"),
        ({"kwargs": {"channels": torch.zeros(1)}}, "argument 'channels' is Tensor; plain values are needed"),
        ({"kwargs": {"growth": np.float64(2)}}, "argument 'growth' is Inert; plain values are needed"),
        ({"args": [[{"x": torch.zeros(1)}]]}, "argument 0 is list; plain values are needed"),
        ({"state": {"a": 1}}, "state holds 'a', which is no tensor"),
        ({"state": {"__quantized": True, "quantized": []}}, "is quantised, which is not supported"),
    ],
)
def test_packages_with_the_wrong_content(model: HTDemucs, changes: dict[str, Any], text: str, tmp_path: Path) -> None:
    rejects(save({**serialize(model), **changes}, tmp_path / "x.th"), text)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"kwargs": "{"}, "its metadata is damaged"),
        ({"kwargs": json.dumps({"segment": {"_type": "fraction", "numerator": 1}})}, "its metadata is damaged"),
        ({"kwargs": json.dumps({"a": {"_type": "fraction", "numerator": 1, "denominator": 0}})}, "is damaged"),
        ({"args": "3"}, "args, kwargs or state have the wrong type"),
        ({"structure": "{}"}, "is quantised, which is not supported"),
    ],
)
def test_safetensors_with_the_wrong_metadata(
    model: HTDemucs, changes: dict[str, str], text: str, tmp_path: Path
) -> None:
    rejects(write_safetensors(model, tmp_path / "x.safetensors", changes), text)


def test_safetensors_without_metadata(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.zeros(1)}, tmp_path / "x.safetensors", {"klass": "x"})
    rejects(tmp_path / "x.safetensors", "has no 'args' metadata; it is not an official Demucs file")


def test_fractions() -> None:
    assert read_fraction("39/5") == Fraction(39, 5)
    assert read_fraction("-3") == -3
    assert read_fraction(39, 5) == Fraction(39, 5)


@pytest.mark.parametrize("args", [("1e999999999",), ("x",), (1, 0), (1.5, 2), (), ("1", "2"), (True, 2), (1, 2, 3)])
def test_other_values_are_no_fractions(args: tuple[object, ...]) -> None:
    with pytest.raises(ValueError, match="is not a fraction"):
        read_fraction(*args)


def test_stand_ins_do_nothing() -> None:
    stand_in = Inert(1, "a")
    stand_in.__setstate__({"x": 1})
    assert vars(stand_in) == {}
