from __future__ import annotations

import ast
import importlib.util
import pickle
from pathlib import Path
from typing import Any

import pytest

from polyres.core.config import Config, diff
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.datasets.augment.base import AUGMENTATIONS
from polyres.datasets.augment.config import PRESETS, AugmentConfig
from tests.datasets.augment.cases import augmented_length

DELTAS: list[dict[str, Any]] = [
    {"gain": {"range": [0.5, 1.0]}},
    {"remix": {"probability": 0.5}, "chain": ["remix", "gain"]},  # back to what it is without a preset
    {"crop": {"shift_s": 0.0}, "repitch": {"trim": False}},
]


class Recipe(Config):
    """A config that holds one for augmentation, as recipes do."""

    augment: AugmentConfig = AugmentConfig()


def published(module: str, owner: str) -> dict[str, Any]:
    """Defaults of a constructor of HTDemucs, read from its source."""
    spec = importlib.util.find_spec("demucs")
    assert spec is not None
    folder = Path(str(spec.origin)).parent
    tree = ast.parse((folder / f"{module}.py").read_text(encoding="utf-8"))
    found = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == owner)
    init = next(node for node in found.body if isinstance(node, ast.FunctionDef) and node.name == "__init__")
    names = [argument.arg for argument in init.args.args][-len(init.args.defaults) :]
    return dict(zip(names, [ast.literal_eval(value) for value in init.args.defaults], strict=True))


def test_every_augmentation_has_settings_of_its_name_and_the_reverse() -> None:
    fields = set(AugmentConfig.model_fields) - {"preset", "chain", "sample_rate_hz"}
    assert fields == set(AUGMENTATIONS.names())
    assert set(AugmentConfig().chain) <= fields
    for name in fields:
        assert 0 <= getattr(AugmentConfig(), name).probability <= 1
        assert AUGMENTATIONS.summary(name)


def test_what_costs_time_or_shortens_is_off_unless_asked_for() -> None:
    off = set(AUGMENTATIONS.names()) - set(AugmentConfig().chain)
    assert off == {"crop", "repitch", "tempo", "codec", "reverb", "noise"}


def test_the_preset_has_the_values_of_htdemucs() -> None:
    config = AugmentConfig.from_dict({"preset": "htdemucs"})
    repitch, remix, scale = (
        published("repitch", "RepitchedWrapper"),
        published("augment", "Remix"),
        published("augment", "Scale"),
    )
    assert config.repitch.probability == repitch["proba"] == 0.2
    assert config.repitch.max_semitones == repitch["max_pitch"] == 2
    assert config.repitch.max_tempo_percent == repitch["max_tempo"] == 12
    assert config.repitch.tempo_std_percent == repitch["tempo_std"] == 5
    assert config.repitch.same is repitch["same"] is True
    assert (config.remix.probability, config.remix.group_size) == (remix["proba"], remix["group_size"]) == (1, 4)
    assert (config.gain.probability, *config.gain.range) == (scale["proba"], scale["min"], scale["max"])
    assert config.flip_channels.probability == config.flip_sign.probability == 0.5
    assert (config.crop.probability, config.crop.shift_s, config.crop.same) == (1.0, 1.0, False)
    assert config.chain == ("repitch", "crop", "flip_channels", "flip_sign", "gain", "remix")


@pytest.mark.parametrize(("before_s", "after_s"), [(10, 7.8), (11, 8.68), (5, 3.4), (15, 12.2)])
def test_the_preset_leaves_segments_of_the_published_lengths(before_s: float, after_s: float) -> None:
    config = AugmentConfig.from_dict({"preset": "htdemucs"})
    assert abs(augmented_length(config, round(before_s * 44_100)) - after_s * 44_100) <= 1


@pytest.mark.parametrize("delta", DELTAS)
def test_deltas_lie_on_top_of_a_preset_alone_and_inside_a_recipe(delta: dict[str, Any], tmp_path: Path) -> None:
    preset = AugmentConfig.from_dict({"preset": "htdemucs"})
    changes = {key: value for key, value in delta.items() if not isinstance(value, dict)}
    changes |= {
        f"{key}.{name}": v for key, values in delta.items() if isinstance(values, dict) for name, v in values.items()
    }
    expected = preset.with_values(changes)
    assert diff(preset, expected)
    given = {"preset": "htdemucs", **delta}
    assert AugmentConfig.from_dict(given) == expected
    assert Recipe.from_dict({"augment": given}).augment == expected
    base, path = tmp_path / "base.yaml", tmp_path / "recipe.yaml"
    base.write_text("augment: {preset: htdemucs}\n", encoding="utf-8")
    path.write_text(f"base: base.yaml\naugment: {delta}\n".replace("False", "false"), encoding="utf-8")
    assert Recipe.from_yaml(path).augment == expected
    assert Recipe.from_yaml(path, ["augment.preset=null"]).augment == AugmentConfig.from_dict(delta)


def test_without_a_preset_a_recipe_starts_from_the_defaults() -> None:
    assert Recipe().augment == Recipe.from_dict({"augment": {}}).augment == AugmentConfig()
    recipe = Recipe.from_dict({"augment": {"eq": {"probability": 0.7}}})
    assert diff(recipe, Recipe()) == {"augment.eq.probability": (0.7, 0.4)}


@pytest.mark.parametrize("values", [{}, {"preset": "htdemucs"}, {"preset": "htdemucs", "gain": {"probability": 0.5}}])
def test_configs_survive_writing_reading_and_other_processes(values: dict[str, Any]) -> None:
    config = AugmentConfig.from_dict(values)
    assert config.preset is None
    assert AugmentConfig.from_dict(config.to_dict()) == config
    assert pickle.loads(pickle.dumps(config)) == config


def test_every_preset_can_be_built() -> None:
    for name in PRESETS:
        assert AugmentConfig.from_dict({"preset": name}) != AugmentConfig()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"chain": ["gain", "remx"]}, r"unknown augmentation 'remx'; did you mean 'remix'\?"),
        ({"chain": ["sample_rate_hz"]}, "unknown augmentation 'sample_rate_hz'"),
        ({"preset": "htdemcus"}, r"unknown augmentation preset 'htdemcus'; did you mean 'htdemucs'\? known: htdemucs"),
    ],
)
def test_unknown_names_are_refused_with_the_nearest(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UnknownNameError, match=message):
        AugmentConfig.from_dict(values)
    with pytest.raises(UnknownNameError, match=message):
        Recipe.from_dict({"augment": values})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gain": {"range": [1.25, 0.25]}}, r"augment.gain.range = \[1.25, 0.25\]: .*first; write \[0.25, 1.25\]"),
        ({"low_pass": {"cutoff_hz": [9000, 900]}}, r"low_pass.cutoff_hz .* write \[900, 9000\]"),
        ({"low_pass": {"cutoff_hz": [0, 900]}}, r"low_pass.cutoff_hz.* greater than 0"),
        ({"saturation": {"drive": [4, 1]}}, r"saturation.drive .* write \[1, 4\]"),
        ({"reverb": {"level_db": [-6, 3]}}, r"reverb.level_db.* less than or equal to 0"),
        ({"reverb": {"delay_s": [-1, 3]}}, r"reverb.delay_s.* greater than or equal to 0"),
        ({"noise": {"level_db": [-30, -70]}}, r"noise.level_db .* write \[-70, -30\]"),
        (
            {"codec": {"codecs": ["mp4"]}},
            r"augment.codec.codecs.0 = 'mp4' is not allowed; allowed: 'mp3', 'opus' or 'aac'",
        ),
        ({"codec": {"codecs": []}}, r"codec.codecs = \(?\[?.* at least 1 item"),
        ({"codec": {"bit_rate_kbps": [256, 64]}}, r"codec.bit_rate_kbps .* write \[64, 256\]"),
        ({"remix": {"group_size": 0}}, r"remix.group_size = 0 .* greater than or equal to 1"),
        (
            {"remix": {"groupsize": 4}},
            r"unknown key 'augment.remix.groupsize'; did you mean 'augment.remix.group_size'\?",
        ),
        ({"repitch": {"max_semitones": 1.5}}, r"repitch.max_semitones = 1.5"),
        ({"tempo": {"max_tempo_percent": 90}}, r"tempo.max_tempo_percent = 90 .* less than or equal to 50"),
        ({"crop": {"shift_s": -1}}, r"crop.shift_s = -1 .* greater than or equal to 0"),
        ({"reverb": {"probability": 1.5}}, r"reverb.probability = 1.5 .* less than or equal to 1"),
        ({"codecs": {}}, r"unknown key 'augment.codecs'; did you mean 'augment.codec'\?"),
        ({"preset": 3}, r"augment.preset = 3 is not allowed"),
    ],
)
def test_unusable_values_are_named_with_what_is_allowed(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Recipe.from_dict({"augment": values})


def test_a_preset_that_could_set_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="preset 'htdemucs' beside every other value changes nothing; leave out"):
        AugmentConfig().with_values({"preset": "htdemucs"})
