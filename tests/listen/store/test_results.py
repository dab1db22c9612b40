"""The committed simulated study is what its pages say."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from polyres.listen.design.files import StudyRecipe

FOLDER = Path(__file__).parents[3] / "docs/results/listen"


@pytest.fixture(scope="module")
def rule() -> ModuleType:
    spec = importlib.util.spec_from_file_location("effects", FOLDER / "effects.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_table_of_what_came_back_is_that_of_the_files(rule: ModuleType) -> None:
    truth = rule.effects(FOLDER / "mushra/scores.jsonl")
    told = rule.recovered(truth, FOLDER / "mushra/report.json")
    assert told in (FOLDER / "README.md").read_text(encoding="utf-8")
    assert told.count("| yes |") == 12
    assert "**no**" not in told


@pytest.mark.parametrize("study", ["mushra", "abx", "ab"])
def test_every_report_says_that_nobody_has_heard_anything(study: str) -> None:
    recipe = StudyRecipe.from_yaml(FOLDER / f"{study}.yaml")
    made = json.loads((FOLDER / study / "report.json").read_text(encoding="utf-8"))
    assert (made["study"], made["kind"]) == (recipe.name, recipe.kind)
    assert made["simulated_listeners"] == made["listeners"] > 0
    assert "SIMULATED" in (FOLDER / study / "report.md").read_text(encoding="utf-8")
    assert "SIMULATED" in (FOLDER / "README.md").read_text(encoding="utf-8").splitlines()[0]


def test_nothing_large_is_kept() -> None:
    sizes = {path.name: path.stat().st_size for path in FOLDER.rglob("*") if path.is_file()}
    assert max(sizes.values()) < 300_000
    assert not {path.suffix for path in FOLDER.rglob("*")} & {".wav", ".flac", ".mp3"}
