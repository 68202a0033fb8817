from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from search.throughput.intervals import bimodal, interval

speeds = st.lists(st.floats(0.5, 2000), min_size=3, max_size=200)


def autoregressive(random: np.random.Generator, count: int, rho: float) -> np.ndarray:
    noise = random.normal(size=count + 50)
    values = np.zeros(count + 50)
    for now in range(1, count + 50):
        values[now] = rho * values[now - 1] + noise[now]
    return values[50:]


def coverage(make: Callable[[np.random.Generator], np.ndarray], trials: int = 600) -> float:
    """Share of intervals that hold the true centre, which is 1."""
    random = np.random.default_rng(0)
    found = [interval(np.exp(0.02 * make(random))) for _ in range(trials)]
    return sum(one.low <= 1 <= one.high for one in found) / trials


# Bounds leave room for the error of a share of 600, about one point; benchmarks/ has the fine picture.
@pytest.mark.parametrize("count", [12, 40, 300])
def test_intervals_cover_for_independent_rounds_with_heavy_tails(count: int) -> None:
    assert 0.93 <= coverage(lambda random: random.standard_t(3, count)) <= 0.985


@pytest.mark.parametrize(("count", "rho"), [(40, 0.5), (100, 0.5), (400, 0.8)])
def test_intervals_cover_for_rounds_that_resemble_their_neighbours(count: int, rho: float) -> None:
    found = coverage(lambda random: autoregressive(random, count, rho))
    assert 0.90 <= found <= 0.985
    # What makes the difference: the interval that takes rounds for independent misses far more often.
    random, naive = np.random.default_rng(0), 0
    for _ in range(600):
        values = autoregressive(random, count, rho)
        naive += abs(values.mean()) <= stats.t.ppf(0.975, count - 1) * stats.sem(values)
    assert naive / 600 < 0.85


@given(speeds)
def test_an_inverse_ratio_has_the_inverse_interval(values: list[float]) -> None:
    one, other = interval(values), interval([1 / value for value in values])
    assert one.centre * other.centre == pytest.approx(1)
    if np.isfinite(one.low):
        assert one.low <= one.centre <= one.high
        assert one.low * other.high == pytest.approx(1)


@given(speeds, st.floats(0.01, 100))
def test_the_unit_does_not_matter(values: list[float], unit: float) -> None:
    one, other = interval(values), interval([unit * value for value in values])
    assert other.centre == pytest.approx(unit * one.centre)
    assert other.low == pytest.approx(unit * one.low, nan_ok=True)


def test_a_disturbed_round_changes_little() -> None:
    quiet = list(np.exp(0.01 * np.random.default_rng(1).normal(size=30)))
    disturbed = [*quiet[:10], 0.1, *quiet[11:]]
    assert interval(disturbed).centre == pytest.approx(interval(quiet).centre, rel=0.01)
    assert abs(np.mean(disturbed) / np.mean(quiet) - 1) > 0.02


def test_more_rounds_tell_more() -> None:
    values = np.exp(0.05 * np.random.default_rng(2).normal(size=(50, 1600)))
    widths = [np.mean([interval(row[:count]).half_width for row in values]) for count in (25, 100, 400, 1600)]
    assert all(1.8 < before / after < 2.3 for before, after in pairwise(widths))


def test_too_few_rounds_have_no_interval_and_equal_ones_a_point() -> None:
    assert np.isnan(interval([2.0, 2.1]).low)
    assert interval([2.0] * 9).low == interval([2.0] * 9).high == pytest.approx(2)


def test_two_speeds_are_told_from_one() -> None:
    random = np.random.default_rng(3)
    one = np.exp(0.02 * random.standard_t(4, (200, 60)))
    assert sum(bimodal(list(row)) is not None for row in one) <= 4
    shift = np.where(random.random((200, 60)) < 0.4, 1.2, 1.0)
    assert sum(bimodal(list(row)) is not None for row in one * shift) >= 180
    low, high = bimodal(list(one[0] * shift[0])) or (0.0, 0.0)
    assert (low, high) == (pytest.approx(1, rel=0.02), pytest.approx(1.2, rel=0.02))
    assert bimodal([1.0] * 20 + [2.0] * 19) is None  # too few to tell
