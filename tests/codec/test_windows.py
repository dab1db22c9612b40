from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from polyres.codec.windows import Tensors, WindowJoin, WindowPlan
from polyres.core.errors import ConfigError, InputError


def smooth(tensors: Tensors) -> Tensors:
    """A filter that reaches 3 steps to each side, with 2 items per step going out."""
    kernel = torch.tensor([1.0, 2, 3, 4, 3, 2, 1]).reshape(1, 1, -1) / 16
    return {"y": F.conv1d(tensors["x"], kernel, padding=3).repeat_interleave(2, dim=2)}


def streamed(plan: WindowPlan, x: torch.Tensor, cuts: list[int], runner=smooth) -> torch.Tensor:  # type: ignore[no-untyped-def]
    join = WindowJoin(runner, plan)
    edges = [0, *sorted({cut % plan.total for cut in cuts} - {0}), plan.total]
    rate = x.shape[2] // plan.total
    parts = []
    for low, high in pairwise(edges):
        parts += join.push({"x": x[:, :, low * rate : high * rate]}, high - low)
    return torch.cat([part["y"] for part in parts], dim=2)


@settings(max_examples=60, deadline=None)
@given(
    total=st.integers(1, 120),
    context=st.integers(3, 9),
    core=st.integers(1, 20),
    cuts=st.lists(st.integers(0, 1000), max_size=6),
    data=st.data(),
)
def test_windows_with_enough_context_leave_no_trace(
    total: int, context: int, core: int, cuts: list[int], data: st.DataObject
) -> None:
    fade = data.draw(st.integers(0, context - 3))
    plan = WindowPlan(total, core + 2 * context, context, fade)
    x = torch.randn(2, 1, total, generator=torch.Generator().manual_seed(total))
    assert torch.allclose(streamed(plan, x, cuts), smooth({"x": x})["y"], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(total=st.integers(1, 300), context=st.integers(0, 9), core=st.integers(1, 30))
def test_plans_cover_everything_with_context(total: int, context: int, core: int) -> None:
    plan = WindowPlan(total, core + 2 * context, context)
    assert plan.start(0) == 0
    assert plan.stop(plan.count - 1) == total
    low = 0
    for number in range(plan.count):
        high = plan.handover(number)
        assert plan.stop(number) - plan.start(number) == min(total, plan.window)
        assert low == 0 or low - plan.start(number) >= context
        assert high == total or plan.stop(number) - high >= context
        assert high > low or high == total
        low = high


def test_the_fade_goes_from_one_window_to_the_next_by_equal_steps() -> None:
    number = iter(range(10))
    plan = WindowPlan(12, 8, 2, 2)
    runner = lambda tensors: {"y": torch.full((1, 1, tensors["x"].shape[2]), float(next(number)))}  # noqa: E731
    y = streamed(plan, torch.zeros(1, 1, 12), [], runner)[0, 0]
    assert plan.count == 2
    assert y.tolist() == [0, 0, 0, 0, 0.125, 0.375, 0.625, 0.875, 1, 1, 1, 1]


def test_memory_is_that_of_a_window() -> None:
    plan = WindowPlan(5000, 20, 4, 2)
    join = WindowJoin(smooth, plan)
    most = 0
    for _ in range(1000):
        join.push({"x": torch.zeros(1, 1, 5)}, 5)
        most = max(most, join._held["x"].shape[2])
    assert most <= 20 + 5


def test_impossible_plans_are_refused() -> None:
    with pytest.raises(InputError, match=r"0 samples"):
        WindowPlan(0, 8, 2)
    with pytest.raises(ConfigError, match=r"window of 4 steps has no room between two contexts of 2"):
        WindowPlan(10, 4, 2)
    with pytest.raises(ConfigError, match=r"fade of 3 steps is not possible; choose 0 to the context 2"):
        WindowPlan(10, 8, 2, 3)


def test_what_has_no_whole_number_of_items_is_refused() -> None:
    join = WindowJoin(smooth, WindowPlan(4, 4, 0))
    with pytest.raises(InputError, match=r"'x' has 7 items in 4 steps; a multiple is needed"):
        join.push({"x": torch.zeros(1, 1, 7)}, 4)
