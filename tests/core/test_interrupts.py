"""Interruptions that are not lost."""

from __future__ import annotations

import signal
import time

import pytest

from polyres.core.interrupts import called_from_c, interruptible

NUMBERS = (signal.SIGINT, signal.SIGTERM)


def dropped_by_c(function: object) -> None:
    """Call a function as C libraries do: what it raises is lost."""
    try:
        function()  # type: ignore[operator]
    except BaseException:
        return


@pytest.mark.parametrize("number", NUMBERS)
def test_a_signal_in_a_callback_comes_after_it(number: signal.Signals) -> None:
    steps = []

    @called_from_c
    def callback() -> None:
        signal.raise_signal(number)
        steps.append("whole")

    def work() -> None:
        with interruptible(*NUMBERS):
            dropped_by_c(callback)
            for _ in range(500):
                time.sleep(0.01)
            steps.append("lost")

    with pytest.raises(KeyboardInterrupt):
        work()
    assert steps == ["whole"]


def test_handlers_are_put_back_and_what_is_ignored_stays_ignored() -> None:
    kept = [signal.getsignal(number) for number in NUMBERS]
    with interruptible(*NUMBERS):
        assert all(signal.getsignal(n) is not old for n, old in zip(NUMBERS, kept, strict=True))
    assert [signal.getsignal(number) for number in NUMBERS] == kept
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible(*NUMBERS):
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
