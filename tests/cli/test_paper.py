"""`polyres paper`."""

from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import soundfile

from polyres.cli.main import main
from tests.report.test_tables import rows_of
from tests.study.studies import RATE_HZ, SOURCES, Made, MadeArm, track_name, write_made

THREE = {"n_fft": [1024, 2048, 4096]}


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("paper")
    for number in range(6):
        style, _, name = track_name(number).partition("/")
        folder = root / "tracks" / style / name
        folder.mkdir(parents=True)
        rng = np.random.default_rng(number)
        for place, source in enumerate(SOURCES):
            wave = 0.01 * rng.standard_normal((RATE_HZ, 2))
            wave[4000:, :] += 0.3 * np.sin(0.05 * (place + 1) * np.arange(RATE_HZ - 4000))[:, None]
            soundfile.write(folder / f"{source}.wav", wave, RATE_HZ, subtype="FLOAT")
    roots = {style: str(root / "tracks" / style) for style in ("calm", "loud")}
    arms = [MadeArm("one", weights=True), MadeArm("three_", THREE, gain=1.0, weights=True)]
    return write_made(root / "study", Made(arms, tracks=6, roots=roots))


@pytest.fixture(scope="module")
def paper(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "paper"
    assert main(["paper", str(study), "--out", str(out), "--device", "cpu"]) == 0
    return out


class _Balance(HTMLParser):
    """Collects the tags that are not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.opened: list[str] = []
        self.images: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs)["src"] or "")
        elif tag != "meta":
            self.opened.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.opened.pop() == tag


def test_a_paper(paper: Path) -> None:
    out = paper
    figures = {path.stem for path in (out / "figures").iterdir()}
    expected = {"figure1_architecture", "figure2_weights", "figure3_spectrograms", "source_spectrum", "cost_quality"}
    assert figures == expected
    for name in figures:
        assert (out / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (out / "figures" / f"{name}.pdf").read_bytes().startswith(b"%PDF")
    tables = {path.name for path in (out / "tables").iterdir()}
    names = ("table1", "table2", "table3", "table4", "differences", "all_metrics", "styles")
    assert tables == {f"{name}.{kind}" for name in names for kind in ("md", "tex")}
    for name in names:
        rows = rows_of((out / "tables" / f"{name}.tex").read_text(encoding="utf-8"))
        assert len({len(row) for row in rows}) == 1
    page = _Balance()
    page.feed((out / "index.html").read_text(encoding="utf-8"))
    assert page.opened == []
    assert {Path(image).stem for image in page.images} == figures
    for text in ((out / "index.md").read_text(encoding="utf-8"),):
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert (out / target).exists(), target


@pytest.mark.slow  # figures alone are compared in test_paper_figures.py
def test_the_same_files_every_time(study: Path, paper: Path, tmp_path: Path) -> None:
    assert main(["paper", str(study), "--out", str(tmp_path), "--device", "cpu"]) == 0
    files = sorted(path.relative_to(paper) for path in paper.rglob("*") if path.is_file())
    assert len(files) == 2 * 7 + 2 * 5 + 4
    for path in files:
        assert (paper / path).read_bytes() == (tmp_path / path).read_bytes(), path


def test_json_without_figures_and_matplotlib(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    out = str(tmp_path / "paper")
    assert main(["paper", str(study), "--out", out]) == 2
    assert "figures need matplotlib; install it with pip install 'polyres[figures]'" in capsys.readouterr().err
    assert not (tmp_path / "paper").exists()
    assert main(["paper", str(study), "--out", out, "--no-figures", "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    assert "claims.json" in values["files"]
    assert not [name for name in values["files"] if name.startswith("figures")]
    verdicts = {one["key"]: one["verdict"] for one in values["claims"]}
    assert verdicts["multi_beats_single"] == "holds"
    assert verdicts["listeners_prefer_multi"] == "needs data or people we lack"
    assert verdicts["unet_fails"] == "not run"


@pytest.mark.slow
def test_the_committed_page_is_made_from_what_is_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).resolve().parents[2] / "docs" / "results")
    text = Path("README.md").read_text(encoding="utf-8")
    words = next(line for line in text.splitlines() if line.startswith("polyres paper main_cpu")).split()[1:-1]
    assert main([*words, str(tmp_path)]) == 0
    made = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len(made) == 18
    for path in made:
        assert (tmp_path / path).read_bytes() == (Path("main_cpu/paper") / path).read_bytes(), path


@pytest.mark.slow
def test_tracks_that_are_elsewhere(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    moved = write_made(tmp_path / "moved", Made([MadeArm("three", THREE, weights=True)], tracks=6))
    out = ["--out", str(tmp_path / "paper"), "--device", "cpu"]
    assert main(["paper", str(moved), *out]) == 0
    assert "note: No spectrograms and spectra of made: there is no folder nowhere" in capsys.readouterr().err
    options = ["--data", str(study.parent / "tracks"), "--track", "loud/song 3"]
    assert main(["paper", str(moved), *out, *options]) == 0
    assert "Figure 3. Drums at an attack: loud/song 3." in (tmp_path / "paper" / "index.md").read_text(encoding="utf-8")
    assert main(["paper", str(moved), *out, "--data", str(study.parent / "tracks"), "--track", "song 9"]) == 2
    assert "there is no track 'song 9'; there are: calm/song 0," in capsys.readouterr().err
    assert main(["paper", str(moved), *out, "--data", str(moved / "runs")]) == 2
    assert "none of the tracks of made is there; name their folder with --data" in capsys.readouterr().err


@pytest.mark.slow
def test_two_studies_and_the_arm_that_is_drawn(study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_made(tmp_path / "other", Made([MadeArm("base"), MadeArm("new", THREE, gain=-1)], name="other"))
    common = ["paper", str(study), str(other), "--out", str(tmp_path / "paper"), "--no-audio"]
    assert main([*common, "--arm", "other:new"]) == 0
    said = capsys.readouterr()
    assert re.search(r"fails\n      Several resolutions score higher than one", said.out)
    assert "note: No figure 4 of made: its runs have no metrics." in said.err
    assert {"cost_quality_made.png", "cost_quality_other.png"} <= {
        p.name for p in (tmp_path / "paper/figures").iterdir()
    }
    assert main([*common, "--no-figures", "--arm", "old"]) == 2
    assert "there is no arm 'old'; there are: made:one, made:three_, other:base, other:new" in capsys.readouterr().err
    claims = json.loads((tmp_path / "paper" / "claims.json").read_text(encoding="utf-8"))["claims"]
    evidence = next(one for one in claims if one["key"] == "multi_beats_single")
    assert evidence["verdict"] == "fails"
    assert [row["verdict"] for row in evidence["evidence"]] == ["holds", "fails"]


def test_what_is_no_study(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["paper", str(tmp_path), "--out", str(tmp_path / "out"), "--no-figures"]) == 2
    assert "holds no study (study.json is missing)" in capsys.readouterr().err
    made = write_made(tmp_path / "made", Made([MadeArm("one")]))
    (tmp_path / "file").write_text("")
    assert main(["paper", str(made), "--out", str(tmp_path / "file"), "--no-figures"]) == 2
    assert "cannot make the folder" in capsys.readouterr().err
