"""`polyres models`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from polyres.cli.main import main
from polyres.codec.registry import known_codecs
from polyres.separation.registry import known_models


def test_a_table_of_all(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models"]) == 0
    text = capsys.readouterr().out
    for model in known_models():
        line = next(line for line in text.splitlines() if line.startswith(f"{model.name} "))
        assert " ".join(model.sources) in line
        assert (f"{model.parameters:,}".replace(",", " ") if model.parameters else "–") in line
        assert line.rstrip().endswith("yes" if model.present else "no")
    for codec in known_codecs():
        line = next(line for line in text.splitlines() if line.startswith(f"{codec.name} "))
        assert codec.summary in line
        assert codec.licence in line
        assert line.rstrip().endswith("yes" if codec.present else "no")


def test_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    separators, codecs = ([row for row in rows if row["kind"] == kind] for kind in ("separator", "codec"))
    assert [row["name"] for row in separators] == [model.name for model in known_models()]
    assert set(separators[0]) == {"kind", "name", "sources", "parameters", "licence", "source", "present"}
    assert [row["name"] for row in codecs] == [codec.name for codec in known_codecs()]
    assert set(codecs[0]) == {"kind", "name", "summary", "parameters", "licence", "source", "present"}


def test_fetching_tells_where_the_files_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "cache" / "htdemucs" / "955717e8-8726e21a.th"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(3 << 20))
    monkeypatch.setenv("POLYRES_CACHE", str(tmp_path / "cache"))
    assert main(["models", "fetch", "htdemucs", "default"]) == 0
    assert capsys.readouterr().out.splitlines() == [f"htdemucs: 3 MiB in {file.parent}", "default: part of polyres"]
    assert main(["models", "fetch", "htdemucs", "polyres_wave", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"htdemucs": [str(file)], "polyres_wave": []}


@pytest.mark.parametrize(
    ("name", "text"),
    [("htdemux", "unknown model 'htdemux'; did you mean 'htdemucs'"), ("mdx", "only the transformer models can be")],
)
def test_what_cannot_be_fetched_is_one_line(capsys: pytest.CaptureFixture[str], name: str, text: str) -> None:
    assert main(["models", "fetch", name]) == 2
    assert text in capsys.readouterr().err
