"""From study files to resolved runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.config import diff
from polyres.core.errors import ConfigError, UnknownNameError
from polyres.separation.training.task import TrainConfig
from polyres.study.plan.arms import Plan, Request, expand, flatten, make_plan, planned_steps
from polyres.study.plan.config import StudyConfig, find_studies
from tests.study.cases import RECIPE, STUDY

DATA = "data: {roots: [{path: train}], sample_rate_hz: 44100}\n"


def plan_of(root: Path, study: str = STUDY, recipe: str = RECIPE, request: Request | None = None) -> Plan:
    (root / "tiny.yaml").write_text(recipe, encoding="utf-8")
    (root / "study.yaml").write_text(study, encoding="utf-8")
    return make_plan(root / "study.yaml", request or Request())


def test_runs_are_arms_times_seeds_with_one_seed_after_the_other(tmp_path: Path) -> None:
    plan = plan_of(tmp_path)
    assert [run.name for run in plan.runs] == ["one/seed1", "two/seed1", "one/seed2", "two/seed2"]
    assert [run.config.seed for run in plan.runs] == [1, 1, 2, 2]
    base = TrainConfig.from_yaml(tmp_path / "tiny.yaml", ["seed=2"])
    assert plan.runs[3].config == base
    assert set(diff(base, plan.runs[2].config)) == {"model.n_fft"}


def test_what_is_written_down(tmp_path: Path) -> None:
    study = plan_of(tmp_path).study
    assert [(arm.name, dict(arm.settings)) for arm in study.arms] == [("one", {"model.n_fft": [512]}), ("two", {})]
    assert (study.name, study.base, study.primary, study.reference) == ("study", "tiny.yaml", "nsdr", "one")
    assert study.data["roots"] == {"tones": "test", "more": "valid"}
    assert (study.budget, study.common) == ({"equal": "steps", "seconds": None}, {})
    assert "torch" in study.versions


def test_what_holds_for_all_arms(tmp_path: Path) -> None:
    overrides = ("epochs=3", "study.metrics=[sdr, nsdr]", "study.name=other", "optimiser.lr=1e-2")
    text = STUDY + "common: {batch_size: 4, optimiser: {lr: 2.0e-3, weight_decay: 0.5}}\n"
    plan = plan_of(tmp_path, text, request=Request("there", (7,), None, overrides))
    assert [run.name for run in plan.runs] == ["one/seed7", "two/seed7"]
    for run in plan.runs:
        config = run.config
        assert (config.epochs, config.batch_size, config.data_dir) == (3, 4, "there")
        assert (config.optimiser.lr, config.optimiser.weight_decay) == (1e-2, 0.5)
    assert (plan.study.name, plan.study.metrics, plan.study.primary) == ("other", ("sdr", "nsdr"), "sdr")
    assert plan.study.common == {"batch_size": 4, "optimiser.lr": 1e-2, "optimiser.weight_decay": 0.5, "epochs": 3}


def test_arms_with_recipes_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "wide.yaml").write_text(RECIPE.replace("channels: 4", "channels: 8"), encoding="utf-8")
    text = STUDY.replace("two: {}", "two: {}\n  wide: {recipe: wide.yaml, optimiser.lr: 5.0e-4}")
    plan = plan_of(tmp_path, text)
    wide = plan.runs[2].config
    assert (wide.model.channels, wide.optimiser.lr) == (8, 5e-4)
    assert dict(plan.study.arm("wide").settings) == {"model.channels": 8, "optimiser.lr": 5e-4}


def test_some_arms_only(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, request=Request(arms=("two",)))
    assert [run.name for run in plan.runs] == ["two/seed1", "two/seed2"]
    assert [arm.name for arm in plan.study.arms] == ["one", "two"]
    with pytest.raises(ConfigError, match=r"no arm 'tow'; the arms are one, two"):
        plan_of(tmp_path, request=Request(arms=("tow",)))


def test_equal_seconds_take_the_place_of_epochs(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, STUDY.replace("{equal: steps}", "{equal: seconds, seconds: 9}"))
    assert {(run.config.epochs, run.config.time_budget_s) for run in plan.runs} == {(None, 9.0)}
    assert planned_steps(plan.runs[0].config) is None


def test_equal_steps_are_checked(tmp_path: Path) -> None:
    assert {planned_steps(run.config) for run in plan_of(tmp_path).runs} == {4}
    with pytest.raises(ConfigError, match=r"budget.equal is steps, but the arms take one 4, two 6; set epochs"):
        plan_of(tmp_path, STUDY.replace("two: {}", "two: {epochs: 3}"))
    with pytest.raises(ConfigError, match=r"one 4, two by the clock"):
        plan_of(tmp_path, STUDY.replace("two: {}", "two: {time_budget_s: 3}"))
    assert plan_of(tmp_path, STUDY.replace("two: {}", "two: {epochs: 3}").replace("budget: {equal: steps}", ""))


def test_a_study_may_build_on_another(tmp_path: Path) -> None:
    plan_of(tmp_path)
    (tmp_path / "later.yaml").write_text("base: study.yaml\ntitle: Later\nbudget: {equal: seconds, seconds: 5}\n")
    plan = make_plan(tmp_path / "later.yaml")
    assert (plan.study.title, plan.study.name, plan.runs[0].config.time_budget_s) == ("Later", "later", 5.0)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("two: {}", "two: {model.n_fft: [512]}", r"the arms one and two have the same settings"),
        ("two: {}", "two: {model: {chanels: 8}}", r"arm two: TrainConfig: unknown key 'model.chanels'; did you mean"),
        ("two: {}", "two: {recipe: 3}", r"the recipe of arm two is 3; name a YAML file"),
        ("two: {}", "two: {recipe: gone.yaml}", r"gone.yaml: no such config file"),
        ("two: {}", "two: {model: 3}", r"arm two: TrainConfig: model = 3 is not allowed"),
        ("tiny.yaml", "gone.yaml", r"gone.yaml: no such config file"),
        ("reference: one", "reference: three", r"reference 'three' is no arm; the arms are one, two"),
        ("two: {}", "'t/o': {}", r"the name 't/o' makes no folder"),
        ("seeds: [1, 2]", "seeds: [1, 1]", r"one or more distinct numbers"),
        ("metrics: [nsdr]", "metrics: []", r"no metrics; name at least one"),
        ("metrics: [nsdr]", "metrics: [nsdr]\nprimary: sdr", r"primary 'sdr' is not among the metrics nsdr"),
        ("{equal: steps}", "{equal: seconds}", r"equal: seconds needs a number of seconds"),
        ("{equal: steps}", "{equal: steps, seconds: 3}", r"equal: steps takes none"),
        ("roots: {tones: test, more: valid}", "roots: {}", r"no roots; name at least one"),
        ("roots: {tones: test, more: valid}", "roots: {'a/b': test}", r"the label 'a/b' is no plain name"),
        ("roots: {tones: test, more: valid}", "roots: [a/x, b/x]", r"two roots have one name"),
        ("roots: {tones: test, more: valid}", "roots: 3", r"data.roots = 3 is not allowed"),
        ("more: valid}", "more: valid}, split: test", r"layout 'stems' has no split 'test'"),
    ],
)
def test_what_is_wrong_is_told(tmp_path: Path, old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        plan_of(tmp_path, STUDY.replace(old, new))


def test_no_arms_and_unknown_metrics() -> None:
    values = {"title": "a", "question": "b?", "recipe": "c", "arms": {}, "data": {"roots": ["x"]}}
    with pytest.raises(ConfigError, match="no arms; name at least one"):
        StudyConfig.from_dict(values)
    with pytest.raises(UnknownNameError, match="unknown metric 'nsdx'"):
        StudyConfig.from_dict({**values, "arms": {"a": {}}, "metrics": ["nsdx"]})


def test_seeds_are_for_the_study_to_set(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="seed cannot be set for a study; give --seeds"):
        plan_of(tmp_path, request=Request(overrides=("seed=3",)))


def test_roots_get_labels() -> None:
    made = {"make": {"kind": "miniature", "tracks": 2}}

    def labels(roots: object) -> list[str]:
        values = {"title": "a", "question": "b?", "recipe": "c", "arms": {"a": {}}, "data": {"roots": roots}}
        return list(StudyConfig.from_dict(values).data.roots)

    assert labels(["some/where"]) == [""]
    assert labels(["some/where", made]) == ["where", "miniature"]
    assert labels({"x": "a", "y": made}) == ["x", "y"]


def test_yaml_files_of_a_folder(tmp_path: Path) -> None:
    for name in ("b.yaml", "a.yml", "c.txt"):
        (tmp_path / name).touch()
    assert [path.name for path in find_studies(tmp_path)] == ["a.yml", "b.yaml"]


leaves = st.integers() | st.lists(st.integers(), max_size=2)
nested = st.recursive(leaves, lambda inner: st.dictionaries(st.sampled_from("abc"), inner, min_size=1, max_size=3))


@given(st.dictionaries(st.sampled_from("abc"), nested, max_size=3))
def test_dotted_keys_mean_nested_ones(values: dict[str, object]) -> None:
    def dotted(part: object, prefix: str) -> dict[str, object]:
        if not isinstance(part, dict):
            return {prefix: part}
        return {key: value for name, inner in part.items() for key, value in dotted(inner, f"{prefix}.{name}").items()}

    flat = {key: value for name, inner in values.items() for key, value in dotted(inner, name).items()}
    assert expand(flat) == values
    assert expand(values) == values
    assert flatten({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}
