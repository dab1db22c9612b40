"""The time that a study still takes."""

from __future__ import annotations

import pytest

from polyres.study.run.state import Clock


def test_nothing_is_known_at_first() -> None:
    clock = Clock(1)
    assert clock.left_s([("a", 5.0)], ["b"]) is None
    assert clock.words([("a", 5.0)], ["b"]) == ""
    assert clock.left_s([], []) is None or clock.left_s([], []) == 0


def test_arms_take_as_long_as_before_and_others_the_mean() -> None:
    clock = Clock(1)
    clock.note("a", 10.0)
    clock.note("b", 30.0)
    assert [clock.expected_s(arm) for arm in "abc"] == [10.0, 30.0, 20.0]
    assert clock.left_s([("b", 12.0)], ["a", "c"]) == pytest.approx(18 + 10 + 20)
    assert clock.left_s([("a", 99.0)], []) == 0
    assert clock.words([("b", 12.0)], ["a", "c"]) == "to go 0:00:48"


def test_slots_share_the_work_but_no_run_is_split() -> None:
    clock = Clock(2)
    clock.note("a", 7200.0)
    assert clock.left_s([("a", 0.0)], ["a", "a", "a"]) == pytest.approx(2 * 7200)
    assert clock.left_s([("a", 0.0)], []) == pytest.approx(7200)
    assert clock.words([("a", 0.0), ("a", 0.0)], []) == "to go 2:00:00"
