"""Fronts and their order, against their definitions."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from search.strategy.ranking import Layers, Pile, Points, fronts, hypervolume, hypervolume_gains, spread_order

points = st.integers(2, 3).flatmap(
    lambda objectives: arrays(
        float, st.tuples(st.integers(1, 25), st.just(objectives)), elements=st.integers(0, 6).map(float)
    )
)


def dominates(one: Points, other: Points) -> bool:
    return bool((one >= other).all() and (one > other).any())


@given(points)
def test_a_point_is_on_the_front_after_the_last_that_dominates_it(given_points: Points) -> None:
    found = fronts(given_points)
    for index, point in enumerate(given_points):
        before = [found[other] for other, one in enumerate(given_points) if dominates(one, point)]
        assert found[index] == max(before, default=-1) + 1


@given(points)
def test_spread_order_takes_the_farthest_next(given_points: Points) -> None:
    different = np.unique(given_points, axis=0)
    order = spread_order(different)
    assert sorted(order) == list(range(len(different)))
    assert different[order[0], 0] == different[:, 0].max()
    span = np.ptp(different, axis=0)
    scaled = (different - different.min(0)) / np.where(span > 0, span, 1)
    for place in range(1, len(order)):
        gaps = np.linalg.norm(scaled[:, None] - scaled[order[:place]], axis=2).min(1)
        assert gaps[order[place]] >= gaps.max() - 1e-12


@given(points, st.booleans())
def test_points_that_come_one_by_one_are_on_the_same_fronts(given_points: Points, layered: bool) -> None:
    together = fronts(given_points)
    pairs = layered and given_points.shape[1] == 2
    found: Layers | Pile = Layers() if pairs else Pile()
    for count, point in enumerate(given_points, 1):
        found.add(tuple(point))
        now = fronts(given_points[:count])
        assert len(found) == count
        before, own = found.around(tuple(point))
        assert before == (now < now[-1]).sum()
    for point, front in zip(given_points, together, strict=True):
        before, own = found.around(tuple(point))
        assert before == (together < front).sum()
        assert own.tolist() == np.unique(given_points[together == front], axis=0).tolist()


@given(
    arrays(float, st.tuples(st.integers(0, 12), st.just(2)), elements=st.integers(0, 9).map(float)),
    arrays(float, st.tuples(st.integers(1, 6), st.just(2)), elements=st.integers(0, 9).map(float)),
    st.tuples(st.integers(0, 5).map(float), st.integers(0, 5).map(float)),
)
def test_gains_are_differences_of_hypervolumes(known: Points, others: Points, reference: tuple[float, float]) -> None:
    before = hypervolume(known, reference)
    expected = [hypervolume(np.vstack([known, one]), reference) - before for one in others]
    np.testing.assert_allclose(hypervolume_gains(known, others, np.array(reference)), expected, atol=1e-9)
