"""Whole analyses: with and without exclusion, by stem, of pairs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from polyres.core.errors import InputError
from polyres.listen.analysis.analyse import analyse
from polyres.listen.analysis.report import write_report
from polyres.listen.design.conditions import PAIR_MARK
from polyres.listen.design.files import Design, Kind
from polyres.metrics.aggregate import holm
from tests.listen.studies import a_study, fixed_ratings, some_ratings


def test_results_come_with_and_without_exclusion_and_by_stem() -> None:
    study = a_study()
    analysis = analyse(study, some_ratings(study, 8, careless=2), resamples=200)
    found = [(block.stem, block.screened, len(block.scores.listeners)) for block in analysis.blocks]
    assert found == [("", False, 10), ("drums", False, 10), ("bass", False, 10)] + [
        (stem, True, 8) for stem in ("", "drums", "bass")
    ]
    assert (analysis.listeners, analysis.simulated, analysis.ratings) == (10, 10, 10 * 6 * 5)
    assert analysis.blocks[0].name == "scores_quality_all"
    assert analysis.blocks[4].name == "scores_quality_drums_screened"


def test_where_all_are_careful_there_is_nothing_to_exclude() -> None:
    study = a_study()
    assert [block.screened for block in analyse(study, some_ratings(study, 6), resamples=200).blocks] == [False] * 3


def test_known_effects_are_found() -> None:
    study = a_study(pages=8)
    block = analyse(study, some_ratings(study, 14, seed=5), resamples=500).blocks[0]
    line = block.pairs[0]
    assert (line.tests.first, line.tests.second, line.verdict) == ("c0", "c1", "better")
    assert line.mixed is not None
    assert line.full is not None
    for low, high in ((line.tests.low, line.tests.high), (line.full.low, line.full.high)):
        assert low < 10.0 < high
    assert line.tests.pooled_t_p < line.t_holm


def test_equal_systems_are_undecided_and_worse_ones_worse() -> None:
    study = a_study(pages=8)
    rows = some_ratings(study, 10)
    equal = [replace(row, value=50.0) if row.condition in ("c0", "c1") else row for row in rows]
    assert analyse(study, equal, resamples=200).blocks[0].pairs[0].verdict == "undecided"
    swapped = {"c0": "c1", "c1": "c0"}
    turned = [replace(row, condition=swapped.get(row.condition, row.condition)) for row in rows]
    assert analyse(study, turned, resamples=200).blocks[0].pairs[0].verdict == "worse"


def test_few_listeners_decide_nothing() -> None:
    study = a_study()
    rows = some_ratings(study, 5)
    sure = [replace(row, value=90.0 if row.condition == "c0" else 10.0) for row in rows]
    assert analyse(study, sure, resamples=200).blocks[0].pairs[0].verdict == "undecided"


def test_p_values_are_corrected_over_all_pairs() -> None:
    study = a_study("acr", pages=6)
    values = study.to_dict()
    for number in range(3):
        values["conditions"][2 + number]["role"] = "system"
    study = type(study).from_dict(values)
    pairs = analyse(study, some_ratings(study, 9), resamples=200).blocks[0].pairs
    assert len(pairs) == 10
    corrected = holm([line.tests.wilcoxon_p for line in pairs])
    assert [line.wilcoxon_holm for line in pairs] == pytest.approx(corrected.tolist())


def test_one_listener_gives_means_and_no_more() -> None:
    study = a_study()
    block = analyse(study, some_ratings(study, 1), resamples=200).blocks[0]
    assert block.mixed is None
    assert block.pairs[0].verdict == "undecided"


EDGES = {
    "additive": lambda listener, page, condition: 40.0 + 3 * listener + 5 * page - 7 * condition,
    "equal": lambda listener, page, condition: 33.0,
    "only conditions differ": lambda listener, page, condition: 90.0 - 20 * condition,
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("kind", ["mushra", "acr"])
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize(("listeners", "pages"), [(6, 4), (2, 1), (1, 4), (1, 1)])
def test_ratings_without_noise_are_analysed(kind: Kind, edge: str, listeners: int, pages: int, tmp_path: Path) -> None:
    steps = [{"name": "quality", "labels": [str(step) for step in range(100)]}]
    study = a_study(kind, pages=pages, training=0).with_values({"attributes": steps})
    names = [page.id for page in study.pages]
    conditions = [condition.id for condition in study.conditions]
    rows = [
        replace(row, value=EDGES[edge](int(row.listener), names.index(row.page), conditions.index(row.condition)))
        for number in range(listeners)
        for row in fixed_ratings(study, str(number), dict.fromkeys(conditions, 0.0), number)
    ]
    analysis = analyse(study, rows, resamples=50)
    line = analysis.blocks[0].pairs[0]
    expected = {"additive": 7.0, "equal": 0.0, "only conditions differ": 20.0}[edge]
    assert line.tests.difference == pytest.approx(expected)
    assert (line.full is None) == (listeners == 1)
    if line.full is not None:
        assert (line.full.low, line.full.high) == pytest.approx((expected, expected))
        assert line.full.p_value == (0.0 if expected else 1.0)
    assert write_report(analysis, tmp_path, figures=False)[0].read_text()


def test_one_system_is_compared_with_everything_else() -> None:
    study = a_study()
    values = study.to_dict()
    values["conditions"][1]["role"] = "interference_anchor"
    study = type(study).from_dict(values)
    block = analyse(study, some_ratings(a_study(), 7), resamples=200).blocks[0]
    assert [line.tests.second for line in block.pairs] == ["c1", "c2", "c3", "c4"]


@pytest.mark.parametrize("kind", ["abx", "ab"])
def test_pairs_are_analysed(kind: str) -> None:
    study = a_study(kind, design=Design(rounds=2))  # type: ignore[arg-type]
    analysis = analyse(study, some_ratings(study, 8))
    assert not analysis.blocks
    assert len(analysis.pairs[0].answers) == len(analysis.pairs[0].holm) == 3
    assert bool(analysis.pairs[0].strengths) == (kind == "ab")


def test_results_are_json_without_nan() -> None:
    study = a_study()
    analysis = analyse(study, some_ratings(study, 1), resamples=200)
    values = json.loads(json.dumps(analysis.to_dict(), allow_nan=False))
    assert values["labels"]["c2"] == "reference"
    assert values["blocks"][0]["pairs"][0]["tests"]["t_p"] is None
    pairs = a_study("ab")
    json.dumps(analyse(pairs, some_ratings(pairs, 3)).to_dict(), allow_nan=False)


def test_ratings_of_nothing_or_of_something_else_are_refused() -> None:
    study = a_study()
    rows = some_ratings(study, 1)
    with pytest.raises(InputError, match="there are no ratings yet; collect some, or try the study out"):
        analyse(study, [])
    with pytest.raises(InputError, match="only training pages have ratings yet"):
        analyse(study, [row for row in rows if row.page == "p0"])
    for change in ({"page": "p77"}, {"condition": "c77"}, {"kind": "acr"}, {"condition": f"c0{PAIR_MARK}c1"}):
        with pytest.raises(InputError, match=r"a rating \(kind .*\) is not of study 'test'"):
            analyse(study, [*rows, replace(rows[-1], **change)])


def test_who_has_not_finished_is_told() -> None:
    study = a_study()
    rows = some_ratings(study, 3)
    analysis = analyse(study, rows[:-1], resamples=200)
    assert (analysis.listeners, analysis.complete) == (3, 2)
