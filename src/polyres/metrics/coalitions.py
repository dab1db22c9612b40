"""Compute exact Shapley values and knock-outs from the values of all coalitions.

A coalition of R players is the number whose bit r says whether player r is in it: 0 is the empty one, 2^R − 1 the full.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from polyres.core.errors import InputError


def members(coalition: int) -> list[int]:
    """Return the players of a coalition, lowest first."""
    return [player for player in range(coalition.bit_length()) if coalition >> player & 1]


def num_players(values: Tensor) -> int:
    """Return the number of players R of a table of values `[2^R, ...]`."""
    rows = values.shape[0]
    if rows < 1 or rows & (rows - 1):
        raise InputError(f"{rows} coalitions are no power of two; every coalition needs one value")
    return rows.bit_length() - 1


def shapley_values(values: Tensor) -> Tensor:
    """Exact Shapley values: what a player adds, averaged over all orders in which the players may join.

    `values`: value of every coalition `[2^R, ...]`. Returns `[R, ...]`, float64, in the unit of the values; they sum to
    `values[-1] - values[0]`. Raises InputError when a coalition has no value.

    Source: Shapley 1953, "A value for n-person games", equation 12.
    """
    players = num_players(values)
    values = values.double()
    result = values.new_zeros(players, *values.shape[1:])
    for coalition in range(2**players):
        size = coalition.bit_count()
        for player in range(players):
            if not coalition >> player & 1:
                orders = math.factorial(size) * math.factorial(players - size - 1) / math.factorial(players)
                result[player] += orders * (values[coalition | 1 << player] - values[coalition])
    return result


def knock_outs(values: Tensor) -> Tensor:
    """What the full coalition loses without each player.

    `values`: value of every coalition `[2^R, ...]`; only the full one and those without one player are read. Returns
    `[R, ...]`, float64; positive where the player helps. Raises InputError when a coalition has no value.
    """
    full = 2 ** num_players(values) - 1
    rows = [values[full].double() - values[full ^ 1 << player].double() for player in range(full.bit_length())]
    return torch.stack(rows) if rows else values.new_zeros(0, *values.shape[1:]).double()
