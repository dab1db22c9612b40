"""Studies on disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from polyres.core.errors import ConfigError, InputError
from polyres.listen.design.files import STUDY_NAME, ListenStudy, Question, StudyRecipe, load_study, save_study
from tests.listen.studies import a_study


def stored(folder: Path) -> ListenStudy:
    study = a_study()
    for page in (*study.training, *study.pages):
        for name in page.files():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(b"sound")
    save_study(study, folder)
    return study


def changed(path: list[Any], value: Any) -> dict[str, Any]:
    values = a_study().to_dict()
    place: Any = values
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return values


def test_a_study_comes_back_as_it_was(tmp_path: Path) -> None:
    study = stored(tmp_path)
    assert load_study(tmp_path) == study
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [STUDY_NAME]


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["conditions", 1, "id"], "c0", "condition 'c0' stands there twice"),
        (["pages", 1, "id"], "p0", "page 'p0' stands there twice"),
        (["attributes"], [{"name": "a"}, {"name": "a"}], "attribute 'a' stands there twice"),
        (["questionnaire"], [{"name": "a", "question": "?"}] * 2, "question 'a' stands there twice"),
        (["pages", 0, "audio"], {"c9": "audio/x.wav"}, "page 'p1' has a condition 'c9' that is not among"),
        (["pages", 0, "audio"], {}, "a page needs at least one condition"),
        (["pages", 0, "reference"], None, "page 'p1' has no reference, but a mushra study needs one"),
        (["pages", 0, "reference"], "../x.wav", "file '../x.wav' of page 'p1' must lie inside the study folder"),
        (["pages", 0, "reference"], "/x.wav", "must lie inside"),
        (["pages", 0, "reference"], "C:x.wav", "must lie inside"),
        (["pages", 0, "audio", "c1"], "a\\..\\x.wav", "must lie inside"),
        (["kind"], "mushroom", "allowed: 'mushra', 'bs2132'"),
        (["name"], "a b", "name = 'a b' is not allowed"),
    ],
)
def test_what_does_not_fit_together_is_refused(path: list[Any], value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message.replace("\\", "\\\\")):
        ListenStudy.from_dict(changed(path, value))


def test_a_pair_needs_two() -> None:
    values = changed(["pages", 0, "audio"], {"c1": "audio/x.wav"}) | {"kind": "abx"}
    with pytest.raises(ConfigError, match="page 'p1' has one condition, but a abx study compares two"):
        ListenStudy.from_dict(values)


@pytest.mark.parametrize("values", [{"type": "choice"}, {"choices": ["a"]}])
def test_choices_belong_to_choices(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="choices belong to questions of type 'choice'"):
        Question.from_dict({"name": "a", "question": "?", **values})


def test_scales_pages_and_conditions() -> None:
    scales = [a_study(kind).scale_of("quality") for kind in ("mushra", "acr", "abx")]  # type: ignore[arg-type]
    assert scales == [(0, 100, False), (1, 5, True), (0, 1, False)]
    study = a_study()
    assert study.page("p0") == study.training[0]
    assert study.condition("c2").label == "reference"
    with pytest.raises(InputError, match="study 'test' has no page 'p99'"):
        study.page("p99")
    with pytest.raises(InputError, match="study 'test' has no condition 'c99'"):
        study.condition("c99")


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"holds no study \(study.json\); make one with polyres listen new"):
        load_study(tmp_path)
    path = tmp_path / STUDY_NAME
    path.write_text("{")
    with pytest.raises(InputError, match="cannot be read"):
        load_study(tmp_path)
    path.write_text("[]")
    with pytest.raises(InputError, match="is no study"):
        load_study(tmp_path)
    path.write_text("{}")
    with pytest.raises(ConfigError, match=r"study.json: ListenStudy: key 'name' is missing"):
        load_study(tmp_path)


def test_a_sound_that_is_gone_is_named(tmp_path: Path) -> None:
    study = stored(tmp_path)
    (tmp_path / study.pages[0].audio["c1"]).unlink()
    with pytest.raises(InputError, match=r"c1-1.wav of page 'p1' is missing; make the study again"):
        load_study(tmp_path)


def test_study_json_holds_plain_values(tmp_path: Path) -> None:
    stored(tmp_path)
    values = json.loads((tmp_path / STUDY_NAME).read_text())
    assert values["conditions"][0] == {"id": "c0", "label": "good", "role": "system"}


LEAST = {"name": "s", "title": "t", "references": "refs", "systems": {"a": "x", "b": "y"}}


def recipe(**changes: Any) -> StudyRecipe:
    return StudyRecipe.from_dict({**LEAST, **changes})


@pytest.mark.parametrize(
    ("kind", "anchors", "hidden", "shown"),
    [
        ("mushra", ("low", "mid"), True, True),
        ("bs2132", (), False, False),
        ("abx", (), False, False),
        ("dcr", (), False, True),
    ],
)
def test_every_kind_has_its_usual_conditions(kind: str, anchors: tuple[str, ...], hidden: bool, shown: bool) -> None:
    made = recipe(kind=kind)
    assert (made.used_anchors, made.has_hidden_reference, made.shows_reference) == (anchors, hidden, shown)
    assert recipe(kind=kind, anchors=["mid"], hidden_reference=True).used_anchors == ("mid",)


def test_folders_are_relative_to_the_recipe() -> None:
    made = recipe().resolved(Path("studies"))
    assert Path(made.references) == Path("studies/refs")
    assert {label: Path(name) for label, name in made.systems.items()} == {
        "a": Path("studies/x"),
        "b": Path("studies/y"),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"systems": {f"s{n}": "x" for n in range(10)}},
            "13 sounds on a page are too many to compare; BS.1534 allows 12",
        ),
        ({"kind": "ab", "systems": {"a": "x"}}, "one system alone cannot be compared"),
        ({"anchors": ["middle"]}, "anchors"),
        ({"system": {}}, "unknown key 'system'; did you mean 'systems'"),
    ],
)
def test_what_is_no_test_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe(**changes)
