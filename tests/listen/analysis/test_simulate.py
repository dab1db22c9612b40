"""Simulated listeners: known effects, called simulated, always the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from polyres.core.errors import ConfigError
from polyres.listen.analysis.ratings import SIMULATED_PREFIX, ratings_from
from polyres.listen.analysis.simulate import SIMULATED_NAME, SimulateOptions, simulate, true_scores, write_simulated
from polyres.listen.design.conditions import plan_for
from polyres.listen.design.files import Attribute, Design
from tests.listen.studies import a_study

STILL = {"listener_sd": 0, "item_sd": 0, "listener_condition_sd": 0, "item_condition_sd": 0, "noise_sd": 0}


def test_the_same_listeners_come_again_and_say_that_they_are_simulated(tmp_path: Path) -> None:
    study = a_study()
    ratings = simulate(study, SimulateOptions(listeners=3, careless=1))
    assert ratings == simulate(study, SimulateOptions(listeners=3, careless=1))
    assert ratings != simulate(study, SimulateOptions(listeners=3, careless=1, seed=1))
    assert all(rating.listener.startswith(SIMULATED_PREFIX) for rating in ratings)
    assert {rating.started_at[:4] for rating in ratings} == {"2000"}
    path = write_simulated(ratings, tmp_path)
    assert path.name == SIMULATED_NAME
    assert ratings_from(path) == ratings


def test_without_any_spread_everybody_says_the_truth() -> None:
    study = a_study()
    options = SimulateOptions.from_dict({**STILL, "listeners": 2, "effects": {"good": 71, "quality:fair": 33}})
    values = {(rating.condition, rating.value) for rating in simulate(study, options)}
    assert values == {("c0", 71.0), ("c1", 33.0), ("c2", 100.0), ("c3", 22.0), ("c4", 45.0)}


def test_every_trial_of_every_plan_is_answered_once() -> None:
    study = a_study(design=Design(pages_per_listener=3, repeats=1)).with_values(
        {"attributes": ({"name": "quality"}, {"name": "interference"})}
    )
    ratings = simulate(study, SimulateOptions(listeners=2))
    expected = {
        (trial.page, trial.repeat, name, attribute)
        for trial in plan_for(study, 1)
        for name in trial.stimuli
        for attribute in ("quality", "interference")
    }
    second = [rating for rating in ratings if rating.listener.endswith("002")]
    assert {rating.key[2:] for rating in second} == expected
    assert len(second) == len(expected)


def test_spreads_are_as_asked() -> None:
    study = a_study(pages=40, training=0)
    options = SimulateOptions.from_dict({**STILL, "listeners": 60, "effects": {"good": 50}, "listener_sd": 6})
    table = np.array([rating.value for rating in simulate(study, options) if rating.condition == "c0"])
    by_listener = table.reshape(60, 40)
    assert by_listener.std(axis=1).max() == 0.0
    assert by_listener[:, 0].std() == pytest.approx(6.0, rel=0.25)
    options = SimulateOptions.from_dict({**STILL, "listeners": 2, "effects": {"good": 50}, "item_sd": 6})
    rows = [rating for rating in simulate(study, options) if rating.condition == "c0"]
    by_page = {rating.page: rating.value for rating in rows}
    assert all(by_page[rating.page] == rating.value for rating in rows)
    assert np.std(list(by_page.values())) == pytest.approx(6.0, rel=0.3)


@pytest.mark.parametrize(("kind", "high"), [("acr", 5), ("bs2132", 100)])
def test_values_stay_on_the_scale(kind: str, high: int) -> None:
    study = a_study(kind)  # type: ignore[arg-type]
    values = [rating.value for rating in simulate(study, SimulateOptions(listeners=4, careless=2, noise_sd=60))]
    assert min(values) >= (1 if kind == "acr" else 0)
    assert max(values) <= high
    assert kind != "acr" or all(value == round(value) for value in values)


def test_abx_answers_are_right_as_often_as_the_law_says() -> None:
    study = a_study("abx", pages=10, training=0, design=Design(rounds=4))
    options = SimulateOptions(listeners=20, effects={"good": 70, "fair": 60, "poor": 60})
    rows = simulate(study, options)
    shares = {pair: np.mean([row.value for row in rows if row.condition == pair]) for pair in ("c0+c1", "c1+c5")}
    assert shares["c0+c1"] == pytest.approx(1 - np.exp(-0.5) / 2, abs=0.05)
    assert shares["c1+c5"] == pytest.approx(0.5, abs=0.05)
    assert all(row.answer in row.condition.split("+") for row in rows)


def test_effects_of_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"effect of 'goood', which is no condition; .*did you mean 'good'\?"):
        true_scores(a_study(), Attribute(), {"goood": 50.0})
