"""Models by anything that names one."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.separation.complexity.subjects import (
    ARCHITECTURES,
    check_subject,
    config_from_yaml,
    load_subject,
    subjects_named,
)
from polyres.separation.model import Separator
from polyres.separation.training.task import TrainConfig
from polyres.separation.variants import VARIANTS
from polyres.separation.weights import save_separator
from polyres.training.run_folder import RunFolder
from tests.separation.fusion_report.runs import SMALL, Recipe, small


def config_of(name: str) -> object:
    model = load_subject(name)
    assert isinstance(model, Separator)
    assert not model.training
    return model.config


def test_names_of_variants_and_the_default() -> None:
    assert config_of("mrx") == VARIANTS["mrx"]
    assert config_of("default") == config_of("polyres-small")


def test_files_and_folders(tmp_path: Path) -> None:
    path = save_separator(small(), tmp_path / "model.safetensors")
    assert config_of(str(path)) == SMALL
    run = RunFolder.create(tmp_path / "run", Recipe(), seed=0)
    assert config_of(str(run.path)) == SMALL  # no weights yet
    save_separator(small({"channels": 8}), run.best)
    assert config_of(str(run.path)) == SMALL.with_values({"channels": 8})


def test_recipes_and_configs(tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("variant: n\nmodel: {channels: 8, output: {kind: sum}}\ndata: {roots: []}\n", encoding="utf-8")
    expected = VARIANTS["n"].with_values({"channels": 8, "output.kind": "sum"})
    assert config_of(str(recipe)) == expected
    child = tmp_path / "child.yml"
    child.write_text("base: recipe.yaml\nmodel: {channels: 12}\n", encoding="utf-8")
    assert config_of(str(child)) == expected.with_values({"channels": 12})
    plain = tmp_path / "model.yaml"
    plain.write_text(SMALL.to_yaml(), encoding="utf-8")
    assert config_of(str(plain)) == SMALL


NOT_SEPARATORS = {"codecs", "studies", "reconstruct"}
RECIPES = sorted(
    p for p in (Path(__file__).parents[3] / "recipes").rglob("*.yaml") if p.parent.name not in NOT_SEPARATORS
)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.name)
def test_recipes_of_the_project(path: Path) -> None:
    assert config_from_yaml(path) == TrainConfig.from_yaml(path).model


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model: 3\n", r"recipe.yaml: model is 3; a mapping of names to values is needed"),
        ("model: {chanels: 3}\n", r"recipe.yaml: SeparatorConfig: unknown key 'chanels'; did you mean 'channels'"),
        ("variant: n6\n", r"recipe.yaml: unknown variant 'n6'; did you mean 'n'"),
    ],
)
def test_wrong_recipes(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        config_from_yaml(path)


def test_names_are_checked_before_any_work() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown model 'relesed'; did you mean 'released'"):
        check_subject("relesed")
    with pytest.raises(UnknownNameError, match=r"there is no file or folder runs/a; check the path, or name one of"):
        check_subject("runs/a")
    with pytest.raises(UnknownNameError, match=r"there is no file or folder a.yaml"):
        check_subject("a.yaml")
    check_subject("released_6s")
    check_subject("htdemucs")


def test_all_stands_for_every_architecture() -> None:
    named = subjects_named(["all", "nn"])
    assert named == [*ARCHITECTURES, "nn"]
    assert len(named) == 16
    with pytest.raises(UnknownNameError, match="unknown model 'w55'; did you mean 'w5'"):
        subjects_named(["nn", "w55"])
