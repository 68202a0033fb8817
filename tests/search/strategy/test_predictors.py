"""Predictions of architectures, against refits and simulations."""

import math

import numpy as np
import pytest
from scipy import stats
from sklearn.gaussian_process import GaussianProcessRegressor

from search.strategy.predictors import (
    JUDGED,
    POOR,
    UNSURE,
    Array,
    Knowledge,
    Regression,
    encode,
    extrapolate,
    rank_correlation,
)
from space import SearchSpace, preset
from space.dimensions import Dimension


def drawn(n: int, seed: int, noise: float = 0.05) -> tuple[Array, Array]:
    rng = np.random.default_rng(seed)
    rows = rng.random((n, 3))
    return rows, 3 * rows[:, 0] - np.sin(3 * rows[:, 1]) + noise * rng.standard_normal(n)


def test_left_out_predictions_are_those_of_fits_without_the_row() -> None:
    rows, values = drawn(25, 0)
    found = Regression(rows, values)
    scaled = (rows - rows.mean(0)) / rows.std(0)
    targets = (values - values.mean()) / values.std()
    for index in range(25):
        rest = np.arange(25) != index
        model = GaussianProcessRegressor(found.model.kernel_, optimizer=None).fit(scaled[rest], targets[rest])
        expected = values.mean() + values.std() * model.predict(scaled[[index]])[0]
        assert found.left_out[index] == pytest.approx(expected, abs=1e-6)
    assert found.quality == pytest.approx(stats.spearmanr(found.left_out, values).statistic)
    assert found.quality > 0.9


def test_upper_bounds_hold_as_often_as_they_say() -> None:
    held = []
    for seed in range(120):
        rows, values = drawn(41, seed, noise=0.3)
        bound = Regression(rows[:40], values[:40]).upper(rows[40], 0.9)
        held.append(values[40] <= bound)
    assert stats.binomtest(sum(held), len(held), 0.9).pvalue > 0.01


def test_few_known_architectures_bound_nothing() -> None:
    rows, values = drawn(18, 0)
    assert Regression(rows, values).upper(rows[0], 0.95) == math.inf
    assert math.isfinite(Regression(*drawn(19, 0)).upper(rows[0], 0.95))


def test_knowledge_finds_what_would_enlarge_the_front_and_what_cannot() -> None:
    rng = np.random.default_rng(0)
    rows = rng.random((40, 2))
    reached = np.column_stack([50 + 40 * rows[:, 0] - 30 * rows[:, 1], 2 - rows[:, 0]])
    found = Knowledge(rows, reached)
    assert not found.is_poor
    assert found.most_promising(np.array([[0.5, 0.9], [0.5, 0.5], [0.5, -0.3], [0.2, 1.0]])) == 2
    beaten = found.cannot_reach(np.array([0.3, 0.9]), 0.9, 0.95)
    assert beaten is not None and beaten[0] < beaten[1] == reached[reached[:, 1] >= 0.9, 0].max()
    assert found.cannot_reach(np.array([0.9, 0.0]), 1.9, 0.95) is None
    assert found.cannot_reach(np.array([0.9, 0.9]), 9.0, 0.95) is None  # faster than all


def test_curves_are_extrapolated_by_regression_on_others() -> None:
    rng = np.random.default_rng(0)
    then = 30 + 20 * rng.random(50)
    final = 40 + 0.8 * then + rng.standard_normal(50)
    line = stats.linregress(then, final)
    expected, error = extrapolate(45.0, then, final)
    assert expected == pytest.approx(line.intercept + line.slope * 45.0)
    assert error == pytest.approx(np.sqrt(np.sum((final - line.intercept - line.slope * then) ** 2) / 48))
    assert extrapolate(45.0, then[:2], final[:2]) == (pytest.approx(45 + np.mean(final[:2] - then[:2])), UNSURE)
    assert extrapolate(45.0, then[:0], final[:0]) == (45.0, UNSURE)
    assert extrapolate(99.0, then, final)[0] == 100.0
    assert extrapolate(45.0, then, -then)[0] == pytest.approx(-then.mean())  # never the worse for being better


def test_estimates_weigh_less_than_what_was_found() -> None:
    rows, values = drawn(30, 0)
    wrong = values.copy()
    wrong[15:] += 2.0
    errors = np.repeat([0.0, 2.0], 15)
    heeded = Regression(rows, wrong, errors=errors)
    assert np.abs(heeded.predict(rows) - values).mean() < np.abs(Regression(rows, wrong).predict(rows) - values).mean()
    assert heeded.quality == rank_correlation(heeded.left_out[:15], values[:15])


def test_a_prior_is_corrected_by_what_is_found() -> None:
    rows, values = drawn(12, 0)
    asked, truth = drawn(200, 1, noise=0.0)
    known, prior = values + 50 * rows[:, 2] ** 3, 50 * asked[:, 2] ** 3
    plain = Regression(rows, known).predict(asked)
    helped = Regression(rows, known, prior=50 * rows[:, 2] ** 3).predict(asked, prior)
    assert np.abs(helped - truth - prior).mean() < 0.3 < np.abs(plain - truth - prior).mean()


def test_what_cannot_be_predicted_is_called_poor() -> None:
    rng = np.random.default_rng(1)
    found = Knowledge(rng.random((40, 2)), np.column_stack([rng.random(40), 1 + rng.random(40)]))
    assert found.accuracy.quality <= POOR
    assert found.is_poor
    assert rank_correlation(np.arange(JUDGED - 1.0), np.arange(JUDGED - 1.0)) == 0


def test_kernels_are_taken_over_until_a_quarter_more_is_known() -> None:
    rows, values = drawn(60, 0)
    reached = np.column_stack([values, 1 + rows[:, 0]])
    first = Knowledge(rows[:40], reached[:40])
    soon, later = (Knowledge(rows[:n], reached[:n], first) for n in (49, 50))
    assert soon.accuracy.model.kernel_ == first.accuracy.model.kernel_
    assert later.accuracy.model.kernel_ != first.accuracy.model.kernel_
    assert (soon.fitted, later.fitted) == (40, 50)


def test_architectures_are_encoded_in_order_or_a_column_a_choice() -> None:
    space = SearchSpace(
        base=preset("inceptionnext_laptop"),
        dimensions={
            "depth": Dimension(path="depths.0", choices=(4, 2, 3)),
            "norm": Dimension(path="norm", choices=("batchnorm", "layernorm")),
        },
        resolution=24,
    )
    assert encode(space, {"depth": 3, "norm": "layernorm"}, {"params": math.e}).tolist() == [0.5, 0.0, 1.0, 1.0]
