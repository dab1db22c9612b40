from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import yaml
from lightning_fabric.utilities.rank_zero import rank_zero_only

from polyres.core.errors import OutputError, TrainingError
from polyres.study.run.train import run_training
from polyres.training import run_folder
from polyres.training import run_folder as run_lock
from polyres.training.config import SolverConfig
from polyres.training.run_folder import LOCK_FILE, RunFolder, git_commit, held, is_held, refuse_if_held, versions

CONFIG = SolverConfig(epochs=3, seed=7)


def test_new_run_says_what_it_is(tmp_path):
    run = RunFolder.create(tmp_path / "deep" / "run", CONFIG, 7)
    assert SolverConfig.from_yaml(run.path / "config.yaml") == CONFIG
    assert yaml.safe_load((run.path / "config.yaml").read_text())["optimiser"]["lr"] == CONFIG.optimiser.lr
    facts = json.loads((run.path / "run.json").read_text())
    assert facts["fingerprint"] == CONFIG.fingerprint()
    assert facts["seed"] == 7
    assert facts["versions"]["torch"] == torch.__version__


def test_a_run_is_not_overwritten(tmp_path):
    RunFolder.create(tmp_path, CONFIG, 7)
    with pytest.raises(TrainingError, match=r"already holds a run; add --resume to go on with it, or choose another"):
        RunFolder.create(tmp_path, CONFIG, 7)


def test_nothing_to_resume(tmp_path):
    with pytest.raises(TrainingError, match=r"holds no run to resume; leave out --resume"):
        RunFolder.reopen(tmp_path, CONFIG, 7)


def test_resuming_may_change_how_long_but_not_what(tmp_path):
    RunFolder.create(tmp_path, CONFIG, 7)
    longer = CONFIG.with_values({"epochs": 9, "threads": 3, "valid.batch_size": 1})
    RunFolder.reopen(tmp_path, longer, 7)
    assert SolverConfig.from_yaml(tmp_path / "config.yaml") == longer
    faster = CONFIG.with_values({"optimiser.lr": 0.5})
    with pytest.raises(TrainingError, match=r"optimiser.lr was 0.0003 and is now 0.5; leave it as it was"):
        RunFolder.reopen(tmp_path, faster, 7)


def test_every_setting_that_may_change_exists():
    values = {key: CONFIG.to_dict()["valid"][key.removeprefix("valid.")] if "." in key else None
              for key in run_folder.MAY_CHANGE if key.startswith("valid.")}  # fmt: skip
    assert values == {"valid.batch_size": 4}
    from polyres.separation.training.task import TrainConfig

    assert {key.split(".")[0] for key in run_folder.MAY_CHANGE} <= set(TrainConfig.model_fields)


def test_rows_carry_the_run_and_survive_a_cut_line(tmp_path):
    run = RunFolder.create(tmp_path, CONFIG, 7)
    assert run.rows() == []
    for step in (10, 20, 30):
        run.append_row({"step": step, "loss": step / 3})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    assert [row["step"] for row in run.rows()] == [10, 20, 30]
    assert run.rows()[0] == {"step": 10, "loss": 10 / 3, **run.identity}
    run.forget_after(20)
    run.append_row({"step": 30, "loss": 1.0})
    assert [row["step"] for row in run.rows()] == [10, 20, 30]


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=r"cannot make the folder .*choose another --out"):
        RunFolder.create(tmp_path / "file" / "run", CONFIG, 7)


def test_rows_on_a_full_disk(tmp_path):
    run = RunFolder.create(tmp_path, CONFIG, 7)
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(OutputError, match=r"cannot write .*metrics.jsonl"):
        run.append_row({"step": 1})


def test_commit_is_that_of_the_tracked_sources_only(tmp_path, monkeypatch):
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=n", "-c", "user.email=e@example.org")
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *arguments], check=True, capture_output=True, text=True
        ).stdout.strip()

    source = tmp_path / "package" / "training" / "run_folder.py"
    source.parent.mkdir(parents=True)
    source.write_text("x = 1\n")
    monkeypatch.setattr(run_folder, "__file__", str(source))
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert git_commit() is None
    git("init", "-q")
    (tmp_path / "other").write_text("")
    git("add", "other")
    git("commit", "-qm", "other")
    assert git_commit() is None
    git("add", ".")
    git("commit", "-qm", "source")
    assert git_commit() == git("rev-parse", "HEAD")
    source.write_text("x = 2\n")
    assert git_commit() == git("rev-parse", "HEAD") + "+"


def test_versions_name_what_is_missing(monkeypatch):
    def missing(name: str) -> str:
        raise run_folder.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(run_folder.metadata, "version", missing)
    assert versions()["torch"] == "not installed"


HOLD = (
    "import sys; from pathlib import Path; from polyres.training.run_folder import held\n"
    "with held(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_lock_lasts_as_long_as_its_block(tmp_path):
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
    assert not is_held(tmp_path)
    assert not is_held(tmp_path / "nowhere")


def test_asking_does_not_hold(tmp_path):
    (tmp_path / LOCK_FILE).touch()
    assert not is_held(tmp_path)
    assert not is_held(tmp_path)
    with held(tmp_path):
        assert is_held(tmp_path)
        assert is_held(tmp_path)


def test_a_lock_is_seen_by_others_and_dies_with_its_process(tmp_path, holder, recipe):
    assert is_held(tmp_path)
    with pytest.raises(TrainingError, match=r"a run is going on in .*; wait for it, stop it, or choose another --out"):
        refuse_if_held(tmp_path)
    with pytest.raises(TrainingError, match="a run is going on"), held(tmp_path):
        pass
    with pytest.raises(TrainingError, match="a run is going on"):
        run_training(recipe, tmp_path)
    holder.kill()
    holder.wait()
    assert (tmp_path / LOCK_FILE).exists()
    assert not is_held(tmp_path)


@pytest.mark.parametrize("name", ["RANK", "LOCAL_RANK"])
def test_only_the_first_process_of_a_distributed_run_holds(tmp_path, monkeypatch, name):
    monkeypatch.setenv(name, "1")
    with held(tmp_path):
        assert not is_held(tmp_path)
    monkeypatch.setenv(name, "0")
    with held(tmp_path):
        assert is_held(tmp_path)


def test_processes_that_were_started_here_do_not_hold(tmp_path, monkeypatch):
    monkeypatch.setattr(rank_zero_only, "rank", 1)
    with held(tmp_path):
        assert not is_held(tmp_path)


@pytest.mark.skipif(sys.platform == "win32", reason="flock")
def test_without_locks_nobody_holds(tmp_path, monkeypatch):
    def refuse(file, flags):
        raise OSError("no locks here")

    monkeypatch.setattr(run_lock.fcntl, "flock", refuse)
    with held(tmp_path):
        assert not is_held(tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    with pytest.raises(OutputError, match=r"cannot write .*\.lock: .*; choose another folder"), held(tmp_path / "gone"):
        pass
