"""Sums over the steps of an epoch, and the figures they make in its row."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any


def add(sums: dict[str, float], name: str, value: float) -> None:
    """Add to a sum of the epoch.

    Args:
        sums: of the epoch, by name.
        name: of the sum; names that start with `loss/`, `seconds/` or `grad_norms/` are shown together.
        value: what is added.
    """
    sums[name] = sums.get(name, 0.0) + value


@contextmanager
def timed(sums: dict[str, float], name: str) -> Iterator[None]:
    """Add the seconds that a block takes to the sum `seconds/NAME`."""
    start = time.perf_counter()
    yield
    add(sums, f"seconds/{name}", time.perf_counter() - start)


def under(sums: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Return the sums whose names start with `PREFIX/`, without it."""
    return {name.removeprefix(f"{prefix}/"): value for name, value in sums.items() if name.startswith(f"{prefix}/")}


def epoch_figures(sums: Mapping[str, float]) -> dict[str, Any]:
    """Turn the sums of an epoch into means.

    Args:
        sums: of the epoch, by name.

    Returns:
        `loss` by term; `grad_norm` before clipping; `grad_norms` by part of the model, over the steps at which they
        were taken; `ms_per_step` by part of a step; `waiting_share`, the share of the time of the steps, 0 to 1, that
        went by waiting for data; `skipped_steps`, where gradient scaling skipped any.
    """
    steps = max(sums.get("steps", 0.0), 1.0)
    unskipped = max(steps - sums.get("skipped", 0.0), 1.0)
    seconds = under(sums, "seconds")
    seconds["loss"] = seconds.pop("forward_and_loss", 0.0) - seconds.get("forward", 0.0)
    whole_s = sum(seconds.values())
    norm_steps = max(sums.get("grad_norms_steps", 0.0), 1.0)
    figures: dict[str, Any] = {
        "loss": {name: value / steps for name, value in under(sums, "loss").items()},
        "grad_norm": sums.get("grad_norm", 0.0) / unskipped,
        "grad_norms": {name: value / norm_steps for name, value in under(sums, "grad_norms").items()},
        "ms_per_step": {name: round(1000 * value / steps, 2) for name, value in seconds.items()},
        "waiting_share": round(seconds.get("data", 0.0) / whole_s, 4) if whole_s > 0 else 0.0,
    }
    if sums.get("skipped"):
        figures["skipped_steps"] = int(sums["skipped"])
    return figures
