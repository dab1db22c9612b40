"""Mixed models of scores, and agreement between listeners."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from polyres.core.errors import InputError
from polyres.listen.analysis.reml import RemlFit, fit_reml
from polyres.listen.analysis.statistics import Array, Scores

_ROUNDING = 1e-12


@dataclass(frozen=True)
class Contrast:
    """A difference of two conditions as a mixed model estimates it."""

    first: str
    second: str
    difference: float  # first − second
    low: float  # lower end of the 95 % interval
    high: float  # upper end
    p_value: float  # two-sided t-test, uncorrected
    degrees: float  # of freedom (Satterthwaite)


@dataclass(frozen=True)
class MixedModel:
    """A fitted mixed model."""

    formula: str  # in the notation of lme4
    means: Mapping[str, float]  # condition -> estimated mean score
    sds: Mapping[str, float]  # name of a random effect -> its standard deviation; "residual" last
    fit: RemlFit  # what it rests on

    def contrast(self, first: str, second: str) -> Contrast:
        """Return the difference of two conditions."""
        from scipy import stats

        names = list(self.means)
        unknown = next((name for name in (first, second) if name not in names), None)
        if unknown is not None:
            raise InputError(f"condition {unknown!r} is not in the model; it has {', '.join(names)}")
        weights = np.zeros(len(names))
        weights[names.index(first)] += 1.0
        weights[names.index(second)] -= 1.0
        difference = float(weights @ self.fit.coefficients)
        if abs(difference) < _ROUNDING * max(map(abs, self.means.values())):
            difference = 0.0
        error, degrees = self.fit.error_of(weights)
        if error == 0.0:
            return Contrast(first, second, difference, difference, difference, float(difference == 0), degrees)
        half = float(stats.t.ppf(0.975, degrees)) * error
        p_value = float(2 * stats.t.sf(abs(difference) / error, degrees))
        return Contrast(first, second, difference, difference - half, difference + half, p_value, degrees)


def mixed_model(scores: Scores, interactions: bool = False) -> MixedModel:
    """Fit score ~ condition + (1|listener) + (1|item) by restricted maximum likelihood.

    Source: Laird and Ware 1982; Barr et al. 2013 for the interactions.
    """
    if len(scores.listeners) < 2 or len(scores.conditions) < 2:
        raise InputError("a mixed model needs two listeners and two conditions at least")
    listener, item, condition = np.nonzero(np.isfinite(scores.values))
    without = [name for number, name in enumerate(scores.conditions) if number not in condition]
    if without:
        raise InputError(f"condition {without[0]!r} has no ratings; leave it out or collect some")
    if len(listener) <= len(scores.conditions):
        raise InputError(
            f"{len(listener)} ratings are too few for a mixed model of {len(scores.conditions)} conditions; "
            "more ratings than conditions are needed"
        )
    groups = {"listener": listener, "item": item}
    if interactions:
        groups["listener:condition"] = listener * len(scores.conditions) + condition
        groups["item:condition"] = item * len(scores.conditions) + condition
    parts = _indicators(groups, len(listener), len(scores.items))
    design = (condition[:, None] == np.arange(len(scores.conditions))[None]).astype(float)
    fit = fit_reml(scores.values[listener, item, condition], design, [matrix for _, matrix in parts])
    names = [*(name for name, _ in parts), "residual"]
    return MixedModel(
        "score ~ condition" + "".join(f" + (1|{name})" for name, _ in parts),
        dict(zip(scores.conditions, fit.coefficients.tolist(), strict=True)),
        {name: math.sqrt(variance) for name, variance in zip(names, fit.variances, strict=True)},
        fit,
    )


def _indicators(groups: Mapping[str, NDArray[Any]], ratings: int, items: int) -> Sequence[tuple[str, Array]]:
    """Return an indicator matrix for every random effect that the data can tell apart."""
    parts = []
    for name, labels in groups.items():
        levels = np.unique(labels)
        # One item alone is the intercept; a level per rating is the residual.
        if 1 < len(levels) < ratings and not (name == "item:condition" and items < 2):
            parts.append((name, (labels[:, None] == levels[None]).astype(float)))
    return parts


@dataclass(frozen=True)
class Agreement:
    """Intraclass correlations of listeners."""

    single: float  # ICC(2,1): how far one listener's scores agree with another's, level included
    average: float  # ICC(2,k): the same for the mean of all listeners
    listeners: int  # k
    targets: int  # sounds that all of them rated


def agreement(scores: Scores) -> Agreement:
    """Return how well listeners agree, from the sounds that all of them rated.

    Source: Shrout and Fleiss 1979, Intraclass Correlations: Uses in Assessing Rater Reliability.
    """
    flat = scores.values.reshape(len(scores.listeners), -1)
    table = flat[:, np.isfinite(flat).all(axis=0)].T
    targets, raters = table.shape
    if targets < 2 or raters < 2:
        return Agreement(math.nan, math.nan, raters, targets)
    grand = table.mean()
    between = raters * float(((table.mean(axis=1) - grand) ** 2).sum()) / (targets - 1)
    judges = targets * float(((table.mean(axis=0) - grand) ** 2).sum()) / (raters - 1)
    residual = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0, keepdims=True) + grand
    error = float((residual**2).sum()) / ((targets - 1) * (raters - 1))
    single_of = between + (raters - 1) * error + raters * (judges - error) / targets
    average_of = between + (judges - error) / targets
    single = (between - error) / single_of if single_of else math.nan
    average = (between - error) / average_of if average_of else math.nan
    return Agreement(single, average, raters, targets)
