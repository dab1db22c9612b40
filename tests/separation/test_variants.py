"""The table of named separators."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.core.errors import ConfigError, UnknownNameError
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.training.task import TrainConfig
from polyres.separation.variants import (
    ARCHITECTURES,
    VARIANTS,
    check_subject,
    config_from_yaml,
    load_subject,
    subjects_named,
    variant,
)
from polyres.separation.weights import save_separator
from polyres.training.run_folder import RunFolder
from tests.separation.fusion_report.runs import SMALL, Recipe, small

THREE, FIVE = (2048, 4096, 8192), (1024, 2048, 4096, 8192, 16384)
SEVEN = (512, *FIVE, 32768)
# n_fft, hop ratio, hop length, channels, wave branch, bottleneck, transformer, output
TABLE = {
    "htdemucs_48": ((4096,), 4, None, 48, True, "weights", "softmax", "weights"),
    "htdemucs_24": ((4096,), 4, None, 24, True, "weights", "softmax", "weights"),
    "n": (THREE, 4, None, 24, True, "weights", "linear", "conv"),
    "n5": (FIVE, 4, None, 24, True, "weights", "linear", "conv"),
    "nf": (FIVE, 4, None, 24, False, "weights", "none", "conv"),
    "w5": (FIVE, 4, None, 24, False, "weights", "linear", "weights"),
    "nn": (THREE, 4, None, 24, True, "weights", "linear", "source_weights"),
    "2nn": (SEVEN, 2, None, 24, True, "weights", "linear", "source_weights"),
    "dn": (FIVE, 4, None, 24, True, "weights", "linear", "unet"),
    "dnf": (FIVE, 4, None, 24, False, "weights", "none", "unet"),
    "mrx": ((1024, 2048, 8192), 4, 256, 24, False, "mean", "none", "sum"),
    "band_split": ((2048, 4096), 2, None, 64, False, "band_weights", "none", "source_weights"),
    "tfc_tdf": ((2048, 4096), 2, None, 18, False, "weights", "none", "source_weights"),
}
BODIES = {"band_split": ("band_split", "mask"), "tfc_tdf": ("tfc_tdf", "mask")}
names = pytest.mark.parametrize("name", VARIANTS)


def test_the_table_is_complete_and_in_order() -> None:
    assert list(VARIANTS) == list(TABLE)


@names
def test_rows(name: str) -> None:
    config = variant(name)
    assert (
        config.n_fft,
        config.hop_ratio,
        config.hop_length,
        config.channels,
        config.wave_branch,
        config.bottleneck.kind,
        config.transformer.kind,
        config.output.kind,
    ) == TABLE[name]
    assert (config.body.kind, config.head) == BODIES.get(name, ("unet", "mapping"))
    assert (config.inverse, config.output.taps, config.transformer.layers) == ("exact", 129, 5)


@names
def test_rows_are_checked_and_survive_yaml(name: str, tmp_path: Path) -> None:
    config = variant(name)
    path = tmp_path / "model.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    assert SeparatorConfig.from_yaml(path) == config
    assert SeparatorConfig.from_dict(config.to_dict()) == config
    assert SeparatorConfig.from_dict(config.to_dict()).fingerprint() == config.fingerprint()
    assert len({other.fingerprint() for other in VARIANTS.values()}) == len(VARIANTS)


@pytest.mark.parametrize(("name", "parameters"), [("htdemucs_48", 26_899_536), ("htdemucs_24", 6_758_676)])
def test_single_resolution_has_the_size_of_htdemucs(name: str, parameters: int) -> None:
    assert sum(value.numel() for value in Separator(variant(name)).parameters()) == parameters


@pytest.mark.parametrize(
    ("name", "parameters"), [("n", 3096), ("nf", 5160), ("w5", 5), ("nn", 12), ("mrx", 0), ("tfc_tdf", 8)]
)
def test_output_fusions_have_their_size(name: str, parameters: int) -> None:
    small = variant(name).with_values({"channels": 8})
    assert sum(value.numel() for value in Separator(small).output.parameters()) == parameters


def test_every_frequency_branch_of_a_row_differs_in_its_embedding_only() -> None:
    """Branches of equal structure: their size depends on n_fft through the frequency embedding alone."""
    model = Separator(variant("2nn").with_values({"channels": 8}))
    sizes = [sum(value.numel() for value in branch.parameters()) for branch in model.branches]
    bins = [n_fft // 8 for n_fft in SEVEN]
    assert len({size - 8 * count for size, count in zip(sizes, bins, strict=True)}) == 1


@pytest.mark.parametrize(("name", "most"), [("band_split", 6_000_000), ("tfc_tdf", 2_000_000)])
def test_rows_for_a_cpu_stay_small(name: str, most: int) -> None:
    assert most / 2 < sum(value.numel() for value in Separator(variant(name)).parameters()) < most


def test_unknown_variants_name_the_nearest() -> None:
    with pytest.raises(
        UnknownNameError, match=r"unknown variant 'htdemucs_49'; did you mean 'htdemucs_48'.*known: htdem"
    ):
        variant("htdemucs_49")


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


FOLDER = Path(__file__).parents[2] / "recipes"
RECIPES = sorted(path for path in FOLDER.rglob("*.yaml") if path.relative_to(FOLDER).parts[0] not in NOT_SEPARATORS)


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
