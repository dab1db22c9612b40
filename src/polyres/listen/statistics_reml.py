"""Linear mixed models by restricted maximum likelihood, with degrees of freedom for small samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_TINY = 1e-10
_STEP = 1e-3
_TwoValues = Callable[[Array], tuple[float, float]]


@dataclass(frozen=True)
class RemlFit:
    """A fitted model y = X b + sum of Z_k u_k + e.

    Attributes:
        coefficients: b `[p]`.
        covariance: of b `[p, p]`.
        variances: of every random effect, then of the residual.
        deviance: −2 log restricted likelihood.
        products: what the data come down to.
    """

    coefficients: Array
    covariance: Array
    variances: tuple[float, ...]
    deviance: float
    products: _Products

    def error_of(self, weights: Array) -> tuple[float, float]:
        """Return the standard error of a weighted sum of coefficients, and its degrees of freedom.

        Args:
            weights: `[p]`.

        Source: Satterthwaite 1946; Kuznetsova et al. 2017 for mixed models.
        """
        variance = float(weights @ self.covariance @ weights)
        if variance <= 0.0:
            return 0.0, math.inf
        free = [number for number, value in enumerate(self.variances) if value > _TINY * max(self.variances)]

        def at(logs: Array) -> tuple[float, float]:
            variances = np.array(self.variances)
            variances[free] = np.exp(logs)
            solution = self.products.solve(variances[:-1] / variances[-1])
            error = float(weights @ solution.unscaled @ weights) * variances[-1]
            return error, self.products.deviance(solution, variances[-1])

        logs = np.log(np.array(self.variances)[free])
        gradient, hessian = _derivatives(at, logs)
        try:
            spread = float(gradient @ np.linalg.solve(hessian / 2.0, gradient))
        except np.linalg.LinAlgError:
            spread = 0.0
        # Between one and what the data allow; a flat likelihood says no more than the residual.
        limit = float(self.products.count - len(self.coefficients))
        degrees = 2.0 * variance**2 / spread if spread > 0.0 else limit
        return math.sqrt(variance), min(max(degrees, 1.0), limit)


@dataclass(frozen=True)
class _Solution:
    """What a ratio of variances leads to."""

    coefficients: Array
    unscaled: Array
    residual: float
    log_determinants: float


class _Products:
    """Cross products of a model, from which every trial of variances is solved without the rows."""

    def __init__(self, values: Array, design: Array, effects: Sequence[Array]) -> None:
        self.count, self.fixed = design.shape
        joined = np.concatenate(effects, axis=1) if effects else np.zeros((self.count, 0))
        self._sizes = [matrix.shape[1] for matrix in effects]
        self._zz, self._zx, self._zy = joined.T @ joined, joined.T @ design, joined.T @ values
        self._xx, self._xy, self._yy = design.T @ design, design.T @ values, float(values @ values)

    def solve(self, ratios: Array) -> _Solution:
        """Estimate the coefficients for variances of the effects in units of the residual's `[K]`."""
        from scipy.linalg import solve_triangular

        scale = np.repeat(np.sqrt(ratios), self._sizes)
        inner = scale[:, None] * self._zz * scale[None] + np.eye(len(scale))
        root = np.linalg.cholesky(inner)
        right_sides = scale[:, None] * np.concatenate([self._zx, self._zy[:, None]], axis=1)
        solved = solve_triangular(root, right_sides, lower=True, check_finite=False)
        by_x, by_y = solved[:, :-1], solved[:, -1]
        outer = self._xx - by_x.T @ by_x
        unscaled: Array = np.asarray(np.linalg.inv(outer), np.float64)
        right = self._xy - by_x.T @ by_y
        coefficients: Array = np.asarray(unscaled @ right, np.float64)
        residual = max(self._yy - float(by_y @ by_y) - float(right @ coefficients), _TINY * max(self._yy, _TINY))
        logs = 2.0 * float(np.log(np.diag(root)).sum()) + float(np.linalg.slogdet(outer)[1])
        return _Solution(coefficients, unscaled, residual, logs)

    def deviance(self, solution: _Solution, residual_variance: float) -> float:
        """Return −2 log restricted likelihood at a residual variance, without its constant."""
        free = self.count - self.fixed
        return solution.log_determinants + free * math.log(residual_variance) + solution.residual / residual_variance


def fit_reml(values: Array, design: Array, effects: Sequence[Array]) -> RemlFit:
    """Fit a mixed model with independent random effects.

    Args:
        values: `[n]`.
        design: X `[n, p]` of full rank, n > p.
        effects: Z_k `[n, q_k]`, an indicator matrix each.

    Source: Bates et al. 2015, Fitting Linear Mixed-Effects Models Using lme4, equations 32–42.
    """
    from scipy.optimize import minimize

    products = _Products(values - values.mean(), design, effects)
    free = products.count - products.fixed

    def profiled(roots: Array) -> float:
        solution = products.solve(roots**2)
        return products.deviance(solution, solution.residual / free)

    roots = np.zeros(0)
    if effects:
        bounds = [(0.0, None)] * len(effects)
        starts = [np.full(len(effects), start) for start in (0.3, 1.0)]
        found = [minimize(profiled, start, method="L-BFGS-B", bounds=bounds) for start in starts]
        roots = np.asarray(min(found, key=lambda outcome: float(outcome.fun)).x)
    solution = products.solve(roots**2)
    residual = solution.residual / free
    # The mean was taken off for the sake of precision; indicator columns that sum to one get it back.
    shift = np.linalg.lstsq(design, np.full(len(values), values.mean()), rcond=None)[0]
    return RemlFit(
        solution.coefficients + shift,
        solution.unscaled * residual,
        (*(float(value) for value in roots**2 * residual), residual),
        products.deviance(solution, residual) + free * math.log(2 * math.pi),
        products,
    )


def _derivatives(function: _TwoValues, point: Array) -> tuple[Array, Array]:
    """Central differences: gradient of the first value, second derivatives of the second."""
    size = len(point)
    steps = np.eye(size) * _STEP
    gradient = np.array([(function(point + s)[0] - function(point - s)[0]) / (2 * _STEP) for s in steps])
    hessian = np.zeros((size, size))
    for i in range(size):
        for j in range(i, size):
            corners = [function(point + a * steps[i] + b * steps[j])[1] for a in (1, -1) for b in (1, -1)]
            hessian[i, j] = hessian[j, i] = (corners[0] - corners[1] - corners[2] + corners[3]) / (4 * _STEP**2)
    return gradient, hessian
