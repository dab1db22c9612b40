from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    pytest.importorskip("museval")
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("gpu")


def table(text: str, head: str) -> list[list[str]]:
    lines = text.split(f"## {head}")[1].split("## ")[0].splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]


def test_a_dry_run_separates_as_demucs_does(gpu: ModuleType, tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path), "--parts", "Parity", "Separation"]) == 0
    text = (tmp_path / "gpu.md").read_text()
    assert next(row[:2] for row in table(text, "Parity")) == ["fp32", "0.0e+00"]
    assert [row[:2] for row in table(text, "Separation")] == [
        ["demucs 4.1.0", "fp32"],
        ["polyres", "fp32"],
        ["polyres", "tf32"],
        ["polyres", "bf16"],
    ]
    assert float(text.split("between the two in fp32: ")[1].split(". ")[0].rstrip(".\n")) < 1e-5


@pytest.mark.slow
def test_a_dry_run_scores_and_trains(gpu: ModuleType, tmp_path: Path) -> None:
    assert gpu.main(["--device", "cpu", "--quick", "--out", str(tmp_path), "--parts", "BSSEval", "Training"]) == 0
    text = (tmp_path / "gpu.md").read_text()
    assert float(text.split("difference to museval: ")[1].split(" dB")[0]) < 1e-9
    assert [row[0] for row in table(text, "Training")] == ["htdemucs_24", "htdemucs_24", "n", "n"]


def test_a_part_that_fails_is_told_and_the_others_go_on(
    gpu: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(scale: object) -> list[str]:
        raise RuntimeError("no kernel")

    monkeypatch.setitem(gpu.PARTS, "Parity", broken)
    monkeypatch.setitem(gpu.PARTS, "Training", lambda scale: ["trained"])
    words = ["--device", "cpu", "--quick", "--out", str(tmp_path), "--parts", "Parity", "Training"]
    assert gpu.main(words) == 1
    text = (tmp_path / "gpu.md").read_text()
    assert "failed: RuntimeError: no kernel" in text
    assert "trained" in text
    assert gpu.main([*words[:-2], "Training", "--limit", "-1"]) == 0


@pytest.mark.parametrize("precision", ["fp32", "tf32", "bf16"])
def test_precision_is_set_and_given_back(gpu: ModuleType, precision: str) -> None:
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    with gpu.matmul(precision, torch.device("cpu")):
        assert torch.backends.cudnn.allow_tf32 == (precision == "tf32")
        assert torch.is_autocast_enabled("cpu") == (precision == "bf16")
    assert (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32) == before
