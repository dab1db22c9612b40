"""`polyres models`."""

from __future__ import annotations

import json

import pytest

from polyres.cli.main import main
from polyres.models.registry import known_models


def test_a_table_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for model in known_models():
        line = next(line for line in text.splitlines() if line.startswith(f"{model.name} "))
        assert " ".join(model.sources) in line
        assert (f"{model.parameters:,}".replace(",", " ") if model.parameters else "–") in line
        assert line.rstrip().endswith("yes" if model.present else "no")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in rows] == [model.name for model in known_models()]
    assert set(rows[0]) == {"name", "sources", "parameters", "licence", "source", "present"}
