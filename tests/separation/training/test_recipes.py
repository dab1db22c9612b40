"""The recipes that come with the package: each is whole, builds its model, and says what it is meant to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
import yaml

from polyres.cli.main import main
from polyres.core.config import diff
from polyres.datasets.layouts import find_tracks
from polyres.separation.model import Separator, SeparatorConfig
from polyres.separation.training.task import TrainConfig
from polyres.separation.variants import VARIANTS
from polyres.separation.weights import load_separator_weights

RECIPES = Path(__file__).resolve().parents[3] / "recipes"
OTHERS = ("codecs", "studies", "reconstruct")  # the first folder of recipes that train no separator
FILES = sorted(path for path in RECIPES.rglob("*.yaml") if path.relative_to(RECIPES).parts[0] not in OTHERS)
COMPARED = ("htdemucs_24", "n", "nn", "w5")
PARAMETERS = {"htdemucs_48": 26_899_536, "htdemucs_24": 6_758_676}

every_recipe = pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(RECIPES).as_posix())


def recipe(name: str) -> TrainConfig:
    return TrainConfig.from_yaml(RECIPES / f"{name}.yaml")


def has_wanted_size(config: SeparatorConfig, variant: str | None) -> bool:
    count = sum(parameter.numel() for parameter in Separator(config).parameters())
    whole = variant is not None and config == VARIANTS[variant]
    return count == (PARAMETERS.get(variant or "", count) if whole else count) and 100_000 < count < 30_000_000


@every_recipe
def test_every_recipe_is_valid_and_says_how_to_run_it(path: Path):
    config = TrainConfig.from_yaml(path)
    assert TrainConfig.from_dict(config.to_dict()) == config
    # What a run keeps of its recipe must mean the same.
    assert TrainConfig.from_dict(yaml.safe_load(config.to_yaml())).fingerprint() == config.fingerprint()
    command = f"polyres train {path.relative_to(RECIPES.parent).as_posix()} "
    assert command in path.read_text(encoding="utf-8")
    assert config.valid.roots


@every_recipe
def test_every_recipe_can_be_changed_from_the_command_line(path: Path):
    changed = TrainConfig.from_yaml(path, ["optimiser.lr=1e-5", "time_budget_s=60", "data_dir='here'"])
    assert set(diff(TrainConfig.from_yaml(path), changed)) == {"optimiser.lr", "time_budget_s", "data_dir"}


def test_every_variant_has_its_delta_and_nothing_else_differs():
    assert {path.stem for path in (RECIPES / "variants").iterdir()} == set(VARIANTS)
    base = recipe("base")
    for name, model in VARIANTS.items():
        written = yaml.safe_load((RECIPES / "variants" / f"{name}.yaml").read_text(encoding="utf-8"))
        assert written == {"base": "../base.yaml", "variant": name}
        config = recipe(f"variants/{name}")
        assert config.model == model
        assert {key.partition(".")[0] for key in diff(base, config)} <= {"variant", "model"}


@pytest.mark.parametrize(
    "name",
    [
        *("debug", "cpu_small", "release", "release_data", "base"),
        *(f"variants/{v}" for v in VARIANTS),
        *(f"compare/{v}" for v in ("base", *COMPARED)),
    ],
)
def test_models_of_recipes_can_be_built(name: str):
    config = recipe(name)
    assert has_wanted_size(config.model, config.variant) or name == "debug"


def test_the_paper_is_the_papers_setting():
    paper, long = recipe("paper"), recipe("paper_100")
    assert (paper.batch_size, paper.accumulate, paper.seed, paper.epochs, long.epochs) == (16, 1, 42, 20, 100)
    assert set(diff(paper, long)) == {"epochs"}
    assert (paper.optimiser.name, paper.optimiser.lr, paper.loss.terms) == ("adam", 3e-4, {"l1": 1.0})
    assert paper.data.segment_samples == 11 * 44_100
    assert [(root.layout, root.split) for root in paper.data.roots] == [("musdb18hq", "train")]
    assert (paper.valid.layout, paper.valid.split) == ("musdb18hq", "valid")
    assert paper.augment.chain == ("repitch", "crop", "flip_channels", "flip_sign", "gain", "remix")
    assert paper.model == VARIANTS["w5"]


def test_the_papers_tracks_are_split_as_musdb_says(tmp_path: Path):
    names = ["Actions - One Minute Smile", "A Classic Education - NightOwl"]  # the first is for validation
    for name in names:
        folder = tmp_path / "train" / name
        folder.mkdir(parents=True)
        for stem in ("mixture", "drums", "bass", "other", "vocals"):
            (folder / f"{stem}.wav").touch()
    paper = recipe("paper")
    (root,) = paper.data.roots
    found = [find_tracks(tmp_path, place.layout, place.split) for place in (paper.valid, root)]
    assert [[track.name for track in tracks] for tracks in found] == [[name] for name in names]


def test_any_variant_can_take_the_papers_place():
    for name, model in VARIANTS.items():
        config = TrainConfig.from_yaml(RECIPES / "paper.yaml", [f"variant={name}"])
        assert config.model == model


def test_the_student_differs_from_the_base_in_its_teacher_alone():
    assert set(diff(recipe("base"), recipe("distil_24"))) == {"distil"}


def test_the_release_is_the_small_cpu_model_on_its_own_data():
    assert recipe("release").model == recipe("cpu_small").model
    assert recipe("release").data == recipe("release_data").data


def test_compared_sizes_differ_in_their_model_alone():
    configs = [recipe(f"compare/{name}") for name in COMPARED]
    for config in configs:
        assert {key.partition(".")[0] for key in diff(configs[0], config)} <= {"variant", "model"}
        assert config.data == recipe("release").data
        assert config.model.channels == 12
        assert config.model.n_fft == VARIANTS[config.variant or ""].n_fft
        assert config.model.output == VARIANTS[config.variant or ""].output


RECIPE = RECIPES / "debug.yaml"


@pytest.mark.slow
def test_the_whole_path_without_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("POLYRES_DATA", raising=False)
    monkeypatch.chdir(tmp_path)
    runs = [tmp_path / "first", tmp_path / "second"]
    for run in runs:
        assert main(["train", str(RECIPE), "--out", str(run), "--set", "device=cpu"]) == 0
    assert capfd.readouterr().err.count("making data") == 2  # songs to train and to validate on, once each
    first, second = (load_separator_weights(run / "best.safetensors").state_dict() for run in runs)
    assert all(np.array_equal(first[name], second[name]) for name in first)
    tracks = sorted((tmp_path / "cache" / "made").glob("*/miniature_00"))
    mixture = sum(soundfile.read(path)[0] for path in tracks[0].glob("*.wav"))
    soundfile.write(tmp_path / "song.wav", mixture[: 3 * 44_100], 44_100)
    assert (
        main(["separate", str(tmp_path / "song.wav"), "--model", str(runs[0]), "--out", str(tmp_path / "stems")]) == 0
    )
    assert {path.stem for path in (tmp_path / "stems").rglob("*.wav")} >= {"drums", "bass", "other", "vocals"}
