"""Studies carried out: what is done, what is left alone, what goes on, and what fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from polyres.core.errors import ConfigError, OutputError
from polyres.study.paper.data import baseline_arm, basis, differences, read_paper_study
from polyres.study.paper.weights import output_weights, read_reports
from polyres.study.plan.arms import Plan, Request, make_plan
from polyres.study.run import run as study_run
from polyres.study.run.files import read_costs, read_rows, read_study, run_folder
from polyres.study.run.job import Job, do_job, load_tracks, read_outcome
from polyres.study.run.run import StudyResult, exit_status, last_words, mean_score, run_study
from polyres.study.run.state import job_of, open_folder, outcome_of, places_of, state_of
from polyres.study.run.summary import arm_scores
from polyres.training.solver import Solver
from tests.study.cases import STUDY, Inline, write_study


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study that has been carried out in `out`."""
    root = tmp_path_factory.mktemp("study")
    write_study(root)
    carry_out(root, Inline())
    return root


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study_run, "_POLL_S", 0.0)


def plan_of(root: Path, request: Request | None = None) -> Plan:
    return make_plan(root / "study.yaml", request or Request())


def carry_out(root: Path, backend: Inline, request: Request | None = None) -> tuple[StudyResult, list[str]]:
    told: list[str] = []
    plan = open_folder(plan_of(root, request), root / "out")
    return run_study(plan, root / "out", backend, told.append, lambda config: 1e6 * len(config.model.n_fft)), told


def copied(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


def steps_of(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_every_run_leaves_scores_and_costs(finished: Path) -> None:
    out = finished / "out"
    study, rows, costs = read_study(out), read_rows(out), read_costs(out)
    names = ["one/seed1", "two/seed1", "one/seed2", "two/seed2"]
    assert list(dict.fromkeys(row.model for row in rows)) == names
    assert {row.track for row in rows} == {"tones/four", "tones/five", "more/three"}
    assert len(rows) == 4 * 3 * 4
    assert [f"{cost.arm}/seed{cost.seed}" for cost in costs] == names
    for cost in costs:
        run = run_folder(out, cost.arm, cost.seed)
        facts = json.loads((run / "run.json").read_text())
        assert (cost.fingerprint, cost.seed) == (facts["fingerprint"], facts["seed"])
        assert {row.fingerprint for row in rows if row.model == f"{cost.arm}/seed{cost.seed}"} == {cost.fingerprint}
        assert (cost.steps, cost.device, cost.macs_per_s) == (4, "cpu", 1e6 if cost.arm == "one" else 2e6)
        assert cost.cpu_s > 0
        assert cost.energy_wh == pytest.approx(cost.cpu_s * 10 / 3600, abs=1e-3)
        assert cost.parameters > 1000
    assert [arm.name for arm in study.arms] == ["one", "two"]
    assert costs[0].parameters < costs[1].parameters


def test_a_study_keeps_what_a_paper_needs_without_its_runs(finished: Path, tmp_path: Path) -> None:
    out = copied(finished, tmp_path) / "out"
    shutil.rmtree(out / "runs")
    study = read_paper_study(out)
    one, two = study.arms
    assert (one.model is not None and one.model.n_fft, two.model is not None and two.model.n_fft) == (
        (512,),
        (512, 1024),
    )
    assert differences(one, two) == ["model.n_fft"]
    assert basis(one, two) == "equal steps"
    assert "data_dir" not in (out / "study.json").read_text()
    assert [point.step for point in two.runs[0].validations()] == [2, 4]
    report = read_reports([study])["study", "two/seed1"]
    assert (report.model, report.n_fft) == ("two/seed1", (512, 1024))
    assert output_weights({("study", "two/seed1"): report}, study, two).shape == (1, 4, 2)
    silence = study.values(baseline_arm(study, "silence"), "nsdr")[0]
    assert {track: pytest.approx(0.0) for track in study.tracks} == {
        t: max(map(abs, s.values())) for t, s in silence.items()
    }
    assert len(study.values(baseline_arm(study, "share"), "nsdr")[0]) == len(study.tracks)
    assert 0 < two.costs("separate_s")[0] < 60


def test_parts_are_scored_where_asked_and_runs_of_a_study_beside_are_taken_over(finished: Path, tmp_path: Path) -> None:
    root, backend, told = copied(finished, tmp_path), Inline(), []
    plan = make_plan(root / "study.yaml", Request(seeds=(1,), overrides=("study.parts=true", "study.name=b")))
    plan = open_folder(plan, root / "b")
    result = run_study(plan, root / "b", backend, told.append, None)
    assert (result.done, result.failures) == (["one/seed1", "two/seed1"], [])
    assert [line for line in told if "trained already as" in line] == [
        f"{name}  trained already as {root / 'out' / 'runs' / name}" for name in ("one/seed1", "two/seed1")
    ]
    for arm in ("one", "two"):
        weights = [run_folder(root / place, arm, 1) / "best.safetensors" for place in ("out", "b")]
        assert weights[0].read_bytes() == weights[1].read_bytes()
    assert {(row.model, row.part) for row in read_rows(root / "b")} == {
        ("one/seed1", "all"), ("two/seed1", "all"), ("two/seed1", "only 512"), ("two/seed1", "only 1024")
    }  # fmt: skip
    assert {score.arm for score in arm_scores(read_rows(root / "b"))} == {"one", "two"}


def test_what_is_done_is_not_done_again(finished: Path) -> None:
    before = (finished / "out" / "rows.jsonl").read_text()
    backend = Inline()
    result, told = carry_out(finished, backend)
    assert backend.started == []
    assert told == ["4 of 4 runs are done already"]
    assert (len(result.done), exit_status(result)) == (4, 0)
    assert (finished / "out" / "rows.jsonl").read_text() == before
    assert [state_of(plan_of(finished), run, finished / "out") for run in plan_of(finished).runs] == ["done"] * 4


@pytest.mark.slow
def test_further_seeds_arms_and_metrics(finished: Path, tmp_path: Path) -> None:
    root = copied(finished, tmp_path)
    backend = Inline()
    request = Request(data_dir=str(root), seeds=(3,), arms=("one",))
    result, told = carry_out(root, backend, request)
    assert backend.started == ["one/seed3"]
    assert read_study(root / "out").seeds == (1, 2, 3)
    assert result.done == ["one/seed1", "two/seed1", "one/seed2", "two/seed2", "one/seed3"]
    assert told[0].startswith("1/1  one/seed3  4 steps in ")
    backend = Inline()
    request = Request(data_dir=str(root), seeds=(1,), overrides=("study.metrics=[nsdr, l1]",))
    carry_out(root, backend, request)
    assert backend.started == ["one/seed1", "two/seed1"]
    rows = read_rows(root / "out")
    assert {row.metric for row in rows if row.model == "one/seed1"} == {"nsdr", "l1"}
    assert steps_of(run_folder(root / "out", "one", 1)) == [2, 4]


def test_other_data_are_scored_anew_and_apart(finished: Path, tmp_path: Path) -> None:
    root = copied(finished, tmp_path)
    request = Request(str(root), (1,), ("one",), ("study.data.max_length_s=0.5",))
    backend = Inline()
    carry_out(root, backend, request)
    assert backend.started == ["one/seed1"]
    scores = run_folder(root / "out", "one", 1) / "scores"
    assert len(list(scores.iterdir())) == 2
    assert {row.model for row in read_rows(root / "out")} == {"one/seed1"}


def test_longer_training_goes_on_from_where_it_was(finished: Path, tmp_path: Path) -> None:
    root = copied(finished, tmp_path)
    backend = Inline()
    carry_out(root, backend, Request(str(root), (1,), ("one",), ("epochs=3",)))
    assert steps_of(run_folder(root / "out", "one", 1)) == [2, 4, 6]
    assert [cost.steps for cost in read_costs(root / "out") if (cost.arm, cost.seed) == ("one", 1)] == [6]


def test_other_settings_want_another_folder(finished: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"seed1 holds a run with other settings \(model.channels was 4 and is now 8\)"
    ):
        open_folder(plan_of(finished, Request(overrides=("model.channels=8",))), finished / "out")
    with pytest.raises(ConfigError, match=r"holds the study 'study'; choose another --out for 'other'"):
        open_folder(plan_of(finished, Request(overrides=("study.name=other",))), finished / "out")


@pytest.mark.slow
def test_a_run_that_fails_stops_no_other(tmp_path: Path) -> None:
    text = STUDY.replace("arms:\n", "arms:\n  lost: {data: {roots: [{path: nowhere}]}}\n").replace("[1, 2]", "[1]")
    write_study(tmp_path, text)
    backend = Inline()
    result, told = carry_out(tmp_path, backend)
    assert backend.started == ["lost/seed1", "one/seed1", "two/seed1"]
    (failure,) = result.failures
    assert (failure.run, failure.status) == ("lost/seed1", 2)
    assert failure.reason.startswith("there is no folder ")
    assert told[0].startswith("1/3  lost/seed1  failed: there is no folder")
    assert (result.done, exit_status(result)) == (["one/seed1", "two/seed1"], 1)
    assert {row.model for row in read_rows(tmp_path / "out")} == {"one/seed1", "two/seed1"}
    again = Inline()
    carry_out(tmp_path, again)
    assert again.started == ["lost/seed1"]


def signals_at_step(step: int) -> Callable[[Solver], None]:
    """A training step that gets SIGTERM."""
    plain = Solver._train_step

    def take(self: Solver) -> None:
        plain(self)
        if self.state.step == step:
            os.kill(os.getpid(), signal.SIGTERM)

    return take


def test_a_run_that_is_stopped_goes_on_and_ends_as_if_it_had_not_been(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "copy"
    shutil.copytree(finished, root, ignore=shutil.ignore_patterns("out"))
    plan = open_folder(plan_of(root, Request(str(root), (1,), ("two",))), root / "out")
    (run,) = plan.runs
    places, job = places_of(root / "out", run), job_of(plan, run, root / "out")
    places.recipe.parent.mkdir(parents=True)
    places.recipe.write_text(run.config.to_yaml())
    assert state_of(plan, run, root / "out") == "new"
    with monkeypatch.context() as patch:
        patch.setattr(Solver, "_train_step", signals_at_step(1))
        assert do_job(job) == 128 + signal.SIGTERM
    assert state_of(plan, run, root / "out") == "stopped"
    assert outcome_of(plan, run, root / "out") is None
    cpu_s = json.loads((places.run / "effort.json").read_text())["cpu_s"]
    assert do_job(job) == 0
    outcome = outcome_of(plan, run, root / "out")
    whole = plan_of(finished, Request(seeds=(1,), arms=("two",)))
    expected = outcome_of(whole, whole.runs[0], finished / "out")
    assert outcome is not None
    assert expected is not None
    assert (outcome.weights_id, outcome.steps) == (expected.weights_id, expected.steps)
    assert json.loads((places.run / "effort.json").read_text())["cpu_s"] > cpu_s > 0
    shutil.rmtree(job.scores_folder())
    assert state_of(plan, run, root / "out") == "trained"
    assert read_outcome(job.scores_folder()) is None


class Stoppable:
    """A job that ends only when it is asked to; asks the study to end when it is first looked at."""

    def __init__(self) -> None:
        self.stopped: list[bool] = []

    def poll(self) -> int | None:
        if not self.stopped:
            os.kill(os.getpid(), signal.SIGTERM)
            return None
        return 128 + signal.SIGTERM

    def stop(self, hard: bool) -> None:
        self.stopped.append(hard)


def test_a_signal_lets_runs_save_and_starts_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path)
    started: list[Stoppable] = []

    class Backend(Inline):
        def start(self, job: Path, log: Path, slot: int, threads: int) -> Stoppable:  # type: ignore[override]
            started.append(Stoppable())
            return started[-1]

    result, told = carry_out(tmp_path, Backend())
    assert [handle.stopped for handle in started] == [[False]]
    assert (result.stopped_by, result.failures, result.done) == (signal.SIGTERM, [], [])
    assert exit_status(result) == 128 + signal.SIGTERM
    assert told == ["stopping: 1 runs save where they are"]


def test_what_does_not_end_in_time_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_study(tmp_path)
    monkeypatch.setattr(study_run, "KILL_AFTER_S", -1.0)

    class Stubborn(Stoppable):
        def poll(self) -> int | None:
            return super().poll() if not self.stopped else (137 if self.stopped[-1] else None)

    handle = Stubborn()

    class Backend(Inline):
        def start(self, job: Path, log: Path, slot: int, threads: int) -> Stoppable:  # type: ignore[override]
            return handle

    carry_out(tmp_path, Backend())
    assert handle.stopped[:2] == [False, True]


def test_a_process_that_cannot_be_started(tmp_path: Path) -> None:
    write_study(tmp_path)

    class Backend(Inline):
        def start(self, job: Path, log: Path, slot: int, threads: int) -> Stoppable:  # type: ignore[override]
            raise OSError(12, "Cannot allocate memory")

    with pytest.raises(OutputError, match="cannot start a process for one/seed1: Cannot allocate memory"):
        carry_out(tmp_path, Backend())


def test_labels_come_before_the_names_of_tracks(finished: Path) -> None:
    plan = plan_of(finished)
    tracks = load_tracks(plan.config.data, plan.runs[0].config)
    assert tracks.names == ["tones/five", "tones/four", "more/three"]
    assert tracks[2].shape == (4, 2, 16000)
    plain = plan.config.data.with_values({"roots": ["test"]})
    assert load_tracks(plain, plan.runs[0].config).names == ["five", "four"]


def test_jobs_take_no_more_threads_than_their_share(finished: Path) -> None:
    plan = plan_of(finished)
    config = plan.runs[0].config
    for wanted, share, threads in ((None, 4, 4), (2, 4, 2), (8, 4, 4)):
        run = replace(plan.runs[0], config=config.with_values({"threads": wanted}))
        assert job_of(plan, run, finished, share).threads == threads


def test_jobs_are_read_as_they_are_written(finished: Path) -> None:
    plan = plan_of(finished)
    job = job_of(plan, plan.runs[0], finished / "out")
    assert Job.from_dict(job.to_dict()) == job


def test_last_words(tmp_path: Path) -> None:
    log = tmp_path / "log"
    assert last_words(log) == "nothing was said"
    log.write_text("\n \n")
    assert last_words(log) == "nothing was said"
    log.write_text("first\nerror: it broke\n\n")
    assert last_words(log) == "it broke"
    log.write_text("x" * 30000)
    assert last_words(log, 10) == "x" * 9 + "…"


def test_mean_of_scores(finished: Path) -> None:
    rows = read_rows(finished / "out")
    values = [row.value for row in rows if row.value is not None]
    assert mean_score(rows, "nsdr") == f"{sum(values) / len(values):.2f}"
    assert mean_score(rows, "sdr") == "–"
