from __future__ import annotations

from unittest import mock

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from polyres.metrics import bss as engine
from polyres.metrics import toeplitz as bt
from polyres.metrics.track_score import bss_eval


def channels_of(count: int, length: int, seed: int = 0) -> Tensor:
    wave = torch.randn(count, 300, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wave = wave + 0.8 * wave.roll(1, 1)
    return wave / wave.norm(dim=1, keepdim=True)


def lags_of(wave: Tensor, length: int) -> Tensor:
    """Correlations by the plain sum."""
    ahead = F.pad(wave, (0, length))
    return torch.stack([wave @ ahead[:, lag : lag + wave.shape[1]].T for lag in range(length)], dim=-1)


def delayed(wave: Tensor, length: int) -> Tensor:
    """All delays of all channels as rows, delay by delay."""
    return torch.cat([F.pad(wave, (delay, length - delay)) for delay in range(length)])


@settings(max_examples=15)
@given(channels=st.integers(1, 4), length=st.integers(1, 20))
def test_matrix_product_and_factor_agree_with_the_delayed_channels(channels: int, length: int) -> None:
    wave = channels_of(channels, length)
    rows = delayed(wave, length)
    lags = lags_of(wave, length)
    matrix = bt.dense_matrix(lags)
    torch.testing.assert_close(matrix, rows @ rows.T, rtol=0, atol=1e-13)
    vectors = torch.randn(channels * length, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    torch.testing.assert_close(bt.multiply(lags, vectors), matrix @ vectors, rtol=0, atol=1e-12)
    factor = bt.schur_factor(lags)
    assert factor is not None
    torch.testing.assert_close(factor, torch.linalg.cholesky(matrix, upper=True), rtol=0, atol=1e-10)


def test_both_ways_solve_the_equations() -> None:
    wave = channels_of(3, 30)
    lags = lags_of(wave, 30)
    wanted = torch.randn(90, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    products = bt.dense_matrix(lags) @ wanted
    torch.testing.assert_close(bt.solve(lags, products), wanted, rtol=0, atol=1e-9)
    torch.testing.assert_close(bt.solve_dense(lags, products), wanted, rtol=0, atol=1e-9)


def singular_case() -> tuple[Tensor, Tensor, Tensor]:
    wave = channels_of(2, 20)
    wave = torch.cat([wave, wave[:1]])
    target = torch.randn(2, 320, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    rows = delayed(wave, 20)
    return lags_of(wave, 20), rows @ target.T, rows


def test_a_singular_matrix_has_no_quick_factor_but_an_exact_projection() -> None:
    lags, products, rows = singular_case()
    assert bt.schur_factor(lags) is None
    wanted = rows.T @ (torch.linalg.pinv(rows @ rows.T, rcond=1e-10) @ products)
    torch.testing.assert_close(rows.T @ bt.solve(lags, products), wanted, rtol=0, atol=1e-7)


def test_the_last_resort_is_the_pseudo_inverse() -> None:
    lags, products, rows = singular_case()
    failing = lambda matrix, upper: (matrix, torch.ones(()))  # noqa: E731
    with mock.patch.object(torch.linalg, "cholesky_ex", failing):
        solution = bt.solve_dense(lags, products)
    wanted = rows.T @ (torch.linalg.pinv(rows @ rows.T, rcond=1e-10) @ products)
    torch.testing.assert_close(rows.T @ solution, wanted, rtol=0, atol=1e-7)


def test_an_inaccurate_quick_factor_is_not_trusted() -> None:
    lags = lags_of(channels_of(2, 10), 10)
    wanted = torch.ones(20, 1, dtype=torch.float64)
    products = bt.dense_matrix(lags) @ wanted
    with mock.patch.object(bt, "schur_factor", return_value=3 * torch.eye(20, dtype=torch.float64)):
        torch.testing.assert_close(bt.solve(lags, products), wanted, rtol=0, atol=1e-9)


def test_refinement_takes_the_jitter_back() -> None:
    lags, products, rows = singular_case()
    with mock.patch.object(bt, "JITTERS", (1e-6,)):
        solution = bt.solve_dense(lags, products)
    assert (rows @ (rows.T @ solution) - products).abs().max() < 1e-9 * products.abs().max()


@pytest.mark.parametrize("length", [1, 7])
def test_one_channel_of_white_noise_is_solved_by_division(length: int) -> None:
    lags = torch.zeros(1, 1, length, dtype=torch.float64)
    lags[..., 0] = 1
    products = torch.arange(1.0, length + 1, dtype=torch.float64).unsqueeze(1)
    torch.testing.assert_close(bt.solve(lags, products), products)


@settings(max_examples=15)
@given(
    mixing=st.lists(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=2, max_size=2), min_size=1, max_size=3)
)
def test_channels_that_follow_from_others_cost_nothing_and_change_nothing(mixing: list[list[float]]) -> None:
    base = channels_of(2, 8)
    followers = [row for row in torch.tensor(mixing, dtype=torch.float64) @ base if row.norm() > 0.1]
    wave = torch.stack([*base, *followers])
    wave = wave / wave.norm(dim=1, keepdim=True)
    target = channels_of(3, 8, seed=5)
    rows = delayed(wave, 8)
    products = rows @ F.pad(target, (0, 8)).T
    with mock.patch.object(bt, "solve_dense", side_effect=AssertionError("the slow way was taken")):
        solution = bt.solve(lags_of(wave, 8), products)
    expected = delayed(base, 8).T @ torch.linalg.lstsq(delayed(base, 8).T, F.pad(target, (0, 8)).T).solution
    torch.testing.assert_close(rows.T @ solution, expected, rtol=0, atol=1e-12)
    assert bt.independent_channels(wave @ wave.T) == [0, 1]


def test_a_channel_that_others_leave_little_of_is_kept() -> None:
    base = channels_of(2, 4)
    nearly = base[0] + 1e-6 * base[1]
    wave = torch.stack([base[0], nearly / nearly.norm()])
    assert bt.independent_channels(wave @ wave.T) == [0, 1]


def test_windows_are_computed_side_by_side_in_one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = engine._time_energies
    monkeypatch.setattr(engine, "_time_energies", lambda piece: (seen.append(torch.get_num_threads()), real(piece))[1])
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        wave = torch.randn(1, 1, 5000, generator=torch.Generator().manual_seed(0))
        scores = bss_eval(wave, wave + 0.1, 1000, 1000)
        assert seen == [1] * 5
        assert torch.get_num_threads() == 3
        torch.set_num_threads(1)
        alone = bss_eval(wave, wave + 0.1, 1000, 1000)
        assert all(torch.equal(scores[name], alone[name]) for name in scores)  # in order, and to the last bit
    finally:
        torch.set_num_threads(before)


def test_many_channels_are_factorised_as_few_are() -> None:
    lags = lags_of(channels_of(18, 4), 4)
    factor = bt.schur_factor(lags)
    assert factor is not None
    torch.testing.assert_close(factor.T @ factor, bt.dense_matrix(lags), rtol=0, atol=1e-12)
