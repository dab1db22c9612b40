"""Reports: what they say, that they warn, and that they are the same every time."""

from __future__ import annotations

import builtins
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from polyres.core.errors import ConfigError
from polyres.core.tables import Table
from polyres.listen.analysis.analyse import Analysis, analyse
from polyres.listen.analysis.report import (
    T_TEST_CAVEAT,
    Section,
    html_page,
    interval,
    markdown_page,
    probability,
    report_sections,
    short_sections,
    write_report,
)
from polyres.listen.design.files import ListenStudy
from tests.listen.studies import a_study, some_ratings

PNG = b"\x89PNG\r\n\x1a\n"
TABLE = Table("Scores", ("name", "mean"), [("a|b", "1.0"), ("<c>", "2.0")], notes=("Means.",))


@pytest.fixture(scope="module")
def analysis() -> Analysis:
    values = a_study().to_dict()
    for page in values["pages"]:
        page["stem"] = "drums"
    study = ListenStudy.from_dict(values)
    rows = [
        {"model": label, "track": page.track, "source": page.stem, "metric": "sdr", "value": len(label) + number}
        for label in ("good", "fair")
        for number, page in enumerate(study.pages)
    ]
    return analyse(study, some_ratings(study, 7, careless=1), rows, resamples=200)


def test_a_report_is_whole_and_the_same_every_time(analysis: Analysis, tmp_path: Path) -> None:
    first, second = (write_report(analysis, tmp_path / name) for name in ("a", "b"))
    assert [path.name for path in first] == [path.name for path in second]
    assert all(a.read_bytes() == b.read_bytes() for a, b in zip(first, second, strict=True))
    pictures = {path.name for path in first if path.suffix == ".png"}
    expected = {"screening.png", "scores_quality_all.png", "scores_quality_all.differences.png", "metrics_quality.png"}
    assert expected <= pictures
    assert all((tmp_path / "a" / name).read_bytes().startswith(PNG) for name in pictures)
    text = (tmp_path / "a" / "report.md").read_text()
    assert set(re.findall(r"\]\((.*?\.png)\)", text)) == pictures
    assert (tmp_path / "a" / "report.html").read_text().count("data:image/png;base64,") == len(pictures)
    json.loads((tmp_path / "a" / "report.json").read_text())


def test_simulated_listeners_and_caveats_are_told(analysis: Analysis) -> None:
    text = markdown_page("Report", report_sections(analysis))
    assert "SIMULATED: 8 of 8 listeners are simulated" in text
    assert T_TEST_CAVEAT in text
    assert "hidden reference below 90 on" in text
    assert "score ~ condition + (1\\|listener) + (1\\|item)" in text
    assert "c0" not in re.findall(r"\w+", text)  # labels alone


def test_few_listeners_are_told() -> None:
    study = a_study()
    text = markdown_page("Report", report_sections(analyse(study, some_ratings(study, 2), resamples=200)))
    assert "2 listeners are too few to show a difference" in text


def test_people_are_not_called_simulated(tmp_path: Path) -> None:
    study = a_study()
    rows = [type(row).from_dict({**row.to_dict(), "listener": row.listener[-3:]}) for row in some_ratings(study, 7)]
    paths = write_report(analyse(study, rows, resamples=200), tmp_path, figures=False)
    assert "simulated" not in paths[0].read_text().lower()


@pytest.mark.parametrize("kind", ["abx", "ab", "acr"])
def test_every_kind_has_its_report(kind: str, tmp_path: Path) -> None:
    study = a_study(kind)  # type: ignore[arg-type]
    paths = write_report(analyse(study, some_ratings(study, 6), resamples=200), tmp_path)
    text = paths[0].read_text()
    wanted = {"abx": "By listener", "ab": "Bradley–Terry strengths", "acr": "nobody is left out"}[kind]
    assert wanted in text
    assert len(paths) > 3


def test_the_short_version_holds_the_results_over_all_stems(analysis: Analysis) -> None:
    titles = [section.title for section in short_sections(analysis)]
    assert titles == ["quality: after screening", "quality: objective metrics against ears"]


def test_figures_need_matplotlib(analysis: Analysis, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "matplotlib":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"figures need matplotlib; .*add --no-figures"):
        write_report(analysis, tmp_path)
    assert len(write_report(analysis, tmp_path, figures=False)) == 3


def test_html_escapes_what_others_have_written() -> None:
    page = html_page("<t>", [Section("<s>", ("<p>",), (TABLE,), {"x.png": '"<f>'}, True)], {"x.png": b"png"})
    for raw in ("<t>", "<s>", "<p>", "<c>", "<f>"):
        assert raw not in page.replace("<p>Means", "").replace('<p class="warning">', "")
    assert 'src="data:image/png;base64,cG5n"' in page
    assert 'class="warning"' in page


def test_markdown_pages_link_their_figures() -> None:
    page = markdown_page(
        "Title", [Section("", ("Careful.",), warning=True), Section("One", (), (TABLE,), {"x.png": "X"})]
    )
    assert page.startswith("# Title\n\n> **Careful.**\n\n## One\n\n**Scores**")
    assert page.endswith("![X](x.png)\n")


def test_intervals_and_probabilities() -> None:
    assert interval(1.0, 2.0, signed=True) == "+1.0 to +2.0"
    assert interval(math.nan, 2.0) == "–"
    assert [probability(p) for p in (1e-9, 0.00123, 0.0412, 0.5, 1.0, math.nan)] == [
        "<0.0001",
        "0.0012",
        "0.041",
        "0.50",
        "1.00",
        "–",
    ]
