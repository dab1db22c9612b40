"""Finding weights and epochs of runs and files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from polyres.core.errors import AnalysisError, UnknownNameError
from polyres.separation.bag import Bag
from polyres.separation.fusion_report import weights_over_time as fusion_run
from polyres.separation.fusion_report.weights_over_time import FusionSubject, load_fusion_subject, read_epochs
from polyres.separation.weights import save_separator
from tests.separation.fusion_report.runs import SMALL, small, tables, write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    write_run(folder, [small(seed=seed) for seed in range(3)], {"ema_0.9": small(seed=7), "ema_0.99": small(seed=8)})
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "run")


def output_of(subject: FusionSubject, name: str) -> list[list[float]]:
    return tables(subject.use(name))["output"]


def test_a_run_has_all_its_weights_and_epochs(run: Path) -> None:
    subject = load_fusion_subject(str(run))
    assert list(subject.states) == ["best", "raw", "ema_0.9", "ema_0.99"]
    assert output_of(subject, "raw") == output_of(subject, "best") == tables(small(seed=2))["output"]
    assert output_of(subject, "ema_0.99") == tables(small(seed=8))["output"]
    assert [epoch.number for epoch in subject.epochs] == [1, 2, 3]
    for seed, epoch in enumerate(subject.epochs):
        expected = torch.tensor(tables(small(seed=seed))["bottleneck"], dtype=torch.float64)
        torch.testing.assert_close(epoch.weights["bottleneck"], expected)
    assert subject.epochs[1].gradient_norms == {"branch@512": 2.0, "branch@1024": 3.0, "branch@2048": 4.0}
    assert subject.notes == []


def test_a_checkpoint_has_the_weights_of_its_run_but_the_best(run: Path) -> None:
    subject = load_fusion_subject(str(run / "checkpoint.safetensors"))
    assert list(subject.states) == ["raw", "ema_0.9", "ema_0.99"]
    assert len(subject.epochs) == 3


def test_a_weight_file_has_one_set_and_no_past(run: Path) -> None:
    subject = load_fusion_subject(str(run / "best.safetensors"))
    assert list(subject.states) == ["saved"]
    assert output_of(subject, "saved") == tables(small(seed=2))["output"]
    assert subject.epochs == []
    (run / "config.yaml").unlink()
    (run / "metrics.jsonl").unlink()
    assert list(load_fusion_subject(str(run)).states) == ["saved"]


def test_a_run_that_has_only_epochs_yet(run: Path) -> None:
    (run / "best.safetensors").unlink()
    (run / "checkpoint.safetensors").unlink()
    subject = load_fusion_subject(str(run))
    assert subject.states == {}
    with pytest.raises(AnalysisError, match=r"has no weights 'raw'; there are: none yet: the run has not saved any"):
        subject.use("raw")
    (run / "metrics.jsonl").unlink()
    with pytest.raises(AnalysisError, match=r"has neither weights nor finished epochs yet; wait for the first epoch"):
        load_fusion_subject(str(run))


def test_unknown_weights(run: Path) -> None:
    with pytest.raises(AnalysisError, match=r"has no weights 'ema_0.5'; there are: best, raw, ema_0.9, ema_0.99"):
        load_fusion_subject(str(run)).use("ema_0.5")


def test_nothing_to_fuse(tmp_path: Path) -> None:
    one = small({"n_fft": [1024]})
    path = save_separator(one, tmp_path / "one.safetensors")
    message = r"has one resolution \(n_fft 1024\), so there is nothing to fuse; give a model with two or more"
    with pytest.raises(AnalysisError, match=message):
        load_fusion_subject(str(path))
    write_run(tmp_path / "run", [one])
    with pytest.raises(AnalysisError, match=message):
        load_fusion_subject(str(tmp_path / "run"))


def test_a_folder_that_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(AnalysisError, match=r"is no run: it has no config.yaml; give a folder that polyres train made"):
        load_fusion_subject(str(tmp_path))


def test_a_run_without_its_config(run: Path) -> None:
    (run / "config.yaml").unlink()
    with pytest.raises(AnalysisError, match=r"is no whole run: it has no config.yaml; restore it"):
        load_fusion_subject(str(run))
    with pytest.raises(AnalysisError, match=r"lies without the config.yaml of its run; give the folder of the run"):
        load_fusion_subject(str(run / "checkpoint.safetensors"))


def test_weights_of_another_run(run: Path) -> None:
    save_separator(small({"n_fft": [512, 1024]}), run / "best.safetensors")
    with pytest.raises(AnalysisError, match=r"best.safetensors is of another model than .*config.yaml; restore them"):
        load_fusion_subject(str(run))


def test_a_bag_has_no_fusion_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fusion_run, "load_model", lambda name: Bag([small(), small()]))
    with pytest.raises(AnalysisError, match=r"htdemucs_ft is a bag of 2 models; give the weight file of one of them"):
        load_fusion_subject("htdemucs_ft")


def test_nothing_there() -> None:
    with pytest.raises(UnknownNameError, match=r"there is no file or folder runs/gone"):
        load_fusion_subject("runs/gone")


def test_the_metrics_may_be_missing_or_cut(run: Path) -> None:
    path = run / "metrics.jsonl"
    path.write_text(path.read_text() + '{"epoch": 4, "fus', encoding="utf-8")
    epochs, notes = read_epochs(path, SMALL)
    assert len(epochs) == 3
    assert notes == ["The last line of metrics.jsonl is cut; it was left out."]
    path.unlink()
    assert read_epochs(path, SMALL) == ([], ["There is no metrics.jsonl: nothing is known about earlier epochs."])


ROW = {"epoch": 1, "fusion": {"output": [[0.5, 0.25, 0.25]] * 2}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"epoch": 1,', r"line 2: not JSON \(.*\); restore the file"),
        ("[1]", r"line 2: no row of an epoch \(it has no 'epoch'\); restore the file"),
        ('{"step": 1}', r"line 2: no row of an epoch"),
        ('{"epoch": 1}', r"line 2: the row has no 'fusion'; was this run made by polyres train for a separator\?"),
        ('{"epoch": 1, "fusion": {"output": "x"}}', r"the weights of 'output' are no table of numbers; restore"),
        ('{"epoch": 1, "fusion": {"output": [[1], [1, 2]]}}', r"the weights of 'output' are no table of numbers"),
        (
            '{"epoch": 1, "fusion": {"output": [[0.5, 0.5]]}}',
            r"'output' are \[1, 2\], but the model has 2 sources and 3 resolutions; the file is of another run",
        ),
    ],
)
def test_broken_metrics(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("\n".join([json.dumps(ROW), line, json.dumps(ROW)]) + "\n", encoding="utf-8")
    with pytest.raises(AnalysisError, match=message):
        read_epochs(path, SMALL)


def test_metrics_that_are_no_text(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(AnalysisError, match=r"cannot read .*metrics.jsonl: .*; restore the file"):
        read_epochs(path, SMALL)


def test_fusions_without_weights_are_noted(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"epoch": 1, "fusion": {}}\n', encoding="utf-8")
    assert read_epochs(path, SMALL)[1] == ["None of the fusions has weights, so there is no line over the epochs."]


def test_a_weight_file_with_odd_metadata_is_no_checkpoint(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    path = tmp_path / "odd.safetensors"
    save_file({"x": torch.zeros(1)}, path, {"polyres": "no json"})
    with pytest.raises(Exception, match=r"its metadata is damaged"):
        load_fusion_subject(str(path))
