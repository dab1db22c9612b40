"""What a study leaves in its folder, and how it is read again."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import InputError, OutputError
from polyres.study.evaluate.rows import ScoreRow
from polyres.study.run.files import (
    Arm,
    Cost,
    Study,
    model_name,
    read_costs,
    read_rows,
    read_study,
    run_folder,
    split_name,
    write_costs,
    write_rows,
    write_study,
)

STUDY = Study(
    name="widths",
    title="Width",
    question="Does more width help?",
    base="recipes/base.yaml",
    reference="c16",
    primary="nsdr",
    metrics=("nsdr", "sdr"),
    data={"roots": {"": "valid"}, "max_length_s": 10.0},
    arms=(Arm("c16", {"model.channels": 16}), Arm("c24", {"model.channels": 24, "model.n_fft": [1024, 4096]})),
    seeds=(1, 2),
    commit="abc",
    versions={"torch": "2"},
    budget={"equal": "steps"},
)
COST = Cost("c16", 1, "f" * 16, 1000, 1e9, 12.5, 20.0, 50, 0.05, 10.0, "cpu", 3.0)


def test_a_study_is_read_as_it_was_written(tmp_path: Path) -> None:
    write_study(tmp_path / "deep" / "study", STUDY)
    assert read_study(tmp_path / "deep" / "study") == STUDY
    written = json.loads((tmp_path / "deep" / "study" / "study.json").read_text())
    assert (written["format"], written["arms"][0]) == (1, asdict(STUDY.arms[0]))
    assert {*written} == {"format", *STUDY.__dataclass_fields__}


def test_a_study_that_says_nothing_of_reference_and_budget(tmp_path: Path) -> None:
    study = replace(STUDY, reference=None, budget=None, commit=None)
    write_study(tmp_path, study)
    assert read_study(tmp_path) == study
    values = json.loads((tmp_path / "study.json").read_text())
    del values["budget"]
    (tmp_path / "study.json").write_text(json.dumps(values))
    assert read_study(tmp_path) == study


def test_scores_and_costs_are_read_as_they_were_written(tmp_path: Path) -> None:
    assert read_rows(tmp_path) == []
    assert read_costs(tmp_path) == []
    rows = [ScoreRow(model_name("c16", 1), "all", "ä/b", "drums", "nsdr", "dB", value) for value in (1.25, None)]
    write_rows(tmp_path, rows)
    costs = [COST, replace(COST, seed=2, energy_wh=None, macs_per_s=None)]
    write_costs(tmp_path, costs)
    assert read_rows(tmp_path) == rows
    assert read_costs(tmp_path) == costs
    write_rows(tmp_path, rows[:1])
    assert read_rows(tmp_path) == rows[:1]
    assert {path.name for path in tmp_path.iterdir()} == {"rows.jsonl", "costs.jsonl"}


@given(st.from_regex(r"[A-Za-z0-9_.\-]{1,12}", fullmatch=True), st.integers(0, 10**6))
def test_names_of_runs_say_arm_and_seed(arm: str, seed: int) -> None:
    assert split_name(model_name(arm, seed)) == (arm, seed)
    assert run_folder(Path("x"), arm, seed) == Path("x") / "runs" / Path(model_name(arm, seed))


def test_arms_by_name() -> None:
    assert STUDY.arm("c24").settings["model.channels"] == 24
    with pytest.raises(InputError, match=r"has no arm 'c99'; it has c16, c24"):
        STUDY.arm("c99")


@pytest.mark.parametrize("name", ["nn", "nn/seed", "nn/1", "a/b/seed1", "/seed1"])
def test_other_names_are_no_runs(name: str) -> None:
    with pytest.raises(InputError, match="is no run of a study"):
        split_name(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "holds no study"),
        ("{", "cannot be read"),
        ('{"format": 2}', "another format"),
        ('{"format": 1}', "'name' is missing"),
        ("[]", "cannot be read"),
        ('{"format": 1, "arms": [], "metrics": [], "seeds": [], "colour": 1}', "cannot be read"),
    ],
)
def test_what_is_no_study_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "study.json").write_text(text)
    with pytest.raises(InputError, match=message):
        read_study(tmp_path)


def test_what_is_no_cost_is_refused(tmp_path: Path) -> None:
    (tmp_path / "costs.jsonl").write_text('{"arm": "c16"}\n')
    with pytest.raises(InputError, match=r"line 1 of .*costs.jsonl' is no cost of a run"):
        read_costs(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot write .*choose another folder"):
        write_study(tmp_path / "file", STUDY)
