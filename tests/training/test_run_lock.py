from __future__ import annotations

import subprocess
import sys

import pytest
from lightning_fabric.utilities.rank_zero import rank_zero_only

from polyres.core.errors import OutputError, TrainingError
from polyres.study.run.train import run_training
from polyres.training import run_folder as run_lock
from polyres.training.run_folder import LOCK_FILE, held, is_held, refuse_if_held

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
