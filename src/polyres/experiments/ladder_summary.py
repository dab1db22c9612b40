"""Medians over files, and which rung of the ladder loses most."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from polyres.experiments.ladder import LadderRow
from polyres.experiments.ladder_rungs import Rung
from polyres.metrics.aggregate import bootstrap_interval
from polyres.metrics.reconstruction_spectra import RECONSTRUCTION_BANDS_HZ

RESAMPLES, SEED = 2000, 0
GOLDEN_NAT = 0.3
"""Distance of log-mel spectra up to which what a chain made itself counts as passing unharmed: about 2.6 dB."""


@dataclass(frozen=True)
class Middle:
    """A median over files.

    Attributes:
        value: the median; NaN where there is none.
        low: lower end of its 95 % interval; NaN with one file.
        high: upper end.
        files: that have a number.
        invalid: why there is no number; None where there may be.
    """

    value: float
    low: float
    high: float
    files: int
    invalid: str | None = None


@dataclass(frozen=True)
class Verdict:
    """The rung that loses most in a band.

    Attributes:
        band: of `RECONSTRUCTION_BANDS_HZ`.
        rung: its name.
        after: the rung below it.
        loss: how much log_mel_l1 of the band grows from the rung below, nat.
    """

    band: str
    rung: str
    after: str
    loss: Middle


def middle(values: Sequence[float], invalid: str | None = None) -> Middle:
    """Take the median of what is a number, with its bootstrap interval."""
    known = [value for value in values if not math.isnan(value)]
    if not known:
        return Middle(math.nan, math.nan, math.nan, 0, invalid)
    low, high = bootstrap_interval(known, "median", seed=SEED, resamples=RESAMPLES)
    return Middle(median(known), low, high, len(known), invalid)


def summarise(rows: Sequence[LadderRow]) -> dict[tuple[str, str], Middle]:
    """Take medians over files.

    Args:
        rows: of any number of files; those of a golden file are left out.

    Returns:
        By label of the take and metric, in the order they first appear.
    """
    groups: dict[tuple[str, str], list[LadderRow]] = {}
    for row in rows:
        if not row.golden:
            groups.setdefault((row.label, row.metric), []).append(row)
    return {key: middle([row.value for row in group], group[0].invalid) for key, group in groups.items()}


def judge(rows: Sequence[LadderRow], rungs: Sequence[Rung]) -> dict[str, Verdict]:
    """Find the rung of the chain that loses most, for every band; controls and remedies do not take part.

    Args:
        rows: of any number of files; those of a golden file are left out.
        rungs: those that were to be run.

    Returns:
        By band; bands in which no two rungs can be compared are left out.
    """
    errors: dict[tuple[str, str], dict[str, float]] = {}
    for row in rows:
        if not row.golden and not row.take:
            errors.setdefault((row.rung, row.metric), {})[row.file] = row.value
    found = {}
    for band in RECONSTRUCTION_BANDS_HZ:
        metric = f"log_mel_l1_{band}"
        steps = []
        for rung in rungs:
            below = next((name for name in rung.after if (name, metric) in errors), None)
            if not rung.counts or below is None or (rung.name, metric) not in errors:
                continue
            mine, under = errors[rung.name, metric], errors[below, metric]
            loss = middle([mine[file] - under[file] for file in mine if file in under])
            if not math.isnan(loss.value):
                steps.append(Verdict(band, rung.name, below, loss))
        if steps:
            found[band] = max(steps, key=lambda step: step.loss.value)
    return found


def golden_verdict(rows: Sequence[LadderRow]) -> tuple[float, bool] | None:
    """Say whether what the chain made itself passes it unharmed.

    Args:
        rows: of all files.

    Returns:
        log_mel_l1 of R6 on the golden file, and whether it is at most GOLDEN_NAT; None without such a file.
    """
    for row in rows:
        if row.golden and row.rung == "R6" and row.metric == "log_mel_l1":
            return row.value, row.value <= GOLDEN_NAT
    return None
