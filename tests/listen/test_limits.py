"""Token buckets against counting by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from polyres.core.errors import ConfigError
from polyres.listen.limits import Rate, RateLimiter


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_and_then_the_rate() -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(burst=3, per_second=0.5), clock=clock)
    assert [limiter.wait_s("a") for _ in range(4)] == [0, 0, 0, 2]
    assert limiter.wait_s("b") == 0
    clock.now = 2
    assert [limiter.wait_s("a") for _ in range(2)] == [0, 2]
    clock.now = 1000
    assert [limiter.wait_s("a") for _ in range(4)] == [0, 0, 0, 2]


@given(st.lists(st.floats(0, 3), min_size=1, max_size=80), st.integers(1, 5), st.floats(0.1, 5))
def test_never_more_than_burst_and_rate_allow(pauses: list[float], burst: int, per_second: float) -> None:
    clock = Clock()
    limiter = RateLimiter(Rate(burst, per_second), clock=clock)
    passed = 0
    for pause in pauses:
        clock.now += pause
        passed += limiter.wait_s("a") == 0
    assert passed <= burst + clock.now * per_second + 1e-6


def test_memory_is_bounded() -> None:
    limiter = RateLimiter(Rate(1, 1), max_keys=10, clock=Clock())
    for number in range(1000):
        limiter.wait_s(str(number))
    assert len(limiter) == 10
    assert limiter.wait_s("999") > 0


def test_a_rate_that_lets_nobody_in_is_refused() -> None:
    for rate in (Rate(0.5, 1), Rate(1, 0)):
        with pytest.raises(ConfigError, match="lets nobody in"):
            RateLimiter(rate)
