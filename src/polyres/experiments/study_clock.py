"""How long a study still takes, from what its runs have taken so far."""

from __future__ import annotations

from collections.abc import Sequence


class Clock:
    """Reckons the time that is left: a run takes as long as others of its arm did, else as the mean of all."""

    def __init__(self, slots: int) -> None:
        """Start with nothing known.

        Args:
            slots: how many runs are under way at a time.
        """
        self._slots = slots
        self._seconds: dict[str, list[float]] = {}

    def note(self, arm: str, seconds: float) -> None:
        """Take in how long a run took."""
        self._seconds.setdefault(arm, []).append(seconds)

    def expected_s(self, arm: str) -> float | None:
        """Return how long a run of an arm takes; None while nothing is known."""
        taken = self._seconds.get(arm) or [value for values in self._seconds.values() for value in values]
        return sum(taken) / len(taken) if taken else None

    def left_s(self, running: Sequence[tuple[str, float]], waiting: Sequence[str]) -> float | None:
        """Return the seconds until all is done.

        Args:
            running: arm and seconds so far of every run that is under way.
            waiting: arms of the runs that are not.

        Returns:
            None while nothing is known.
        """
        started = [(self.expected_s(arm), so_far) for arm, so_far in running]
        rest = [max(expected - so_far, 0.0) for expected, so_far in started if expected is not None]
        whole = [expected for expected in map(self.expected_s, waiting) if expected is not None]
        if len(rest) < len(running) or len(whole) < len(waiting):
            return None
        # No run is split, so the longest of those under way is the least it takes.
        return max([(sum(rest) + sum(whole)) / max(self._slots, 1), *rest])

    def words(self, running: Sequence[tuple[str, float]], waiting: Sequence[str]) -> str:
        """Word the time that is left; nothing while it is unknown."""
        left = self.left_s(running, waiting)
        if left is None:
            return ""
        minutes, seconds = divmod(round(left), 60)
        return f"to go {minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
