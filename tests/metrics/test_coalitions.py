"""Shapley values and knock-outs against definitions and axioms."""

from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from polyres.core.errors import InputError
from polyres.metrics.coalitions import knock_outs, members, num_players, shapley_values


def random_game(players: int, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2**players, 3, generator=generator, dtype=torch.float64)


def by_orders(values: Tensor) -> Tensor:
    """The definition: what every player adds, over all orders of joining."""
    players = num_players(values)
    total, orders = torch.zeros(players, *values.shape[1:], dtype=torch.float64), list(permutations(range(players)))
    for order in orders:
        coalition = 0
        for player in order:
            total[player] += values[coalition | 1 << player] - values[coalition]
            coalition |= 1 << player
    return total / len(orders)


@given(st.integers(0, 4), st.integers(0, 1000))
def test_shapley_values_are_the_mean_over_all_orders(players: int, seed: int) -> None:
    values = random_game(players, seed)
    torch.testing.assert_close(shapley_values(values), by_orders(values))


@given(st.integers(1, 7), st.integers(0, 1000))
def test_they_share_out_the_whole(players: int, seed: int) -> None:
    values = random_game(players, seed)
    torch.testing.assert_close(shapley_values(values).sum(dim=0), values[-1] - values[0])


def test_players_that_are_alike_get_the_same() -> None:
    # The value depends on the number of members alone.
    values = torch.tensor([[float(mask.bit_count()) ** 1.7] for mask in range(16)])
    torch.testing.assert_close(shapley_values(values), values[-1:].double().expand(4, 1) / 4)


def test_a_dummy_gets_nothing_and_an_additive_player_what_it_adds() -> None:
    gains = torch.tensor([3.0, 0.0, -1.5], dtype=torch.float64)
    values = torch.stack([gains[members(mask)].sum() for mask in range(8)])
    torch.testing.assert_close(shapley_values(values), gains)
    torch.testing.assert_close(knock_outs(values), gains)


def test_values_are_linear_in_the_game() -> None:
    a, b = random_game(4, 1), random_game(4, 2)
    torch.testing.assert_close(shapley_values(2 * a - b), 2 * shapley_values(a) - shapley_values(b))


def test_two_players_who_only_work_together() -> None:
    values = torch.tensor([0.0, 0.0, 0.0, 1.0])
    assert shapley_values(values).tolist() == [0.5, 0.5]
    assert knock_outs(values).tolist() == [1.0, 1.0]


def test_knock_outs_read_no_other_coalition() -> None:
    values = torch.full((8,), torch.nan)
    values[0b111], values[0b110], values[0b101], values[0b011] = 5, 4, 3, 7
    assert knock_outs(values).tolist() == [1, 2, -2]


def test_a_game_without_players() -> None:
    assert shapley_values(torch.ones(1, 2)).shape == knock_outs(torch.ones(1, 2)).shape == (0, 2)


def test_members() -> None:
    assert [members(mask) for mask in (0, 1, 6, 8)] == [[], [0], [1, 2], [3]]


@pytest.mark.parametrize("rows", [0, 3, 6])
def test_every_coalition_needs_a_value(rows: int) -> None:
    with pytest.raises(InputError, match=rf"{rows} coalitions are no power of two; every coalition needs one value"):
        shapley_values(torch.zeros(rows, 2))
