from __future__ import annotations

import signal
import threading

import pytest

from polyres.training.progress import StopRequest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_the_handler_comes_back(number):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert stop.number is None
        signal.raise_signal(number)
        assert stop.number == number
    assert signal.getsignal(number) is before


def test_termination_may_be_asked_for_twice_but_a_second_ctrl_c_stops_at_once():
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert stop.number == signal.SIGTERM
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_it_can_be_used_again():
    stop = StopRequest()
    with stop:
        signal.raise_signal(signal.SIGTERM)
    with stop:
        assert stop.number is None


def test_outside_the_main_thread_nothing_is_noted():
    seen = []

    def inside() -> None:
        with StopRequest() as stop:
            seen.append((stop.number, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [(None, before)]
