from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import huggingface_hub
import pytest
import torch
import yaml
from demucs.htdemucs import HTDemucs

from polyres.core.errors import OfflineError, UnknownNameError, WeightsError
from polyres.separation import registry
from polyres.separation.bag import Bag
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.registry import known_models, load_model
from polyres.separation.weights import save_separator
from polyres.weights import hub
from polyres.weights.hub import OFFICIAL, REFUSED, remark_licence
from tests.separation.oracle import SIX, SMALL, demucs_model, halved, noise, relative_error, write_safetensors, write_th

pytestmark = pytest.mark.usefixtures("one_thread")

TINY = SeparatorConfig.from_dict(
    {"n_fft": (512,), "channels": 4, "segment_samples": 2000, "transformer": {"kind": "none"}}
)


@pytest.fixture(scope="module")
def officials() -> list[HTDemucs]:
    return [halved(demucs_model(SMALL, seed)) for seed in range(2)]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reaches the network or the real cache."""
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(hub, "LEGACY_URL", "http://127.0.0.1:9/")

    def offline(repository: str, name: str, local_dir: Path) -> str:
        raise ConnectionError("offline")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    remark_licence.cache_clear()
    return tmp_path / "cache"


def same(ours: Separator | Bag, official: HTDemucs) -> bool:
    mix = noise(1, 2, 9000)
    with torch.no_grad():
        return relative_error(ours(mix), official(mix)) <= 1e-5


def write_bag(folder: Path, name: str, content: object) -> Path:
    path = folder / f"{name}.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


# -- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "nearest"), [("htdemucs_fx", "htdemucs_ft"), ("HTDemucs", "htdemucs"), ("defualt", "default")]
)
def test_unknown_names_suggest_the_nearest(name: str, nearest: str) -> None:
    text = rf"unknown model '{name}'; did you mean '{nearest}'\? known: default, polyres-small, htdemucs, "
    with pytest.raises(UnknownNameError, match=text):
        load_model(name)


@pytest.mark.parametrize("name", list(REFUSED))
def test_other_official_models_are_refused_with_the_reason(name: str) -> None:
    with pytest.raises(
        WeightsError, match=rf"^{name} is .*recurrent layers.*; only the transformer models can be read"
    ):
        load_model(name)


def test_the_list_of_models(cache: Path) -> None:
    known = {model.name: model for model in known_models()}
    assert list(known) == ["polyres-small", "htdemucs", "htdemucs_ft", "htdemucs_6s"]
    assert known["htdemucs"].parameters == 41_984_456
    assert known["htdemucs_6s"].sources == tuple(SIX)
    assert "scientific purposes only" in known["htdemucs_ft"].licence
    assert known["htdemucs_ft"].source == "https://huggingface.co/adefossez/HTDemucs-ft"
    assert not known["htdemucs"].present
    (cache / "htdemucs").mkdir(parents=True)
    (cache / "htdemucs" / "955717e8.safetensors").touch()
    assert {model.name: model.present for model in known_models()}["htdemucs"]


def test_offline_says_what_to_do(cache: Path) -> None:
    with pytest.raises(
        OfflineError, match=rf"cannot download htdemucs_6s .* into the folder {cache}/htdemucs_6s by hand"
    ):
        load_model("htdemucs_6s")


def test_official_names_load_from_the_cache(cache: Path, officials: list[HTDemucs]) -> None:
    (cache / "htdemucs").mkdir(parents=True)
    write_safetensors(officials[0], cache / "htdemucs" / "955717e8.safetensors")
    model = load_model("htdemucs", torch.device("cpu"))
    assert isinstance(model, Separator)
    assert not model.training
    assert same(model, officials[0])


@pytest.mark.slow
def test_the_fine_tuned_bag_takes_each_source_from_its_own_model(cache: Path, officials: list[HTDemucs]) -> None:
    (cache / "htdemucs_ft").mkdir(parents=True)
    order = [0, 1, 0, 1]
    for index, name in zip(order, OFFICIAL["htdemucs_ft"].files, strict=True):
        write_th(officials[index], cache / "htdemucs_ft" / f"{name.partition('-')[0]}.th")
    bag = load_model("htdemucs_ft")
    assert isinstance(bag, Bag)
    assert bag.weights == tuple(tuple(float(row == column) for column in range(4)) for row in range(4))
    mix = noise(1, 2, 9000)
    with torch.no_grad():
        out = bag(mix)
        for source, index in enumerate(order):
            assert relative_error(out[:, source], officials[index](mix)[:, source]) <= 1e-5


def test_weights_with_other_sources_than_the_name_promises(cache: Path, officials: list[HTDemucs]) -> None:
    (cache / "htdemucs_6s").mkdir(parents=True)
    write_th(officials[0], cache / "htdemucs_6s" / "5c90dfd2.th")
    with pytest.raises(WeightsError, match="has the sources drums, bass, other, vocals; htdemucs_6s has others"):
        load_model("htdemucs_6s")


def test_the_licence_is_remarked_for_official_weights_only(
    tmp_path: Path, officials: list[HTDemucs], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="polyres"):
        load_model(write_th(officials[0], tmp_path / "mine.th"))
        assert caplog.records == []
        for _ in range(2):
            load_model(write_th(officials[0], tmp_path / "955717e8.th"))
    assert caplog.text.count("scientific purposes only") == 1


# -- the embedded default ---------------------------------------------------------------------------------------------


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "polyres-small.safetensors"

    @contextmanager
    def file() -> Iterator[Path]:
        yield path

    monkeypatch.setattr(registry, "_embedded_file", file)
    return path


@pytest.mark.parametrize("name", ["default", "polyres-small"])
def test_the_default_is_the_embedded_model(name: str, embedded: Path) -> None:
    save_separator(Separator(TINY), embedded, {"licence": "MIT"})
    model = load_model(name)
    assert isinstance(model, Separator)
    assert model.config == TINY
    info = known_models()[0]
    assert (info.name, info.present, info.sources, info.licence) == ("polyres-small", True, TINY.sources, "MIT")
    assert info.parameters == sum(value.numel() for value in model.parameters())


def test_an_installation_without_the_embedded_model(embedded: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"polyres-small is not part of this installation \(.*\); install polyres again"
    ):
        load_model()
    info = known_models()[0]
    assert (info.present, info.parameters) == (False, 0)


# -- paths ------------------------------------------------------------------------------------------------------------


def test_our_own_files_and_run_folders(tmp_path: Path) -> None:
    save_separator(Separator(TINY), tmp_path / "run" / "best.safetensors")
    for path in (tmp_path / "run", tmp_path / "run" / "best.safetensors", str(tmp_path / "run")):
        model = load_model(path)
        assert isinstance(model, Separator)
        assert model.config == TINY


@pytest.mark.parametrize("name", ["x.th", "x.safetensors"])
def test_official_files_alone_and_in_a_folder(name: str, officials: list[HTDemucs], tmp_path: Path) -> None:
    path = tmp_path / "a" / name
    path.parent.mkdir()
    (write_th if path.suffix == ".th" else write_safetensors)(officials[1], path)
    assert same(load_model(path), officials[1])
    assert same(load_model(tmp_path / "a"), officials[1])


def test_a_name_in_the_working_folder_is_a_path(
    officials: list[HTDemucs], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_th(officials[1], tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    assert same(load_model("mine"), officials[1])


@pytest.mark.slow
def test_a_bag_by_its_yaml_file_or_folder(officials: list[HTDemucs], tmp_path: Path) -> None:
    write_th(officials[0], tmp_path / "aaaa.th")
    write_safetensors(officials[1], tmp_path / "bbbb.safetensors")
    weights = [[1.0, 0.0, 0.5, 1.0], [0.0, 2.0, 0.5, 3.0]]
    path = write_bag(tmp_path, "mix", {"models": ["aaaa", "bbbb"], "weights": weights})
    for given in (path, tmp_path):
        bag = load_model(given)
        assert isinstance(bag, Bag)
        assert bag.weights == tuple(map(tuple, weights))
        assert same(bag.models[0], officials[0])  # type: ignore[arg-type]
        assert same(bag.models[1], officials[1])  # type: ignore[arg-type]


def test_a_bag_of_one_is_the_model_itself_and_may_shorten_its_segment(
    officials: list[HTDemucs], tmp_path: Path
) -> None:
    write_th(officials[0], tmp_path / "aaaa.th")
    model = load_model(write_bag(tmp_path, "one", {"models": ["aaaa"], "segment": 0.25}))
    assert isinstance(model, Separator)
    assert model.segment_samples == 11_025


@pytest.mark.slow
def test_a_folder_with_official_files_and_no_yaml(officials: list[HTDemucs], tmp_path: Path) -> None:
    for index, name in enumerate(OFFICIAL["htdemucs_ft"].files):
        write_safetensors(officials[index % 2], tmp_path / f"{name.partition('-')[0]}.safetensors")
    bag = load_model(tmp_path)
    assert isinstance(bag, Bag)
    assert bag.weights == OFFICIAL["htdemucs_ft"].weights


def test_folders_that_do_not_say_which_model(officials: list[HTDemucs], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no weights; best\.safetensors, a \.safetensors or a \.th file"):
        load_model(tmp_path)
    write_th(officials[0], tmp_path / "a.th")
    write_th(officials[0], tmp_path / "b.th")
    with pytest.raises(WeightsError, match=r"holds several models; name one: .*a\.th, .*b\.th"):
        load_model(tmp_path)
    write_bag(tmp_path, "one", {"models": ["a"]})
    write_bag(tmp_path, "two", {"models": ["b"]})
    write_bag(tmp_path, "notes", {"author": "x"})
    with pytest.raises(WeightsError, match=r"holds several models; name one: .*one\.yaml, [^,]*two\.yaml$"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ({"models": []}, "does not name the models of a bag"),
        ({"models": ["../up"]}, "does not name the models of a bag"),
        (["aaaa"], "does not name the models of a bag"),
        ({"models": ["gone"]}, r"names gone, but .* has no gone\.safetensors and no gone-….th"),
        ({"models": ["aaaa"], "weights": 3}, "its weights are not rows of numbers"),
        ({"models": ["aaaa"], "weights": [["a"]]}, "its weights are not rows of numbers"),
        ({"models": ["aaaa"], "weights": [[1]]}, r"weights are 1 rows of \[1\] numbers; 1 rows of 4 are needed"),
        ({"models": ["aaaa"], "segment": "long"}, "segment 'long' is not a number of seconds"),
    ],
)
def test_bags_with_the_wrong_content(content: object, text: str, officials: list[HTDemucs], tmp_path: Path) -> None:
    write_th(officials[0], tmp_path / "aaaa.th")
    with pytest.raises(WeightsError, match=text):
        load_model(write_bag(tmp_path, "bag", content))


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    for name in ("x.th", "x.safetensors", "x.yaml", "no/folder"):
        with pytest.raises(WeightsError, match=r"there is no weight file .*; check the path"):
            load_model(tmp_path / name)
    (tmp_path / "odd.yaml").write_text("a: [")
    with pytest.raises(WeightsError, match=r"cannot read .*odd\.yaml"):
        load_model(tmp_path / "odd.yaml")


def test_a_damaged_official_file_is_told_by_its_name(officials: list[HTDemucs], tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="is damaged: its SHA-256 begins with"):
        load_model(write_th(officials[0], tmp_path / "955717e8-8726e21a.th"))
