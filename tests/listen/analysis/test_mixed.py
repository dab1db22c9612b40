"""Mixed models and agreement against statsmodels, closed forms and known effects."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from scipy import stats

from polyres.core.errors import InputError
from polyres.listen.analysis.mixed import MixedModel, agreement, mixed_model
from polyres.listen.analysis.statistics import Scores
from tests.listen.studies import normal_scores

SDS = {"listener": 5.0, "item": 6.0, "listener:condition": 4.0, "item:condition": 3.0, "residual": 7.0}


def by_statsmodels(scores: Scores, interactions: bool) -> tuple[np.ndarray, np.ndarray, float, list[float]]:
    from statsmodels.regression.mixed_linear_model import MixedLM, VCSpec

    listener, item, condition = np.nonzero(np.isfinite(scores.values))
    size = len(scores.conditions)
    groups = {"i": item, "l": listener}
    if interactions:
        groups |= {"ic": item * size + condition, "lc": listener * size + condition}
    matrices = {name: (labels[:, None] == np.unique(labels)).astype(float) for name, labels in groups.items()}
    names = [[[f"{name}{n}" for n in range(matrix.shape[1])]] for name, matrix in matrices.items()]
    spec = VCSpec(list(matrices), names, [[matrix] for matrix in matrices.values()])
    design = (condition[:, None] == np.arange(size)).astype(float)
    values = scores.values[listener, item, condition]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = MixedLM(values, design, groups=np.ones(len(values)), exog_vc=spec).fit(reml=True)
    return fit.fe_params, fit.cov_params()[:size, :size], fit.scale, list(fit.vcomp)


@pytest.mark.parametrize("interactions", [False, True])
def test_fits_are_those_of_statsmodels(interactions: bool) -> None:
    scores = normal_scores(np.random.default_rng(8), SDS, (7, 5, 3), [70, 60, 50])
    scores.values[0, 2, 1] = scores.values[3, :, 2] = np.nan
    model = mixed_model(scores, interactions)
    means, covariance, scale, variances = by_statsmodels(scores, interactions)
    np.testing.assert_allclose(list(model.means.values()), means, atol=0.02)
    np.testing.assert_allclose(model.fit.covariance, covariance, rtol=0.02, atol=0.02)
    order = ["item", "listener", *(["item:condition", "listener:condition"] if interactions else [])]
    np.testing.assert_allclose([model.sds[name] ** 2 for name in order], variances, rtol=0.03, atol=0.1)
    assert model.sds["residual"] ** 2 == pytest.approx(scale, rel=0.01)


def test_one_rating_each_is_a_paired_t_test() -> None:
    scores = normal_scores(np.random.default_rng(4), {"listener": 5, "residual": 4}, (12, 1, 2), [60, 57])
    contrast = mixed_model(scores).contrast("c0", "c1")
    first, second = scores.of("c0")[:, 0], scores.of("c1")[:, 0]
    outcome = stats.ttest_rel(first, second)
    assert contrast.degrees == pytest.approx(11, rel=1e-3)
    assert contrast.p_value == pytest.approx(outcome.pvalue, rel=1e-3)
    interval = outcome.confidence_interval()
    assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high), rel=1e-3)


def test_balanced_designs_give_the_variances_of_the_analysis_of_variance() -> None:
    listeners, items = 9, 6
    scores = normal_scores(
        np.random.default_rng(5), {"listener": 9, "item": 8, "residual": 4}, (listeners, items, 2), [60, 50]
    )
    model = mixed_model(scores)
    table = scores.values - scores.values.mean(axis=(0, 1))
    by_listener, by_item = table.mean(axis=(1, 2)), table.mean(axis=(0, 2))
    rest = table - by_listener[:, None, None] - by_item[None, :, None]
    error = float((rest**2).sum()) / (listeners * items * 2 - 2 - (listeners - 1) - (items - 1))
    expected = math.sqrt(
        items * 2 * float((by_listener**2).sum()) / (listeners - 1) / (items * 2) - error / (items * 2)
    )
    assert model.sds["residual"] == pytest.approx(math.sqrt(error), rel=1e-3)
    assert model.sds["listener"] == pytest.approx(expected, rel=1e-3)


def test_formulas_hold_what_the_data_can_tell() -> None:
    scores = normal_scores(np.random.default_rng(6), SDS, (5, 4, 3), [70, 60, 50])
    assert mixed_model(scores).formula == "score ~ condition + (1|listener) + (1|item)"
    assert mixed_model(scores, True).formula.endswith("(1|listener:condition) + (1|item:condition)")
    one_item = Scores(scores.listeners, ("i0",), scores.conditions, scores.values[:, :1])
    assert mixed_model(one_item, True).formula == "score ~ condition + (1|listener)"


LISTENERS = np.array([3.0, -4.0, 6.0, 0.0, -9.0])
ITEMS = np.array([5.0, -6.0, 2.0, 8.0])


@pytest.mark.parametrize("interactions", [False, True])
@pytest.mark.parametrize("base", [0.1, 55.0, 1e6])
@pytest.mark.parametrize(("listeners", "items"), [(1, 1), (1, 0), (0, 1), (0, 0)])
def test_exactly_additive_ratings_leave_no_residual(
    interactions: bool, base: float, listeners: int, items: int
) -> None:
    by_listener, by_item = listeners * LISTENERS, items * ITEMS
    values = base + by_listener[:, None, None] + by_item[None, :, None] - np.array([0.0, 10.0, 10.0])
    names = [tuple(f"{kind}{n}" for n in range(size)) for kind, size in zip("lic", values.shape, strict=True)]
    model = mixed_model(Scores(names[0], names[1], names[2], values), interactions)
    assert model.sds["listener"] == pytest.approx(by_listener.std(ddof=1), rel=1e-4)
    assert model.sds["item"] == pytest.approx(by_item.std(ddof=1), rel=1e-4)
    assert {sd for name, sd in model.sds.items() if name not in ("listener", "item")} == {0.0}
    assert list(model.means.values()) == pytest.approx(list(values.mean(axis=(0, 1))))
    differs, same = model.contrast("c0", "c1"), model.contrast("c1", "c2")
    assert (differs.low, differs.high) == (differs.difference, differs.difference) == (pytest.approx(10.0),) * 2
    assert (differs.p_value, differs.degrees) == (0.0, math.inf)
    assert (same.difference, same.low, same.high, same.p_value) == (0.0, 0.0, 0.0, 1.0)


def test_where_listeners_differ_in_conditions_exactly_the_difference_is_a_paired_t_test() -> None:
    generator = np.random.default_rng(3)
    by_listener = generator.normal(50, 5, (6, 1, 2)) + np.array([9.0, -9.0, 4.0, -4.0, 0.0, 0.0])[:, None, None]
    values = by_listener + ITEMS[None, :, None]
    scores = Scores(tuple("abcdef"), tuple("wxyz"), ("c0", "c1"), values)
    model = mixed_model(scores, True)
    contrast = model.contrast("c0", "c1")
    outcome = stats.ttest_rel(by_listener[:, 0, 0], by_listener[:, 0, 1])
    interval = outcome.confidence_interval()
    assert model.sds["residual"] == model.sds["item:condition"] == 0.0
    assert contrast.degrees == pytest.approx(5, rel=1e-3)
    assert contrast.p_value == pytest.approx(outcome.pvalue, rel=1e-3)
    assert (contrast.low, contrast.high) == pytest.approx((interval.low, interval.high), rel=1e-3)


@pytest.mark.parametrize("off", [1.0, 0.1])
def test_one_rating_off_leaves_the_residual_of_the_analysis_of_variance(off: float) -> None:
    values = 50.0 + LISTENERS[:, None, None] + ITEMS[None, :, None] - np.array([0.0, 10.0])
    values[0, 0, 0] += off
    model = mixed_model(Scores(tuple("abcde"), tuple("wxyz"), ("c0", "c1"), values))
    # What 40 values leave of a change in one of them, over the 31 degrees of freedom that are left.
    assert model.sds["residual"] == pytest.approx(off * math.sqrt(31 / 40 / 31), rel=1e-3)
    assert model.sds["listener"] == pytest.approx(LISTENERS.std(ddof=1), rel=0.03)


def test_designs_with_holes_of_whole_numbers_can_be_fitted() -> None:
    generator = np.random.default_rng(11)
    for _ in range(4):
        values = (generator.integers(0, 40, (4, 1, 1)) + generator.integers(0, 30, (1, 3, 1)) + 5.0) * np.ones(3)
        values[generator.random(values.shape) < 0.3] = np.nan
        values[:2, 0] = values[0, 0, 0] = 20.0
        contrast = mixed_model(Scores(tuple("abcd"), tuple("xyz"), ("c0", "c1", "c2"), values), True).contrast(
            "c0", "c1"
        )
        assert contrast.low <= contrast.difference <= contrast.high


def test_what_cannot_be_fitted_is_refused() -> None:
    scores = normal_scores(np.random.default_rng(6), SDS, (5, 4, 2), [70, 60])
    with pytest.raises(InputError, match="a mixed model needs two listeners and two conditions at least"):
        mixed_model(Scores(("a",), scores.items, scores.conditions, scores.values[:1]))
    unrated = np.concatenate([scores.values, np.full((5, 4, 1), np.nan)], axis=2)
    with pytest.raises(InputError, match="condition 'c2' has no ratings; leave it out or collect some"):
        mixed_model(Scores(scores.listeners, scores.items, ("c0", "c1", "c2"), unrated))
    lone = np.array([[[60.0, np.nan]], [[np.nan, 50.0]]])
    with pytest.raises(InputError, match="2 ratings are too few for a mixed model of 2 conditions"):
        mixed_model(Scores(("a", "b"), ("x",), ("c0", "c1"), lone))
    with pytest.raises(InputError, match="condition 'c7' is not in the model; it has c0, c1"):
        mixed_model(scores).contrast("c0", "c7")


def covers(model: MixedModel, truth: float) -> bool:
    contrast = model.contrast("c0", "c1")
    return contrast.low <= truth <= contrast.high


@pytest.mark.slow
def test_the_full_model_covers_the_truth_and_the_plain_one_does_not() -> None:
    plain, full = 0, 0
    for seed in range(60):
        scores = normal_scores(np.random.default_rng(seed), SDS, (12, 8, 2), [60, 55])
        plain += covers(mixed_model(scores), 5.0)
        full += covers(mixed_model(scores, True), 5.0)
    assert 53 <= full <= 60
    assert plain < full - 4


def test_agreement_is_that_of_shrout_and_fleiss() -> None:
    # Table 2 of the paper: six targets, four judges; ICC(2,1) = 0.29, ICC(2,4) = 0.62.
    ratings = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]
    values = np.array(ratings, float).T[:, :, None]
    found = agreement(Scores(("a", "b", "c", "d"), tuple("uvwxyz"), ("c0",), values))
    assert (round(found.single, 2), round(found.average, 2)) == (0.29, 0.62)
    assert (found.listeners, found.targets) == (4, 6)


def test_agreement_needs_sounds_that_all_have_rated() -> None:
    values = np.full((2, 2, 1), np.nan)
    values[0, 0] = values[1, 1] = 3.0
    assert math.isnan(agreement(Scores(("a", "b"), ("x", "y"), ("c0",), values)).single)
