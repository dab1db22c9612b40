"""Filtering by blocks, against PyTorch's grouped convolution and by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from polyres.core.errors import InputError
from polyres.dsp.filters import filter_and_sum


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def by_convolution(x: Tensor, kernel: Tensor) -> Tensor:
    return F.conv1d(x.flatten(1, 2), kernel, padding=kernel.shape[-1] // 2, groups=kernel.shape[0])


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    groups=st.integers(1, 4),
    rows=st.integers(1, 3),
    length=st.integers(1, 700),
    half=st.integers(0, 150),
)
def test_equals_a_grouped_convolution(batch: int, groups: int, rows: int, length: int, half: int) -> None:
    x, kernel = noise(batch, groups, rows, length), noise(groups, rows, 2 * half + 1, seed=1)
    assert torch.allclose(filter_and_sum(x, kernel), by_convolution(x, kernel), atol=1e-10)


def test_gradients_equal_those_of_a_grouped_convolution() -> None:
    x, kernel = noise(2, 3, 2, 500).requires_grad_(), noise(3, 2, 129, seed=1).requires_grad_()
    weights = noise(2, 3, 500, seed=2)
    found = torch.autograd.grad((filter_and_sum(x, kernel) * weights).sum(), (x, kernel))
    expected = torch.autograd.grad((by_convolution(x, kernel) * weights).sum(), (x, kernel))
    assert all(torch.allclose(a, b, atol=1e-10) for a, b in zip(found, expected, strict=True))


def test_a_delayed_impulse_moves_the_signal() -> None:
    x = noise(1, 1, 1, 300)
    kernel = torch.zeros(1, 1, 5, dtype=torch.float64)
    kernel[..., 4] = 2.0  # looks two samples ahead
    y = filter_and_sum(x, kernel)
    assert torch.equal(y[..., :-2], 2.0 * x[0, :, :, 2:])
    assert torch.equal(y[..., -2:], torch.zeros(1, 1, 2, dtype=torch.float64))


@pytest.mark.parametrize(
    ("x", "kernel"),
    [((1, 2, 1, 9), (2, 1, 4)), ((1, 2, 1, 9), (3, 1, 5)), ((1, 2, 9), (2, 1, 5)), ((1, 2, 1, 9), (2, 5))],
)
def test_shapes_that_do_not_fit_are_refused(x: tuple[int, ...], kernel: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match=r"cannot filter \[1, 2.*odd K"):
        filter_and_sum(torch.zeros(x), torch.zeros(kernel))
