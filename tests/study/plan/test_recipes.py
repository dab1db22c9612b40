"""The studies that come with the package: each resolves, builds the model of every arm, and asks one question."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.separation.model import Separator
from polyres.study.plan.arms import Plan, make_plan, planned_steps
from polyres.study.plan.config import StudyConfig, find_studies

STUDIES = Path(__file__).resolve().parents[3] / "recipes" / "studies"

BUILT: set[str] = set()

every_study = pytest.mark.parametrize("path", find_studies(STUDIES), ids=lambda path: path.stem)


def plan_of(path: Path) -> Plan:
    return make_plan(path)


@every_study
def test_every_arm_of_every_study_has_a_model(path: Path) -> None:
    plan = plan_of(path)
    # Thin, so that building is quick: what depends on the width is checked with the recipe.
    for run in plan.runs:
        thin = run.config.model.with_values({"channels": 4})
        if thin.fingerprint() not in BUILT:
            BUILT.add(thin.fingerprint())
            Separator(thin)
    assert {run.arm for run in plan.runs} == set(plan.config.arms)
    assert len(plan.runs) == len(plan.config.arms) * len(plan.config.seeds)


@every_study
def test_every_study_says_what_it_asks_and_how_to_run_it(path: Path) -> None:
    config = StudyConfig.from_yaml(path)
    assert f"polyres study {path.relative_to(STUDIES.parents[1]).as_posix()}" in path.read_text(encoding="utf-8")
    assert config.question.endswith("?")
    assert config.reference in config.arms
    assert len(config.arms) >= 2
    assert config.budget is not None


def test_the_main_study_is_five_variants_at_equal_steps_on_enough_songs() -> None:
    plan = plan_of(STUDIES / "main_cpu.yaml")
    assert [arm.name for arm in plan.study.arms] == ["htdemucs_24", "n", "nn", "w5", "nf"]
    assert [run.config.variant for run in plan.runs[:5]] == ["htdemucs_24", "n", "nn", "w5", "nf"]
    assert {planned_steps(run.config) for run in plan.runs} == {200}
    assert plan.study.seeds == (1, 2, 3)
    assert {run.config.model.channels for run in plan.runs} == {12}
