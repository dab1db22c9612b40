"""Entropy, divergence and spread in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from polyres.separation.fusion_report.report import (
    disagreement_bits,
    divergence_bits,
    entropy_bits,
    entropy_percent,
    spread,
    summarise,
)


@pytest.mark.parametrize("count", [2, 3, 5, 7])
def test_uniform_weights_are_even(count: int) -> None:
    weights = torch.full((4, count), 1 / count)
    assert entropy_percent(weights).tolist() == pytest.approx([100.0] * 4)
    assert divergence_bits(weights).tolist() == pytest.approx([0.0] * 4, abs=1e-6)
    assert entropy_bits(weights).tolist() == pytest.approx([math.log2(count)] * 4)
    assert spread(weights).tolist() == [0.0] * 4


def test_one_resolution_alone() -> None:
    weights = torch.eye(4)
    assert entropy_percent(weights).tolist() == [0.0] * 4
    assert divergence_bits(weights).tolist() == [2.0] * 4
    assert spread(weights).tolist() == [1.0] * 4
    # Every source has one of its own: knowing the source tells all 2 bits.
    assert float(disagreement_bits(weights)) == pytest.approx(2.0)


def test_a_known_entropy() -> None:
    assert float(entropy_bits(torch.tensor([0.5, 0.25, 0.25]))) == pytest.approx(1.5)
    assert float(entropy_percent(torch.tensor([0.5, 0.5, 0.0, 0.0]))) == pytest.approx(50.0)


def test_shared_weights_do_not_disagree() -> None:
    weights = torch.tensor([0.7, 0.2, 0.1]).expand(4, 3)
    assert float(disagreement_bits(weights)) == pytest.approx(0.0, abs=1e-12)


def test_no_weights_at_all_have_no_entropy() -> None:
    assert math.isnan(float(entropy_bits(torch.zeros(3))))


@given(st.lists(st.floats(0.0, 10.0), min_size=2, max_size=7).filter(lambda row: sum(row) > 1e-3))
def test_bounds_and_invariance(row: list[float]) -> None:
    weights = torch.tensor(row, dtype=torch.float64)
    percent, bits = float(entropy_percent(weights)), float(divergence_bits(weights))
    assert -1e-9 <= percent <= 100 + 1e-9
    assert bits == pytest.approx(math.log2(len(row)) * (1 - percent / 100), abs=1e-9)
    assert float(entropy_percent(weights.flip(0) * 3)) == pytest.approx(percent)


def test_a_summary_holds_plain_numbers() -> None:
    summary = summarise(torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
    assert summary.weights == [[0.5, 0.5], [1.0, 0.0]]
    assert summary.entropy_percent == [100.0, 0.0]
    assert summary.spread == [0.0, 1.0]
    assert summary.divergence_bits == [0.0, 1.0]
    assert summary.disagreement_bits == pytest.approx(-0.75 * math.log2(0.75) + 0.5 - 0.5)
