from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, model_validator

from polyres.core.config import Config, diff
from polyres.core.errors import ConfigError


class Optimiser(Config):
    lr: float = 3e-4
    decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)


class Plain(Config):
    kind: Literal["plain"] = "plain"
    gain_db: float = 0.0


class Filtered(Config):
    kind: Literal["filtered"] = "filtered"
    cutoff_hz: float = 100.0


class Model(Config):
    name: str = "small"
    n_fft: tuple[int, ...] = (2048, 4096)
    head: Literal["mask", "mapping"] = "mask"
    channels: Annotated[int, Field(ge=1, le=512)] = 24
    optimiser: Optimiser = Optimiser(decay=0.5)
    second: Optimiser | None = None
    stages: tuple[Optimiser, ...] = ()
    weights: dict[str, float] = {}
    named: dict[str, Optimiser] = {}
    branch: Annotated[Plain | Filtered, Field(discriminator="kind")] = Plain()
    width: int | tuple[int, ...] = 1

    @model_validator(mode="after")
    def _check(self) -> Model:
        if self.name == "forbidden":
            raise ValueError("the name 'forbidden' is taken; choose another")
        return self


class Required(Config):
    path: str


def error_of(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        Model.from_dict(values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


finite = st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8"), max_size=8)
optimisers = st.builds(Optimiser, lr=finite, decay=finite, betas=st.tuples(finite, finite))
models = st.builds(
    Model,
    name=words.filter(lambda name: name != "forbidden"),
    n_fft=st.lists(st.integers(), max_size=3).map(tuple),
    head=st.sampled_from(["mask", "mapping"]),
    channels=st.integers(1, 512),
    optimiser=optimisers,
    second=st.none() | optimisers,
    stages=st.lists(optimisers, max_size=2).map(tuple),
    weights=st.dictionaries(words, finite, max_size=2),
    named=st.dictionaries(words, optimisers, max_size=2),
    branch=st.builds(Plain, gain_db=finite) | st.builds(Filtered, cutoff_hz=finite),
    width=st.integers() | st.lists(st.integers(), max_size=2).map(tuple),
)


# -- reading ----------------------------------------------------------------------------------------------------------


def test_nothing_given_means_all_defaults() -> None:
    assert Model.from_dict({}) == Model()


def test_lists_become_tuples_all_the_way_down() -> None:
    config = Model.from_dict({"n_fft": [512], "stages": [{"betas": [0.1, 0.2]}]})
    assert config.n_fft == (512,)
    assert config.stages[0].betas == (0.1, 0.2)


def test_a_number_that_yaml_reads_as_text_is_still_a_number(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("optimiser: {lr: 1e-5}")
    assert Model.from_yaml(path).optimiser.lr == 1e-5


def test_a_nested_delta_keeps_the_values_of_the_outer_default() -> None:
    assert Model.from_dict({"optimiser": {"lr": 1.0}}).optimiser == Optimiser(lr=1.0, decay=0.5)
    assert Model(optimiser={"lr": 1.0}).optimiser.decay == 0.5  # type: ignore[arg-type]


def test_a_delta_for_a_union_does_not_inherit_from_another_kind() -> None:
    assert Model.from_dict({"branch": {"kind": "filtered"}}).branch == Filtered()


def test_configs_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Model().name = "other"  # type: ignore[misc]


def test_configs_are_hashable_keys_where_their_fields_are() -> None:
    assert len({Optimiser(), Optimiser(), Optimiser(lr=1.0)}) == 2


@given(models)
def test_dict_and_json_round_trip(config: Model) -> None:
    assert Model.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@given(models)
def test_yaml_round_trip(tmp_path_factory: pytest.TempPathFactory, config: Model) -> None:
    path = tmp_path_factory.getbasetemp() / "round_trip.yaml"
    path.write_text(config.to_yaml(), encoding="utf-8")
    again = Model.from_yaml(path)
    assert again == config
    assert again.fingerprint() == config.fingerprint()


def test_yaml_text_keeps_the_order_of_the_fields_and_readable_letters() -> None:
    text = Model(name="Köln").to_yaml()
    assert text.startswith("name: Köln\nn_fft:\n- 2048\n- 4096\nhead: mask\n")


# -- errors -----------------------------------------------------------------------------------------------------------


def test_an_unknown_key_names_the_nearest_and_all_allowed() -> None:
    assert error_of({"chanels": 3}) == (
        "Model: unknown key 'chanels'; did you mean 'channels'? allowed: name, n_fft, head, channels, optimiser, "
        "second, stages, weights, named, branch, width"
    )


@pytest.mark.parametrize(
    ("values", "key", "right"),
    [
        ({"optimiser": {"rate": 1}}, "optimiser.rate", None),
        ({"optimiser": {"dekay": 1}}, "optimiser.dekay", "optimiser.decay"),
        ({"second": {"dekay": 1}}, "second.dekay", "second.decay"),
        ({"stages": [{}, {"dekay": 1}]}, "stages.1.dekay", "stages.1.decay"),
        ({"named": {"lr": {"dekay": 1}}}, "named.lr.dekay", "named.lr.decay"),
    ],
)
def test_an_unknown_key_is_found_at_any_depth(values: dict[str, Any], key: str, right: str | None) -> None:
    hint = f"did you mean {right!r}? " if right else ""
    assert error_of(values) == f"Model: unknown key {key!r}; {hint}allowed: lr, decay, betas"


def test_an_unknown_key_in_a_union_lists_the_keys_of_its_alternatives() -> None:
    message = error_of({"branch": {"kind": "filtered", "cutof_hz": 1}})
    assert message == (
        "Model: unknown key 'branch.cutof_hz'; did you mean 'branch.cutoff_hz'? allowed: kind, gain_db, cutoff_hz"
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"head": "msk"}, "Model: head = 'msk' is not allowed; allowed: 'mask' or 'mapping'"),
        ({"channels": 0}, "Model: channels = 0 is not allowed; allowed: greater than or equal to 1"),
        ({"stages": [{"lr": []}]}, "Model: stages.0.lr = [] is not allowed; allowed: a valid number"),
        ({"weights": {"a.b": "x"}}, "Model: weights.a.b = 'x' is not allowed; allowed: a valid number"),
        ({"width": "x"}, "Model: width = 'x' is not allowed; allowed: a valid integer, unable to parse string as an integer or a valid tuple"),  # noqa: E501
        ({"optimiser": 3}, "Model: optimiser = 3 is not allowed; allowed: a valid dictionary or instance of Optimiser"),
        ({"optimiser": {"lr": float("nan")}}, "Model: optimiser.lr = nan is not allowed; allowed: a finite number"),
        ({"branch": {"kind": "plane"}}, "Model: branch = {'kind': 'plane'} is not allowed; allowed: "),
    ],
)  # fmt: skip
def test_a_wrong_value_names_key_value_and_what_is_allowed(values: dict[str, Any], message: str) -> None:
    assert error_of(values).startswith(message)


def test_a_rule_of_the_config_itself_is_shown_in_its_own_words() -> None:
    assert error_of({"name": "forbidden"}).endswith("the name 'forbidden' is taken; choose another")


def test_long_values_are_cut() -> None:
    assert len(error_of({"channels": "x" * 10_000})) < 250


def test_the_number_of_further_problems_is_told() -> None:
    assert error_of({"head": 1, "channels": 0, "width": "x"}).endswith("(and 2 more)")


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="Required: key 'path' is missing; give it a value"):
        Required.from_dict({})


def test_direct_construction_raises_the_same_error() -> None:
    with pytest.raises(ConfigError, match=r"Model: unknown key 'optimiser\.dekay'; did you mean 'optimiser\.decay'"):
        Model(optimiser={"dekay": 1})  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="did you mean 'channels'"):
        Model(chanels=3)  # type: ignore[call-arg]


def test_a_wrong_value_inside_a_ready_config_cannot_exist() -> None:
    with pytest.raises(ConfigError, match="Optimiser: lr = 'x' is not allowed"):
        Model(optimiser=Optimiser(lr="x"))  # type: ignore[arg-type]


def test_a_field_cannot_be_called_like_the_key_of_the_parent_file() -> None:
    with pytest.raises(ConfigError, match="Bad cannot have a field 'base': it names the parent of a YAML file"):

        class Bad(Config):
            base: int = 1


# -- files and overrides ----------------------------------------------------------------------------------------------


def test_overrides_win_over_the_file_and_later_ones_over_earlier(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("optimiser: {lr: 0.1, decay: 0.2}\nname: base")
    path = tmp_path / "a.yaml"
    path.write_text("base: base.yaml\noptimiser: {lr: 0.3}")
    config = Model.from_yaml(path, ["optimiser.lr=1", "optimiser.lr=2e-3", "n_fft=[512]", "second.lr=7"])
    assert config.optimiser == Optimiser(lr=2e-3, decay=0.2)
    assert config.name == "base"
    assert config.n_fft == (512,)
    assert config.second == Optimiser(lr=7)


def test_an_override_of_a_nested_default_keeps_its_other_values(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("")
    assert Model.from_yaml(path, ["optimiser.lr=1"]).optimiser == Optimiser(lr=1, decay=0.5)


def test_a_wrong_key_in_a_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("chanels: 3")
    with pytest.raises(ConfigError, match=r"a\.yaml: Model: unknown key 'chanels'; did you mean 'channels'"):
        Model.from_yaml(path)


def test_a_wrong_override_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_text("n_fft: [512]")
    with pytest.raises(ConfigError, match=r"unknown key 'optimiser\.dekay'"):
        Model.from_yaml(path, ["optimiser.dekay=1"])
    with pytest.raises(ConfigError, match=r"cannot set 'n_fft\.0'"):
        Model.from_yaml(path, ["n_fft.0=1"])
    with pytest.raises(ConfigError, match="write KEY=VALUE"):
        Model.from_yaml(path, ["channels"])


# -- changed copies, differences, fingerprints ------------------------------------------------------------------------


def test_with_values_returns_a_checked_copy() -> None:
    before = Model()
    after = before.with_values({"optimiser.lr": 1.0, "channels": 8, "second": Optimiser(decay=2.0)})
    assert (after.optimiser, after.channels) == (Optimiser(lr=1.0, decay=0.5), 8)
    assert after.second == Optimiser(decay=2.0)
    assert before == Model()
    with pytest.raises(ConfigError, match="did you mean 'channels'"):
        before.with_values({"chanels": 8})


def test_diff_shows_what_differs_and_nothing_else() -> None:
    a, b = Model(), Model(channels=8, n_fft=(512,), optimiser=Optimiser(lr=1.0, decay=0.5))
    assert diff(a, b) == {
        "n_fft": ([2048, 4096], [512]),
        "channels": (24, 8),
        "optimiser.lr": (3e-4, 1.0),
    }


def test_diff_counts_a_missing_key_as_none() -> None:
    a, b = Model(weights={"bass": 1.0}), Model(weights={"drums": 2.0}, branch=Filtered())
    assert diff(a, b) == {
        "weights.bass": (1.0, None),
        "weights.drums": (None, 2.0),
        "branch.kind": ("plain", "filtered"),
        "branch.gain_db": (0.0, None),
        "branch.cutoff_hz": (None, 100.0),
    }


def test_diff_shows_a_config_that_is_only_on_one_side() -> None:
    found = diff(Model(), Model(second=Optimiser()))
    assert found == {"second": (None, Optimiser().to_dict())}


@given(models, models)
def test_diff_is_empty_exactly_for_equal_fingerprints_and_swaps_with_its_sides(a: Model, b: Model) -> None:
    assert diff(a, a) == {}
    assert bool(diff(a, b)) == (a.fingerprint() != b.fingerprint())
    assert {key: (right, left) for key, (left, right) in diff(a, b).items()} == diff(b, a)


@given(models)
def test_equal_configs_have_equal_fingerprints(config: Model) -> None:
    assert Model.from_dict(config.to_dict()).fingerprint() == config.fingerprint()


@pytest.mark.parametrize(("left", "right"), [(1, True), (1, 1.0), (0.0, -0.0), (None, False)])
def test_diff_and_fingerprint_tell_values_apart_that_python_takes_for_equal(left: object, right: object) -> None:
    class Loose(Config):
        value: Any

    a, b = Loose(value=left), Loose(value=right)
    assert list(diff(a, b)) == ["value"]
    assert a.fingerprint() != b.fingerprint()


def test_the_fingerprint_is_16_hexadecimal_digits_and_blind_to_the_order_of_keys() -> None:
    one = Model.from_dict({"weights": {"a": 1, "b": 2}, "name": "x"})
    two = Model.from_dict({"name": "x", "weights": {"b": 2.0, "a": 1.0}})
    assert one.fingerprint() == two.fingerprint()
    assert len(one.fingerprint()) == 16
    int(one.fingerprint(), 16)


def test_the_fingerprint_counts_defaults_as_if_they_were_given() -> None:
    assert Model.from_dict({"channels": 24}).fingerprint() == Model().fingerprint()
    assert Model.from_dict({"channels": 25}).fingerprint() != Model().fingerprint()


def test_the_fingerprint_is_the_hash_of_sorted_json_in_any_process() -> None:
    code = (
        "from polyres.core.config import Config\n"
        "class A(Config):\n    b: str = 'ü'\n    a: tuple[int, ...] = (1, 2)\n"
        "print(A().fingerprint())"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    assert shown.strip() == hashlib.sha256(rb'{"a":[1,2],"b":"\u00fc"}').hexdigest()[:16]
