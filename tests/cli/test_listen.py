"""`polyres listen` from results to report."""

from __future__ import annotations

import builtins
import json
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import yaml

from polyres.cli.main import main
from polyres.listen.analysis.ratings import ratings_from
from polyres.listen.design.files import load_study

RATE_HZ = 8000


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    for folder, noise in (("refs", 0.0), ("one", 0.01), ("two", 0.05)):
        for track in ("a", "b"):
            path = tmp_path / folder / track / "drums.wav"
            path.parent.mkdir(parents=True)
            wave = np.sin(np.arange(4 * RATE_HZ) / 20)[:, None] * 0.2 + noise * generator.normal(size=(4 * RATE_HZ, 2))
            soundfile.write(path, wave, RATE_HZ)
    values = {
        "name": "test",
        "title": "A test",
        "references": "refs",
        "systems": {"one": "one", "two": "two"},
        "stems": ["drums"],
        "anchors": [],
        "excerpts": {"length_s": 2, "sources": ["drums"]},
        "sample_rate_hz": RATE_HZ,
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


@pytest.fixture
def study(recipe: Path) -> Path:
    assert main(["listen", "new", str(recipe), "--out", str(recipe.parent / "study")]) == 0
    return recipe.parent / "study"


def test_from_results_to_report(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    effects = ["--effects", "one=80, two=50", "--set", "noise_sd=3"]
    assert main(["listen", "simulate", str(study), "--listeners", "7", "--careless", "1", *effects]) == 0
    assert "48 SIMULATED ratings" in capsys.readouterr().out
    scores = tmp_path / "scores.jsonl"
    rows = [
        {"model": model, "track": track, "source": "drums", "metric": "sdr", "value": value}
        for track in "ab"
        for model, value in (("one", 9.0), ("two", 3.0))
    ]
    scores.write_text("\n".join(json.dumps(row) for row in rows))
    options = ["--metrics", str(scores), "--resamples", "200"]
    assert main(["listen", "analyse", str(study), *options]) == 0
    shown = capsys.readouterr()
    assert "8 listeners, 8 of them SIMULATED" in shown.out
    assert "| one | two | better |" in shown.out
    assert "| sdr |" in shown.out
    assert "nobody has listened yet; these are the SIMULATED ratings" in shown.err
    assert (study / "report" / "report.html").is_file()
    other = ["--out", str(tmp_path / "other"), "--no-figures", "--json", "--ratings"]
    assert main(["listen", "analyse", str(study), *other, str(study / "simulated_ratings.jsonl")]) == 0
    assert json.loads(capsys.readouterr().out)["simulated_listeners"] == 8
    assert sorted(path.name for path in (tmp_path / "other").iterdir()) == ["report.html", "report.json", "report.md"]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_ratings_are_exported(study: Path, tmp_path: Path, ending: str) -> None:
    main(["listen", "simulate", str(study), "--listeners", "2"])
    path = tmp_path / f"ratings.{ending}"
    assert main(["listen", "export", str(study), "--out", str(path)]) == 0
    assert len(ratings_from(path)) == 12


def test_ratings_outside_of_the_scale_are_refused_with_file_and_row(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["listen", "simulate", str(study), "--listeners", "2"])
    path = tmp_path / "ratings.csv"
    main(["listen", "export", str(study), "--out", str(path)])
    good = path.read_text()
    lines = good.splitlines()
    lines[3] = ",".join([*lines[3].split(",")[:6], "5000", *lines[3].split(",")[7:]])
    path.write_text("\n".join(lines) + "\n")
    for command in (["analyse", "--no-figures"], ["export", "--out", str(tmp_path / "again.json")]):
        capsys.readouterr()
        assert main(["listen", command[0], str(study), *command[1:], "--ratings", str(path)]) == 2
        assert capsys.readouterr().err == f"error: {path}, row 3: value 5000 is out of range; give from 0 to 100\n"
    assert not (tmp_path / "again.json").exists()
    # Of several files, those that can be read are analysed.
    other = tmp_path / "good.csv"
    other.write_text(good)
    options = ["--no-figures", "--json", "--resamples", "100", "--out", str(tmp_path / "report")]
    both = ["--ratings", str(path), "--ratings", str(other)]
    assert main(["listen", "analyse", str(study), *options, *both]) == 2
    shown = capsys.readouterr()
    assert shown.err.splitlines()[0] == f"not read: {path}, row 3: value 5000 is out of range; give from 0 to 100"
    assert json.loads(shown.out)["ratings"] == 12
    assert main(["listen", "analyse", str(study), *options, "--ratings", str(path), "--ratings", "gone.csv"]) == 2
    assert "none of the files of ratings can be used; the lines above say why" in capsys.readouterr().err


def test_new_tells_what_it_made_as_json(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--set", "kind=ab", "--set", "design.rounds=2", "--out", str(recipe.parent / "x"), "--json"]
    assert main(["listen", "new", str(recipe), *arguments]) == 0
    made = json.loads(capsys.readouterr().out)
    assert (made["kind"], made["pages"], made["conditions"]) == ("ab", 2, ["one", "two"])
    assert load_study(recipe.parent / "x").design.rounds == 2
    assert main(["listen", "new", str(recipe), "--out", str(recipe.parent / "y")]) == 0
    assert "mushra, 2 pages of 3 conditions" in capsys.readouterr().out


def test_webmushra_configs_are_recognised(recipe: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = {"type": "mushra", "id": "t", "reference": "refs/a/drums.wav", "stimuli": {"C1": "one/a/drums.wav"}}
    soundfile.write(recipe.parent / "refs/a/drums.wav", soundfile.read(recipe.parent / "one/a/drums.wav")[0], RATE_HZ)
    path = recipe.parent / "web.yaml"
    path.write_text(yaml.safe_dump({"testname": "Web", "pages": [page]}))
    out = ["--out", str(recipe.parent / "web")]
    assert main(["listen", "new", str(path), *out, "--set", "kind=ab"]) == 2
    assert "--set changes recipes, not webMUSHRA configs" in capsys.readouterr().err
    assert main(["listen", "new", str(path), *out]) == 0
    assert "1 pages of 2 conditions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["new", "gone.yaml"], "gone.yaml: no such config file"),
        (["analyse", "gone"], "gone holds no study (study.json); make one with polyres listen new"),
        (["simulate", "gone"], "gone holds no study"),
        (["power", "--fewest", "9", "--most", "8"], "listeners from 9 to 8 are none"),
    ],
)
def test_errors_are_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", *arguments]) == 2
    shown = capsys.readouterr().err
    assert message in shown
    assert shown.count("\n") == 1


@pytest.mark.parametrize("effects", ["one", "one=loud", "=5"])
def test_effects_that_cannot_be_read_are_refused(study: Path, effects: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["listen", "simulate", str(study), "--effects", effects]) == 2
    assert f"effect {effects!r} cannot be read; write label=score" in capsys.readouterr().err


def test_without_any_ratings_the_way_out_is_told(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "analyse", str(study)]) == 2
    assert "polyres listen serve" in capsys.readouterr().err


def test_power_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["listen", "power", "--difference", "6", "--items", "6"]) == 0
    assert "| 10 |" in capsys.readouterr().out
    assert main(["listen", "power", "--json"]) == 0
    assert [line["listeners"] for line in json.loads(capsys.readouterr().out)] == list(range(10, 21))
    assert main(["listen", "power", "--abx-share", "0.7", "--items", "16", "--fewest", "2", "--most", "3"]) == 0
    assert "| 2 | 32 |" in capsys.readouterr().out
    assert main(["listen", "power", "--abx-share", "0.7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["power"] > 0.9


def test_serve_hands_its_options_over(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    seen: list[Any] = []

    def run(folder: Path, options: Any, announce: Any) -> None:
        seen.extend([folder, options])
        announce("http://here/", "http://here/admin")

    monkeypatch.setitem(sys.modules, "polyres.listen.server.app", types.SimpleNamespace(run=run))
    arguments = ["--port", "9000", "--root-path", "/listen", "--invited-only", "--allow-origin", "https://a.example"]
    assert main(["listen", "serve", str(study), *arguments]) == 0
    assert "listeners: http://here/" in capsys.readouterr().out
    assert seen[0] == study
    options = seen[1]
    assert (options.port, options.root_path, options.open_enrolment) == (9000, "/listen", False)
    assert options.allowed_origins == ("https://a.example",)


def test_serve_names_a_missing_library(study: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name == "polyres.listen.server.app":
            raise ModuleNotFoundError("No module named 'fastapi'", name="fastapi")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert main(["listen", "serve", str(study)]) == 2
    assert "the server needs fastapi; install it with pip install 'polyres[listen]'" in capsys.readouterr().err
