from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml

from polyres.core.errors import TrainingError
from polyres.separation.training.run_table import compare_runs, list_runs, read_run
from polyres.study.run.train import run_training
from polyres.training.run_folder import held

DATA = {"roots": [{"path": "train"}]}


def make_run(path: Path, scores: dict[int, float | None], seconds_per_step: float = 1.0, **config: object) -> Path:
    """Write a run by hand: its rows by step, with a score where it was validated (best: the average)."""
    path.mkdir(parents=True)
    values = {"data": DATA, "epochs": max(scores), "seed": 1, **config}
    (path / "config.yaml").write_text(yaml.safe_dump(values), encoding="utf-8")
    (path / "run.json").write_text(json.dumps({"fingerprint": "f"}), encoding="utf-8")
    best = None
    with (path / "metrics.jsonl").open("w", encoding="utf-8") as file:
        for step, score in scores.items():
            valid = {}
            if score is not None:
                valid = {"raw": {"score": score - 1}, "ema_0.9": {"score": score, "drums": score + 1, "drums@512": 0.0}}
                if best is None or score > best["score"]:
                    best = {"score": score, "weights": "ema_0.9", "step": step, "valid": valid["ema_0.9"]}
            row = {"epoch": step, "step": step, "elapsed_s": step * seconds_per_step, "valid": valid, "best": best}
            file.write(json.dumps({**row, "progress": step / max(scores), "fingerprint": "f"}) + "\n")
    return path


def test_a_run_in_figures(tmp_path):
    make_run(tmp_path / "run", {1: 2.0, 2: None, 3: 4.0, 4: 3.0}, 2.5)
    (run,) = list_runs(tmp_path)
    assert (run.name, run.state, run.step, run.elapsed_s) == ("run", "finished", 4, 10.0)
    assert (run.score, run.source_scores) == (4.0, {"drums": 5.0})
    assert [(point.step, point.elapsed_s, point.score) for point in run.points] == [
        (1, 2.5, 2.0), (3, 7.5, 4.0), (4, 10.0, 3.0),
    ]  # fmt: skip
    assert run.parameters is None
    assert run.to_dict()["best"]["step"] == 3
    assert "problem" not in run.to_dict()


def test_the_summary_of_a_real_run(recipe, tmp_path):
    result = run_training(recipe, tmp_path / "run")
    run = read_run(tmp_path / "run")
    assert (run.state, run.step, run.problem) == ("finished", 4, None)
    assert run.score == result.best["score"]
    assert run.elapsed_s == pytest.approx(result.elapsed_s, abs=1e-3)
    assert set(run.source_scores) == {"drums", "other", "vocals"}
    assert run.parameters > 1000
    assert len(run.points) == 2
    with held(tmp_path / "run"):
        assert read_run(tmp_path / "run").state == "running"


def test_a_run_whose_end_was_moved_is_not_finished(tmp_path):
    path = make_run(tmp_path / "run", {1: 1.0, 2: 2.0})
    assert read_run(path).state == "finished"
    for change, state in (({"epochs": 5}, "stopped"), ({"epochs": 5, "time_budget_s": 2.0}, "finished")):
        (path / "config.yaml").write_text(yaml.safe_dump({"data": DATA, **change}), encoding="utf-8")
        (path / "run.json").write_text(json.dumps({"fingerprint": "g"}), encoding="utf-8")
        assert read_run(path).state == state


def test_a_run_in_the_middle_has_stopped(tmp_path):
    path = make_run(tmp_path / "run", {1: 1.0, 2: 2.0}, epochs=2)
    rows = (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    (path / "metrics.jsonl").write_text(rows[0] + "\n" + rows[1][:20], encoding="utf-8")  # cut by a crash
    run = read_run(path)
    assert (run.state, run.step) == ("stopped", 1)


def test_a_run_that_has_just_begun(tmp_path):
    path = make_run(tmp_path / "run", {1: None})
    (path / "metrics.jsonl").unlink()
    run = read_run(path)
    assert (run.state, run.step, run.score, run.points) == ("stopped", 0, None, ())


def test_the_checkpoint_knows_of_later_steps(recipe, tmp_path):
    run_training(recipe, tmp_path / "run")
    path = tmp_path / "run" / "metrics.jsonl"
    path.write_text(path.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    assert read_run(tmp_path / "run").step == 4


def test_runs_are_found_at_any_depth_and_named_by_their_place(tmp_path):
    for name in ("b", "a/two", "a/one", "b/inside", ".hidden/run"):
        make_run(tmp_path / name / "x" if name == "a/one" else tmp_path / name, {1: 1.0})
    assert [run.name for run in list_runs(tmp_path)] == ["a/one/x", "a/two", "b"]
    assert [run.name for run in list_runs(tmp_path / "b")] == ["b"]


@pytest.mark.parametrize(
    ("file", "content", "problem"),
    [
        ("config.yaml", None, r"config.yaml: no such config file"),
        ("config.yaml", "epochs: 1\nspeed: 3\ndata: {roots: []}", r"unknown key 'speed'"),
        ("metrics.jsonl", '{"step": 3}\n', r"has a row that is none of a run \(_Row: key 'elapsed_s' is missing"),
        ("metrics.jsonl", '{"step": 3, "elapsed_s": 1, "valid": {"raw": {}}}\n', r"'valid.raw.score' is missing"),
        (
            "metrics.jsonl",
            '{"step": 3, "elapsed_s": 1, "valid": {}, "best": {"score": 1}}\n',
            "'best.valid' is",
        ),
        ("checkpoint.safetensors", "nothing", r"is not a safetensors file"),
        ("best.safetensors", "", r"is empty"),
    ],
)
def test_broken_runs_are_listed_with_the_reason_and_not_compared(tmp_path, file, content, problem):
    good, bad = make_run(tmp_path / "good", {1: 1.0}), make_run(tmp_path / "bad", {1: 1.0})
    if content is None:
        (bad / file).unlink()
    else:
        (bad / file).write_text(content, encoding="utf-8")
    broken, whole = list_runs(tmp_path)
    assert (broken.name, broken.state, whole.state) == ("bad", "broken", "finished")
    assert broken.problem is not None
    assert re.search(problem, broken.problem)
    with pytest.raises(TrainingError, match=r"holds no run" if content is None else rf"bad is broken: .*{problem}"):
        compare_runs([good, bad])


def test_no_folder_and_no_runs(tmp_path):
    with pytest.raises(TrainingError, match=r"there is no folder .*gone; give the folder that holds runs"):
        list_runs(tmp_path / "gone")
    with pytest.raises(TrainingError, match=r"there is no run in .*; a run is a folder with a config.yaml"):
        list_runs(tmp_path)
    with pytest.raises(TrainingError, match=r"holds no run \(config.yaml is missing\); give the folder of a run"):
        read_run(tmp_path)
    with pytest.raises(TrainingError, match=r"1 run given; name two or more to compare"):
        compare_runs([make_run(tmp_path / "run", {1: 1.0})])


def test_comparison_by_hand(tmp_path):
    slow = make_run(tmp_path / "slow", {2: 3.0, 4: 2.0, 6: 5.0}, 10.0, seed=1)
    fast = make_run(tmp_path / "fast", {1: 1.0, 3: 4.0, 5: 4.5, 7: 6.0}, 2.0, seed=2, optimiser={"lr": 1e-3})
    unscored = make_run(tmp_path / "unscored", {3: None}, seed=1, optimiser={"lr": 1e-3})
    table = compare_runs([slow, fast, unscored])
    assert table.differences == {
        "seed": (1, 2, 1), "epochs": (6, 7, 3), "optimiser.lr": (3e-4, 1e-3, 1e-3),
    }  # fmt: skip
    assert table.by_step == ((2, (3.0, 1.0, None)), (4, (3.0, 4.0, None)), (6, (5.0, 4.5, None)))
    assert table.by_time == tuple((at, (None, best, None)) for at, best in ((2, 1.0), (6, 4.0), (10, 4.5), (14, 6.0)))
    assert json.loads(json.dumps(table.to_dict()))["by_step"][1] == {"step": 4, "best": [3.0, 4.0, None]}


def test_equal_times_are_those_that_all_have_trained(tmp_path):
    slow = make_run(tmp_path / "slow", {1: 1.0, 2: 2.0}, 5.0)
    fast = make_run(tmp_path / "fast", {2: 3.0, 4: 4.0, 6: 5.0, 8: 6.0}, 1.0)
    table = compare_runs([slow, fast])
    assert table.by_time == ((5.0, (1.0, 4.0)),)
    assert table.by_step == ((2, (2.0, 3.0)),)


def test_long_curves_are_thinned_evenly_to_the_end(tmp_path):
    paths = [make_run(tmp_path / name, {step: float(step) for step in range(1, 101)}) for name in "ab"]
    places = [at for at, _ in compare_runs(paths).by_step]
    assert len(places) == 8
    assert places[-1] == 100
    assert {b - a for a, b in itertools.pairwise(places)} <= {12, 13}


def test_equal_runs_have_no_differences(tmp_path):
    assert compare_runs([make_run(tmp_path / name, {1: None}) for name in "ab"]).differences == {}
