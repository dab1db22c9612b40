"""Linear mixed models by restricted maximum likelihood, with degrees of freedom for small samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
_TINY = 1e-10
_ROUNDING = 1e-14
_STEP = 1e-3
_ROOT_LIMIT = 1e4
_TwoValues = Callable[[Array], tuple[float, float]]


class _Likelihood(Protocol):
    """Restricted likelihood of the data as a function of the variances."""

    @property
    def free(self) -> int:
        """Number of values less that of coefficients."""
        ...

    def at(self, variances: Array) -> tuple[Array, float]:
        """Return the covariance of the coefficients and −2 log restricted likelihood, at variances as in `RemlFit`."""
        ...


@dataclass(frozen=True)
class RemlFit:
    """A fitted model y = X b + sum of Z_k u_k + e."""

    coefficients: Array  # b `[p]`
    covariance: Array  # of b `[p, p]`
    # of every random effect, then of the residual; that is 0 where the effects explain every value
    variances: tuple[float, ...]
    deviance: float  # −2 log restricted likelihood; −inf where the effects explain every value
    likelihood: _Likelihood  # as a function of the variances

    def error_of(self, weights: Array) -> tuple[float, float]:
        """Return the standard error of a weighted sum of coefficients, and its degrees of freedom. `weights`: `[p]`.

        Source: Satterthwaite 1946; Kuznetsova et al. 2017 for mixed models.
        """
        variance = float(weights @ self.covariance @ weights)
        if variance <= _ROUNDING * sum(self.variances):
            return 0.0, math.inf
        free = [number for number, value in enumerate(self.variances) if value > _TINY * max(self.variances)]

        def at(logs: Array) -> tuple[float, float]:
            variances = np.array(self.variances)
            variances[free] = np.exp(logs)
            covariance, deviance = self.likelihood.at(variances)
            return float(weights @ covariance @ weights), deviance

        logs = np.log(np.array(self.variances)[free])
        gradient, hessian = _derivatives(at, logs)
        try:
            spread = float(gradient @ np.linalg.solve(hessian / 2.0, gradient))
        except np.linalg.LinAlgError:
            spread = 0.0
        # Between one and what the data allow; a flat likelihood says no more than the residual.
        limit = float(self.likelihood.free)
        degrees = 2.0 * variance**2 / spread if spread > 0.0 else limit
        return math.sqrt(variance), min(max(degrees, 1.0), limit)


@dataclass(frozen=True)
class _Solution:
    """The estimates for one ratio of variances."""

    coefficients: Array
    unscaled: Array
    residual: float
    log_determinants: float


class _Products:
    """Cross products of a model, from which every trial of variances is solved without the rows."""

    def __init__(self, values: Array, design: Array, effects: Sequence[Array]) -> None:
        self.free = design.shape[0] - design.shape[1]
        joined = _beside(effects, len(values))
        self._sizes = [matrix.shape[1] for matrix in effects]
        # As many rows as columns hold all that the rows say, and sums of squares need no differences of large ones.
        columns = np.concatenate([joined, design, values[:, None]], axis=1)
        rows: Array = np.asarray(np.linalg.qr(columns, mode="r"), np.float64)
        self._z, self._x, self._y = rows[:, : joined.shape[1]], rows[:, joined.shape[1] : -1], rows[:, -1]
        self._zz, self._zx, self._zy = self._z.T @ self._z, self._z.T @ self._x, self._z.T @ self._y
        self._xx, self._xy = self._x.T @ self._x, self._x.T @ self._y

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
        levels = solve_triangular(root, by_y - by_x @ coefficients, lower=True, trans="T", check_finite=False)
        rest = self._y - self._x @ coefficients - self._z @ (scale * levels)
        residual = max(float(rest @ rest + levels @ levels), float(np.finfo(np.float64).tiny))
        logs = 2.0 * float(np.log(np.diag(root)).sum()) + float(np.linalg.slogdet(outer)[1])
        return _Solution(coefficients, unscaled, residual, logs)

    def deviance(self, solution: _Solution, residual_variance: float) -> float:
        """Return −2 log restricted likelihood at a residual variance, without its constant."""
        scaled = self.free * math.log(residual_variance) + solution.residual / residual_variance
        return solution.log_determinants + scaled

    def at(self, variances: Array) -> tuple[Array, float]:
        solution = self.solve(variances[:-1] / variances[-1])
        return solution.unscaled * variances[-1], self.deviance(solution, float(variances[-1]))


class _Exact:
    """A model whose effects explain every value: no residual is left, and the likelihood has no upper bound.

    Outside the span of the effects the values follow from the coefficients alone, which fixes some combinations of them
    without error. What remains is a likelihood of the variances inside the span.
    """

    def __init__(self, values: Array, design: Array, effects: Sequence[Array], used: Sequence[int]) -> None:
        from scipy.linalg import orth

        joined = _beside([effects[number] for number in used], len(values))
        basis = orth(joined) if joined.size else np.zeros((len(values), 0))
        outside = design - basis @ (basis.T @ design)
        left, sizes, right = np.linalg.svd(outside, full_matrices=False)
        fixed = sizes > math.sqrt(_TINY) * np.linalg.norm(design)
        self._known = right[fixed].T @ (left[:, fixed].T @ values / sizes[fixed])
        self._unknown = right[~fixed].T
        self._values, self._design = basis.T @ (values - design @ self._known), basis.T @ design @ self._unknown
        self._effects, self._used = [basis.T @ effects[number] for number in used], list(used)
        self.free = self._design.shape[0] - self._design.shape[1]

    def at(self, variances: Array) -> tuple[Array, float]:
        return self._solved(variances)[1:]

    def coefficients(self, variances: Array) -> Array:
        """Estimate the coefficients `[p]` at variances `[K + 1]`, of which the last does not count."""
        return self._solved(variances)[0]

    def _solved(self, variances: Array) -> tuple[Array, Array, float]:
        spread = np.zeros((len(self._values),) * 2)
        for number, effect in zip(self._used, self._effects, strict=True):
            spread += variances[number] * effect @ effect.T
        root = np.linalg.cholesky(spread)
        by_x, by_y = np.linalg.solve(root, self._design), np.linalg.solve(root, self._values)
        outer = by_x.T @ by_x
        inverse = np.linalg.inv(outer)
        inner = inverse @ by_x.T @ by_y
        rest = by_y - by_x @ inner
        logs = 2.0 * float(np.log(np.diag(root)).sum()) + float(np.linalg.slogdet(outer)[1])
        covariance = self._unknown @ inverse @ self._unknown.T
        return self._known + self._unknown @ inner, covariance, logs + float(rest @ rest)


def fit_reml(values: Array, design: Array, effects: Sequence[Array]) -> RemlFit:
    """Fit a mixed model with independent random effects.

    Source: Bates et al. 2015, Fitting Linear Mixed-Effects Models Using lme4, equations 32–42.
    """
    # The mean is taken off for the sake of precision; indicator columns that sum to one get it back.
    centred = values - values.mean()
    shift = np.linalg.lstsq(design, np.full(len(values), values.mean()), rcond=None)[0]
    allowed = _TINY * float(centred @ centred) + len(values) * (_ROUNDING * float(np.abs(values).max())) ** 2
    used = _explaining(centred, design, effects, allowed)
    fit = _fit(centred, design, effects) if used is None else _fit_exact(centred, design, effects, used)
    return replace(fit, coefficients=fit.coefficients + shift)


def _beside(matrices: Sequence[Array], rows: int) -> Array:
    return np.concatenate([np.zeros((rows, 0)), *matrices], axis=1)


def _explaining(values: Array, design: Array, effects: Sequence[Array], allowed: float) -> tuple[int, ...] | None:
    """Return the effects that explain every value with the fewest dimensions; None where more than allowed is left."""
    numbers = range(len(effects))
    if _left_over(values, _beside([design, *effects], len(values)))[0] > allowed:
        return None
    found = []
    for used in (used for size in range(len(effects) + 1) for used in combinations(numbers, size)):
        left, rank = _left_over(values, _beside([design, *(effects[number] for number in used)], len(values)))
        if left <= allowed and rank < len(values):
            # The likelihood grows fastest with the fewest dimensions; effects within the same span share them.
            found.append((rank, -len(used), used))
    return min(found)[2] if found else None


def _left_over(values: Array, columns: Array) -> tuple[float, int]:
    """Sum of squares that least squares leave, and the rank of the columns."""
    solution, _, rank, _ = np.linalg.lstsq(columns, values, rcond=None)
    rest = values - columns @ solution
    return float(rest @ rest), int(rank)


def _group_variances(values: Array, design: Array, effects: Sequence[Array]) -> Array:
    """Variance of the mean residual of each level, a rough estimate of the variance of every effect `[K]`."""
    rest = values - design @ np.linalg.lstsq(design, values, rcond=None)[0]
    return np.array([float(np.var(matrix.T @ rest / matrix.sum(axis=0), ddof=1)) for matrix in effects])


def _fit_exact(values: Array, design: Array, effects: Sequence[Array], used: Sequence[int]) -> RemlFit:
    from scipy.optimize import minimize

    likelihood = _Exact(values, design, effects, used)
    variances = np.zeros(len(effects) + 1)
    if used:
        rough = np.log(_group_variances(values, design, [effects[number] for number in used]))
        rough = np.maximum(rough, rough.max() - 5.0)

        def deviance(logs: Array) -> float:
            trial = variances.copy()
            trial[list(used)] = np.exp(logs)
            return likelihood.at(trial)[1]

        found = minimize(deviance, rough, method="L-BFGS-B", bounds=[(value - 15.0, value + 15.0) for value in rough])
        variances[list(used)] = np.exp(found.x)
    coefficients = likelihood.coefficients(variances)
    covariance = likelihood.at(variances)[0]
    return RemlFit(coefficients, covariance, tuple(variances.tolist()), -math.inf, likelihood)


def _fit(values: Array, design: Array, effects: Sequence[Array]) -> RemlFit:
    from scipy.optimize import minimize

    products = _Products(values, design, effects)

    def profiled(roots: Array) -> float:
        solution = products.solve(roots**2)
        return products.deviance(solution, solution.residual / products.free)

    roots = np.zeros(0)
    if effects:
        scale = _rough_roots(values, design, effects)
        bounds = [(0.0, _ROOT_LIMIT / one) for one in scale]
        starts = [np.full(len(effects), start) for start in (0.3, 1.0)]
        found = [minimize(lambda x: profiled(x * scale), start, method="L-BFGS-B", bounds=bounds) for start in starts]
        roots = np.asarray(min(found, key=lambda outcome: float(outcome.fun)).x) * scale
    solution = products.solve(roots**2)
    residual = solution.residual / products.free
    return RemlFit(
        solution.coefficients,
        solution.unscaled * residual,
        (*(float(value) for value in roots**2 * residual), residual),
        products.deviance(solution, residual) + products.free * math.log(2 * math.pi),
        products,
    )


def _rough_roots(values: Array, design: Array, effects: Sequence[Array]) -> Array:
    """Standard deviations of the effects in units of the residual's, for a minimisation to start at and scale by."""
    left, rank = _left_over(values, _beside([design, *effects], len(values)))
    power = float(values @ values)
    variance = left / (len(values) - rank) if rank < len(values) else power
    roots = np.sqrt(_group_variances(values, design, effects) / max(variance, _TINY**2 * power))
    return np.clip(roots, 1.0, _ROOT_LIMIT / 10.0)


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
