"""Recipes say what they need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from polyres.core.errors import ConfigError
from polyres.listen.design.recipe import StudyRecipe

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
