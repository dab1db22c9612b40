from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from polyres.core.errors import TrainingError
from polyres.training.ema import Ema


def set_weights(model: nn.Module, value: float) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(value)


@given(decay=st.floats(0.01, 0.999), values=st.lists(st.floats(-5, 5), min_size=1, max_size=12))
def test_average_equals_the_weighted_mean_of_all_steps(decay: float, values: list[float]):
    model = nn.Linear(2, 1)
    ema = Ema(model, decay)
    for value in values:
        set_weights(model, value)
        ema.update()
    shares = [decay ** (len(values) - 1 - i) for i in range(len(values))]
    expected = sum(s * v for s, v in zip(shares, values, strict=True)) / sum(shares)
    for average in ema.state().values():
        torch.testing.assert_close(average, torch.full_like(average, expected), atol=1e-4, rtol=1e-4)


def test_first_step_counts_fully_whatever_the_start():
    model = nn.Linear(2, 1)
    ema = Ema(model, 0.9999)
    set_weights(model, 7.0)
    ema.update()
    assert ema.state()["weight"].tolist() == [[7.0, 7.0]]


def test_applied_puts_the_averages_in_and_the_same_bits_back():
    model = nn.Linear(3, 2)
    ema = Ema(model, 0.5)
    set_weights(model, 1.0)
    ema.update()
    set_weights(model, 0.1)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    def fail_inside() -> None:
        with ema.applied():
            assert model.weight.unique().tolist() == [1.0]
            raise KeyError

    with pytest.raises(KeyError):
        fail_inside()
    assert all(before[name].equal(tensor) for name, tensor in model.state_dict().items())
    assert ema.state()["weight"].unique().tolist() == [1.0]


def test_state_round_trip_goes_on_as_if_never_stopped():
    model = nn.Linear(2, 1)
    ema = Ema(model, 0.8)
    for value in (1.0, 2.0):
        set_weights(model, value)
        ema.update()
    other = Ema(model, 0.8)
    other.load({name: tensor.clone() for name, tensor in ema.state().items()}, 2)
    set_weights(model, 5.0)
    ema.update()
    other.update()
    assert all(tensor.equal(other.state()[name]) for name, tensor in ema.state().items())


def test_foreign_state_is_refused():
    with pytest.raises(TrainingError, match=r"saved ema_0.8 does not fit the model \(first difference: bias\)"):
        Ema(nn.Linear(2, 1), 0.8).load({"weight": torch.zeros(1, 2)}, 1)


def test_shapes_of_another_model_are_refused():
    model = nn.Linear(2, 1)
    saved = {"weight": torch.zeros(1, 1), "bias": torch.zeros(1)}
    with pytest.raises(
        TrainingError, match=r"ema_0.8 does not fit the model \(weight has the shape \(1, 1\) there and"
    ):
        Ema(model, 0.8).load(saved, 1)


def test_names_tell_averages_by_step_and_by_epoch_apart():
    model = nn.Linear(2, 1)
    assert Ema(model, 0.9).name == "ema_0.9"
    assert Ema(model, 0.9, "epoch").name == "ema_epoch_0.9"


def test_length_counts_steps():
    model = nn.Linear(2, 1)
    assert Ema(model, 0.9).length_steps(50) == pytest.approx(10)
    assert Ema(model, 0.9, "epoch").length_steps(50) == pytest.approx(500)


def test_distance_is_relative_to_the_weights():
    model = nn.Linear(3, 1)
    ema = Ema(model, 0.5)
    set_weights(model, 2.0)
    ema.update()
    assert ema.distance() == 0
    set_weights(model, 1.0)
    assert ema.distance() == pytest.approx(1.0)  # 2 against 1
    ema.update()
    assert ema.distance() == pytest.approx((0.5 * 2 + 1) / 1.5 - 1)
    set_weights(model, 0.0)
    assert ema.distance() == 0
