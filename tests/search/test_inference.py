"""Against closed forms, scipy and simulated studies whose truth is known."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from search.analysis.inference import Difference, alpha_each, decide, estimate, holm, looks, spent

points = st.floats(0, 100).map(lambda value: round(value, 3))


@given(st.lists(st.tuples(points, points), min_size=2, max_size=10))
def test_without_images_it_is_the_paired_t_test(pairs: list[tuple[float, float]]) -> None:
    own, base = np.array(pairs, dtype=float).T
    found = estimate(own, base)
    if np.ptp(np.subtract(own, base)) < 1e-6:
        return
    expected = stats.ttest_rel(own, base)
    assert found.p_different() == pytest.approx(expected.pvalue, rel=1e-6, abs=1e-12)
    interval = expected.confidence_interval(0.95)
    assert found.interval() == pytest.approx((interval.low, interval.high), rel=1e-6, abs=1e-6)


def test_readings_that_agree_do_not_show_that_there_is_no_noise() -> None:
    for own, base in (([90.0, 91.0], [90.0, 91.0]), ([90.0], [80.0]), ([], [])):
        found = estimate(np.array(own, dtype=float), np.array(base, dtype=float))
        assert np.isnan(found.p_different())
        assert all(np.isnan(found.interval()))
        assert decide({"a": [found]}, margin=1)["a"].verdict == "undecided"


def crossed(
    rng: np.random.Generator, seeds: int, images: int, effect: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw two networks' right and wrong predictions: images differ in difficulty for either, seeds in quality."""
    hard = rng.normal(1.0, 1.5, images)
    own_taste, base_taste = rng.normal(0, 0.6, (2, images))
    made = []
    for taste, shift in ((own_taste, effect), (base_taste, 0.0)):
        quality = rng.normal(0, 0.2, (seeds, 1))
        made.append(hard + taste + shift + quality + rng.logistic(0, 0.5, (seeds, images)) > 0)
    own, base = (100 * one.mean(1) for one in made)
    return own, base, 100.0 * (made[0].astype(float) - made[1])


def test_the_interval_holds_for_other_seeds_and_other_images() -> None:
    """No difference in the population; test sets and seeds are drawn anew in every study."""
    rng = np.random.default_rng(0)
    with_images = without = 0
    for _ in range(400):
        own, base, by_image = crossed(rng, seeds=5, images=200, effect=0.0)
        low, high = estimate(own, base, by_image).interval()
        with_images += low <= 0 <= high
        low, high = estimate(own, base).interval()
        without += low <= 0 <= high
    assert 0.92 <= with_images / 400 <= 0.985
    assert without < with_images  # what seeds alone say is too narrow for another test set


def test_more_images_leave_the_noise_between_seeds() -> None:
    rng = np.random.default_rng(1)
    few, many = (estimate(*crossed(rng, 8, images, 0.3)) for images in (50, 20_000))
    assert many.image_variance < few.image_variance
    assert many.image_variance < 0.05 * many.seed_variance


def make(effect: float, sd: float = 1.0, seeds: int = 5) -> Difference:
    return Difference(effect, seeds, sd**2)


def test_verdicts() -> None:
    found = {"bad": [make(-10)], "good": [make(10)], "same": [make(0.05, 0.1)], "open": [make(1.0, 2.0)]}
    decided = decide(found, margin=1.0)
    assert {name: one.verdict for name, one in decided.items()} == {
        "bad": "hurts",
        "good": "helps",
        "same": "equivalent",
        "open": "undecided",
    }
    needed = found["open"][0].seeds_needed(1.0, alpha_each(len(found)))
    assert needed is not None
    assert needed > 5
    assert decide(found)["same"].verdict != "equivalent"  # no margin, no equivalence


def test_arms_are_corrected_for_each_other() -> None:
    alone = decide({"a": [make(-2.0)]})["a"]
    among = decide({"a": [make(-2.0)]} | {f"other {n}": [make(0.1)] for n in range(9)})["a"]
    assert alone.p_different < 0.05 < among.p_different
    assert (alone.verdict, among.verdict) == ("hurts", "undecided")
    assert among.p_different == pytest.approx(10 * alone.p_different)


def test_the_smallest_effect_is_what_would_have_been_seen() -> None:
    rng = np.random.default_rng(2)
    truth = make(0.0, sd=1.0, seeds=6).smallest_effect()
    seen = sum(stats.ttest_1samp(rng.normal(truth, 1.0, 6), 0).pvalue < 0.05 for _ in range(2000))
    assert seen / 2000 == pytest.approx(0.8, abs=0.03)


def test_the_seeds_needed_decide_a_difference_like_this_one() -> None:
    rng = np.random.default_rng(3)
    needed = make(1.0, sd=1.5, seeds=3).seeds_needed(None)
    assert needed is not None
    seen = sum(stats.ttest_1samp(rng.normal(1.0, 1.5, needed), 0).pvalue < 0.05 for _ in range(2000))
    assert 0.78 <= seen / 2000 <= 0.88
    assert Difference(0.5, 3, 1.0, image_variance=1.0, images=100).seeds_needed(None) is None


@given(st.floats(-5, 5), st.floats(0.01, 5), st.integers(2, 20), st.floats(0.1, 5))
def test_no_arm_is_both_beyond_and_within_the_margin(effect: float, sd: float, seeds: int, margin: float) -> None:
    one = make(effect, sd, seeds)
    low, high = one.interval(alpha=0.10)
    if one.p_not_equivalent(margin) < 0.05:
        assert -margin < low <= high < margin
    if abs(effect) >= margin:
        assert one.p_not_equivalent(margin) >= 0.5


@settings(max_examples=10, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=6))
def test_holms_correction_is_that_of_statsmodels(values: list[float]) -> None:
    assert holm(values) == pytest.approx(multipletests(values, method="holm")[1].tolist())
    with_unknown = holm([*values, float("nan")])
    assert with_unknown[:-1] == pytest.approx(holm(values))
    assert np.isnan(with_unknown[-1])


@given(st.integers(1, 10), st.integers(0, 40))
def test_looks_begin_and_end_where_asked_and_spend_alpha_once(first: int, more: int) -> None:
    found = looks(first, first + more)
    assert (found[0], found[-1]) == (first, first + more)
    assert all(after > before for before, after in pairwise(found))
    assert sum(spent(len(found))) == pytest.approx(1)


def test_a_verdict_once_reached_stays() -> None:
    early, late = make(-8.0, 1.0, 3), make(-0.5, 3.0, 4)
    assert decide({"a": [early]}, planned=5)["a"].verdict == "hurts"
    assert decide({"a": [early, late]}, planned=5)["a"].verdict == "hurts"
    assert decide({"a": [late]}, planned=5)["a"].verdict == "undecided"


def test_looking_again_and_again_does_not_find_what_is_not_there() -> None:
    rng = np.random.default_rng(4)
    schedule = looks(3, 20)
    honest = naive = 0
    for _ in range(600):
        d = rng.normal(0, 1, schedule[-1])
        found = [estimate(d[:n], np.zeros(n)) for n in schedule]
        honest += decide({"a": found}, planned=len(schedule))["a"].verdict != "undecided"
        naive += any(one.p_different() < 0.05 for one in found)
    assert honest / 600 <= 0.06
    assert naive / 600 > 0.10
