"""The likelihood itself against its definition with full matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest

from polyres.listen.analysis.reml import fit_reml


def model(seed: int = 0) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    generator = np.random.default_rng(seed)
    groups = np.repeat(np.arange(6), 5)
    effects = [(groups[:, None] == np.arange(6)).astype(float)]
    design = (generator.integers(2, size=30)[:, None] == np.arange(2)).astype(float)
    values = design @ [3.0, 5.0] + effects[0] @ generator.normal(0, 2, 6) + generator.normal(0, 1, 30)
    return values, design, effects


def dense_deviance(values: np.ndarray, design: np.ndarray, effects: list[np.ndarray], variances: list[float]) -> float:
    noise = variances[-1] * np.eye(len(values))
    covariance = noise + sum(v * z @ z.T for v, z in zip(variances[:-1], effects, strict=True))
    inverse = np.linalg.inv(covariance)
    outer = design.T @ inverse @ design
    rest = values - design @ np.linalg.solve(outer, design.T @ inverse @ values)
    logs = np.linalg.slogdet(covariance)[1] + np.linalg.slogdet(outer)[1]
    return float(logs + rest @ inverse @ rest + (len(values) - design.shape[1]) * math.log(2 * math.pi))


def test_the_deviance_is_the_restricted_likelihood_and_lowest_where_the_fit_ends() -> None:
    values, design, effects = model()
    fit = fit_reml(values, design, effects)
    best = dense_deviance(values, design, effects, list(fit.variances))
    assert fit.deviance == pytest.approx(best, abs=1e-6)
    for factors in ((1.2, 1.0), (0.8, 1.0), (1.0, 1.1), (1.0, 0.9)):
        moved = [variance * factor for variance, factor in zip(fit.variances, factors, strict=True)]
        assert dense_deviance(values, design, effects, moved) > best


def test_coefficients_are_those_of_generalised_least_squares() -> None:
    values, design, effects = model(1)
    fit = fit_reml(values, design, effects)
    covariance = fit.variances[0] * effects[0] @ effects[0].T + fit.variances[1] * np.eye(30)
    inverse = np.linalg.inv(covariance)
    outer = np.linalg.inv(design.T @ inverse @ design)
    np.testing.assert_allclose(fit.coefficients, outer @ design.T @ inverse @ values, atol=1e-6)
    np.testing.assert_allclose(fit.covariance, outer, atol=1e-6)


def test_without_effects_it_is_least_squares_with_its_degrees_of_freedom() -> None:
    values, design, _ = model(2)
    fit = fit_reml(values, design, [])
    solution, residual = np.linalg.lstsq(design, values, rcond=None)[:2]
    np.testing.assert_allclose(fit.coefficients, solution)
    assert fit.variances == pytest.approx((float(residual[0]) / 28,))
    error, degrees = fit.error_of(np.array([1.0, -1.0]))
    assert degrees == pytest.approx(28, rel=1e-3)
    assert error == pytest.approx(math.sqrt(fit.variances[0] * np.linalg.inv(design.T @ design).trace()))
    assert fit.error_of(np.zeros(2)) == (0.0, math.inf)
