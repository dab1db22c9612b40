"""Post-screening of BS.1534: the limits, and what does not count."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from polyres.listen.analysis.ratings import Rating
from polyres.listen.analysis.screening import excluded, screen
from polyres.listen.design.files import Attribute, Design
from tests.listen.studies import a_study, fixed_ratings, some_ratings

GOOD = {"c0": 70.0, "c1": 60.0, "c2": 100.0, "c3": 20.0, "c4": 45.0}


def with_values(rows: list[Rating], condition: str, value: float, pages: int) -> list[Rating]:
    """Give a condition another score on so many pages."""
    chosen = list(dict.fromkeys(row.page for row in rows if row.page != "p0"))[:pages]
    return [replace(row, value=value) if row.condition == condition and row.page in chosen else row for row in rows]


@pytest.mark.parametrize(("pages", "out"), [(0, False), (3, False), (4, True), (20, True)])
def test_the_reference_may_be_missed_on_fifteen_percent_of_the_items(pages: int, out: bool) -> None:
    study = a_study(pages=20)  # 15 % are three
    line = screen(study, with_values(fixed_ratings(study, "anna", GOOD), "c2", 89.9, pages))[0]
    assert (line.reference_low, line.trials) == (pages, 20)
    assert bool(line.excluded_by) == out
    assert line.excluded_by in ("", f"hidden reference below 90 on {pages} of 20")


def test_ninety_itself_is_not_below_ninety() -> None:
    study = a_study(pages=20)
    assert not screen(study, with_values(fixed_ratings(study, "anna", GOOD), "c2", 90.0, 20))[0].excluded_by


@pytest.mark.parametrize(("pages", "out"), [(3, False), (4, True)])
def test_the_mid_anchor_may_be_praised_on_fifteen_percent_of_the_items(pages: int, out: bool) -> None:
    study = a_study(pages=20)
    rows = [row for number in range(8) for row in fixed_ratings(study, f"l{number}", GOOD, number)]
    rows += with_values(fixed_ratings(study, "anna", GOOD), "c4", 91.0, pages)
    lines = {line.listener: line for line in screen(study, rows)}
    assert bool(lines["anna"].excluded_by) == out
    assert not any(line.excluded_by for who, line in lines.items() if who != "anna")
    assert excluded(list(lines.values()), "quality") == ({"anna"} if out else set())


def test_an_anchor_that_more_than_a_quarter_praise_says_nothing() -> None:
    study = a_study(pages=20)
    rows = []
    for number in range(8):
        mine = fixed_ratings(study, f"l{number}", GOOD, number)
        rows += with_values(mine, "c4", 91.0, 20 if number < 3 else 0)  # 3 of 8 are more than a quarter
    lines = screen(study, rows)
    assert not any(line.excluded_by for line in lines)
    assert {line.anchor_trials for line in lines} == {0}


def test_the_low_anchor_and_other_anchors_are_not_part_of_the_rule() -> None:
    study = a_study(pages=20)
    rows = [row for number in range(8) for row in fixed_ratings(study, f"l{number}", GOOD, number)]
    rows += fixed_ratings(study, "anna", {**GOOD, "c3": 95.0})
    assert not excluded(screen(study, rows), "quality")
    unanchored = study.with_values({"attributes": (Attribute(anchors=()).to_dict(),)})
    rows += fixed_ratings(study, "bert", {**GOOD, "c4": 95.0})
    assert excluded(screen(study, rows), "quality") == {"bert"}
    assert not excluded(screen(unanchored, rows), "quality")


def test_training_does_not_count_and_repeats_do() -> None:
    study = a_study(pages=10, design=Design(repeats=10))
    rows = fixed_ratings(study, "anna", GOOD)
    rows = [replace(row, value=0.0) if row.page == "p0" else row for row in rows]
    line = screen(study, rows)[0]
    assert (line.trials, line.reference_low, line.excluded_by) == (20, 0, "")


def test_order_and_steadiness_are_told() -> None:
    study = a_study(pages=4, design=Design(repeats=4))
    rows = fixed_ratings(study, "anna", GOOD)
    rows = [replace(row, value=row.value + 4.0 * row.repeat) for row in rows]
    line = screen(study, rows)[0]
    assert (line.inversions, line.repeat_difference) == (0.0, 4.0)
    turned = screen(study, fixed_ratings(study, "anna", {**GOOD, "c3": 50.0}))[0]
    assert turned.inversions == 1.0
    assert math.isnan(screen(a_study(), fixed_ratings(a_study(), "anna", GOOD))[0].repeat_difference)


def test_studies_without_a_hidden_reference_leave_nobody_out() -> None:
    study = a_study("bs2132")
    assert not excluded(screen(study, fixed_ratings(study, "anna", dict.fromkeys(GOOD, 0.0))), "quality")


def test_careless_simulated_listeners_are_found_and_careful_ones_kept() -> None:
    study = a_study(pages=10)
    assert excluded(screen(study, some_ratings(study, 10, careless=3)), "quality") == {
        f"simulated-careless-{number:03d}" for number in (11, 12, 13)
    }
