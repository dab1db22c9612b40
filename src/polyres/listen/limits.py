"""Limits that keep one visitor from using up the server: how often, how long and how much."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from polyres.core.errors import ConfigError

MAX_BODY_BYTES = 128 * 1024
MAX_RATINGS_PER_REQUEST = 64
MAX_EVENTS_PER_REQUEST = 200
MAX_TEXT_CHARACTERS = 2000
MAX_EVENTS_PER_LISTENER = 50_000


@dataclass(frozen=True)
class Rate:
    """So many calls at once, and so many per second in the long run."""

    burst: float
    per_second: float


class RateLimiter:
    """Token buckets by key, in bounded memory.

    Args:
        rate: what one key may do.
        max_keys: keys remembered; beyond, the one seen longest ago is forgotten.
        clock: seconds, never going back.

    Raises:
        ConfigError: if the rate lets nobody in.
    """

    def __init__(self, rate: Rate, max_keys: int = 20_000, clock: Callable[[], float] = time.monotonic) -> None:
        if rate.burst < 1 or rate.per_second <= 0:
            raise ConfigError(
                f"a rate of {rate.burst} calls, {rate.per_second} per second, lets nobody in; give >= 1, > 0"
            )
        self._rate = rate
        self._max_keys = max_keys
        self._clock = clock
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def wait_s(self, key: str) -> float:
        """Take one call of a key.

        Args:
            key: who calls.

        Returns:
            0 if the call may go on; otherwise the seconds after which it may be tried again.
        """
        with self._lock:
            now = self._clock()
            tokens, then = self._buckets.pop(key, (self._rate.burst, now))
            tokens = min(self._rate.burst, tokens + (now - then) * self._rate.per_second)
            allowed = tokens >= 1
            self._buckets[key] = (tokens - 1 if allowed else tokens, now)
            if len(self._buckets) > self._max_keys:
                self._buckets.popitem(last=False)
            return 0.0 if allowed else (1 - tokens) / self._rate.per_second

    def __len__(self) -> int:
        """Return the number of keys remembered."""
        return len(self._buckets)
