"""The studies that come with the package: each resolves, builds the model of every arm, and asks one question."""

from __future__ import annotations

from pathlib import Path

import pytest

from polyres.separation.model import Separator
from polyres.separation.variants import FIVE, SEVEN, THREE
from polyres.study.claims.base import Material
from polyres.study.claims.weights import WEIGHT_CLAIMS, WIDE
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.paper.data import read_paper_study
from polyres.study.paper.write import CLAIMS
from polyres.study.plan.arms import Plan, Request, make_plan, planned_steps
from polyres.study.plan.config import StudyConfig, find_studies
from polyres.study.run.files import Cost, write_costs, write_rows, write_study

STUDIES = Path(__file__).resolve().parents[3] / "recipes" / "studies"

BUILT: set[str] = set()

CPU = find_studies(STUDIES / "cpu")
every_study = pytest.mark.parametrize(
    "path",
    [*(path for path in find_studies(STUDIES) if path.is_file()), *CPU],
    ids=lambda path: f"{path.parent.name}-{path.stem}",
)


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
    assert config.budget is not None or path.stem == "longer"


def test_the_main_study_is_five_variants_at_equal_steps_on_enough_songs() -> None:
    plan = plan_of(STUDIES / "main_cpu.yaml")
    assert [arm.name for arm in plan.study.arms] == ["htdemucs_24", "n", "nn", "w5", "nf"]
    assert [run.config.variant for run in plan.runs[:5]] == ["htdemucs_24", "n", "nn", "w5", "nf"]
    assert {planned_steps(run.config) for run in plan.runs} == {200}
    assert plan.study.seeds == (1, 2, 3)
    assert {run.config.model.channels for run in plan.runs} == {12}


@pytest.mark.parametrize("path", CPU, ids=lambda path: path.stem)
def test_a_study_of_this_size_answers_the_claims_that_name_it(path: Path, tmp_path: Path) -> None:
    plan = make_plan(path, Request(seeds=(1, 2, 3)))
    write_study(tmp_path, plan.study)
    rows, costs = [], []
    for run in plan.runs:
        model, steps = run.config.model, run.config.epochs * run.config.steps_per_epoch
        assert run.config.model.channels in (8, 12, 16, 24)
        parts = [f"without {size}" for size in model.n_fft] if plan.config.parts and len(model.n_fft) > 2 else []
        rows += [
            ScoreRow(run.name, part, f"song {track}", stem, metric, "dB", 1.0)
            for part in ("all", *parts)
            for metric in plan.config.metrics
            for track in range(6)
            for stem in model.sources
        ]
        costs.append(Cost(run.arm, run.seed, "f", 1, 1e9, 1.0, 1.0, steps, None, 10.0, "cpu", 1.0, 0.1))
    write_rows(tmp_path, rows)
    write_costs(tmp_path, costs)
    study = read_paper_study(tmp_path)
    learned = {arm.model.n_fft for arm in study.arms if arm.model is not None and arm.model.output.learned}
    for claim in (claim for claim in CLAIMS if claim.run == path.stem and claim.key != "unet_gradients_several_times"):
        if claim in WEIGHT_CLAIMS:  # these need weights; that the resolutions are there can be said without
            assert learned & {THREE, FIVE, SEVEN, WIDE}, claim.key
        else:
            assert claim.test(Material([study])), claim.key


def test_every_study_that_a_claim_names_is_there() -> None:
    assert {claim.run for claim in CLAIMS if claim.run and " " not in claim.run} <= {path.stem for path in CPU}
