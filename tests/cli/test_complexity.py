"""`polyres complexity`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyres.cli.main import main
from polyres.separation import variants
from polyres.separation.complexity import measure
from polyres.separation.weights import save_separator
from tests.separation.fusion_report.runs import SMALL, small


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of their own are tested with `measure_apart`."""
    monkeypatch.setattr(measure, "measure_apart", measure.measure)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_separator(small(), tmp_path_factory.mktemp("models") / "small.safetensors"))


def test_columns_for_the_terminal(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", model, "--seconds", "0.5", "--repeats", "0"]) == 0
    said = capsys.readouterr()
    assert "512 1024 2048" in said.out
    assert "branches.1 (n_fft 1024)" in said.out
    assert said.err == f"{model} ...\n"


def test_markdown(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", model, "--seconds", "0.5", "--repeats", "1", "--markdown", "--depth", "2"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("| model | resolutions | parameters |")
    assert "| branches.0.encoder.1 (n_fft 512) |" in text


@pytest.mark.slow
def test_json_of_several(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", model, model, "--seconds", "0.5", "--repeats", "2", "--device", "cpu", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 2
    assert rows[0]["cost"] == rows[1]["cost"]
    assert len(rows[0]["speed"]["latencies_s"]) == 2
    assert rows[0]["macs_per_second"] == 2 * rows[0]["cost"]["macs"]


def test_wrong_names_stop_before_the_first_model(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity", model, "w55"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("error: unknown model 'w55'; did you mean 'w5'?")
    assert main(["complexity", str(Path(model).with_name("gone.safetensors"))]) == 2
    assert "there is no file or folder" in capsys.readouterr().err


@pytest.mark.slow
def test_all_architectures_into_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(variants, "ARCHITECTURES", {"one": SMALL, "two": SMALL.with_values({"n_fft": [512]})})
    out = tmp_path / "deep" / "out"
    words = ["complexity", "all", "--seconds", "0.5", "--repeats", "0", "--device", "cpu"]
    assert main([*words, "--out", str(out), "--markdown"]) == 0
    said = capsys.readouterr()
    assert said.err == "one ...\ntwo ...\n"
    page = (out / "complexity.md").read_text(encoding="utf-8")
    assert page == f"# Complexity\n\n{said.out}"
    assert "**Parts of one**" in page
    rows = json.loads((out / "complexity.json").read_text(encoding="utf-8"))
    assert [(row["model"], row["n_fft"]) for row in rows] == [("one", [[512, 1024, 2048]]), ("two", [[512]])]
    (tmp_path / "file").write_text("")
    assert main([*words, "--out", str(tmp_path / "file" / "out")]) == 2
    assert "error: cannot make the folder" in capsys.readouterr().err


def test_no_model(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["complexity"]) == 2
    assert "error: Missing argument 'MODEL...'" in capsys.readouterr().err
